"""``fit_gated``: a gated neural ODE in place of a span, beside what is linear."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from torchkoopman.flows.gated_rows import Ends, require_spread, require_way_back
from torchkoopman.flows.gated_surrogate import GNODE, GatedSurrogate
from torchkoopman.flows.gated_training import Scale, closed_form, trained
from torchkoopman.koopman.arithmetic import without_autocast
from torchkoopman.koopman.feature_maps import RandomFeatures, as_parts
from torchkoopman.koopman.folding import Replacement
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.observe.batches import batches_in
from torchkoopman.observe.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from torchkoopman.koopman.feature_maps import Part
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.views import LayoutOption, OutputOption


@torch.inference_mode(False)
@torch.enable_grad()
@without_autocast
def fit_gated(
    model: nn.Module,
    loader: Iterable[Any],
    start: str,
    end: str,
    *,
    states: int | None = None,
    widths: Sequence[int] = (200,),
    times: int = 4,
    steps: int = 2000,
    learning_rate: float = 1e-2,
    batch: int = 256,
    rows: int = 20_000,
    observables: Part | Sequence[Part] | None = None,
    layout: LayoutOption | None = None,
    output: OutputOption | None = None,
    positions: int | None = None,
    forward: Forward | None = None,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> GatedSurrogate:
    """A gated neural ODE from one layer's state to a later one's, beside the linear closed forms.

    The flow ``dh/dt = G(h) ⊙ (-h + F(h))`` over unit time stands between a linear encoder and a
    linear decoder (:class:`GatedODECell` without inputs). Of ten samples eight are fitted, one
    chooses the gradient step, and one is held out for the R², which the skip, the ridge map and
    EDMD (the best affine map of the observables), fitted on the same rows, are given beside it.

    The model runs once over the loader, in eval mode without gradients, and is given back as it
    was. Global random state is not touched. Of many processes each fits what its own loader gives.

    Example:
        >>> gated = tk.flows.fit_gated(model, train.loader(500), "1", "9", progress=False)
        >>> gated.r2["gnODE"] > gated.r2["ridge map"] > gated.r2["skip"]
        True
        >>> edited = tk.swap(model, gated.module, gated.start, gated.end)
        >>> edited(test.inputs[:8]).shape
        torch.Size([8, 3])

    Args:
        model: any eager module.
        loader: batches as for :func:`torchkoopman.fit`, of twenty samples or more in all.
        start: the layer whose state is taken.
        end: a later layer, of any width, whose state is predicted.
        states: width of the flow's state; None for that of the start. A narrower flow starts from
            the leading principal directions.
        widths: of F's hidden layers.
        times: Euler steps over the unit of time.
        steps: gradient steps.
        learning_rate: of Adam at most: it rises for a tenth of the steps, then falls to 0.
        batch: rows of a gradient step.
        rows: to keep, of all that come, for each of the three purposes, drawn evenly.
        observables: of EDMD, which look at each position alone; None for 500 random features.
        layout: einops pattern of the layers' outputs, as for :func:`torchkoopman.attach`.
        output: which tensor is a layer's state, likewise.
        positions: take so many random positions of each sample instead of all.
        forward: how to call the model on a batch, if not as :func:`torchkoopman.fit` does.
        generator: draws rows, weights, batches and random features; None for one seeded with 0.
        progress: show bars and print the table.

    Returns:
        A frozen result; its ``module`` goes between the two layers by
        ``tk.swap(model, result.module, start, end)``.

    Raises:
        ValueError: options out of range, layers that do not run in this order, too few
            samples, a layer that is constant, or states that no module can be put back to (an
            average, or a function of the output).
    """
    parts = [RandomFeatures()] if observables is None else as_parts(copy.deepcopy(observables))
    _require_options(states, times, steps, learning_rate, batch, rows, parts)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    ends = Ends(start, end, rows, generator)
    watch = Watch(model, (start, end), layout, positions, forward, output)
    length = batches_in(loader)
    watch.stream(tqdm(loader, "watch", length, disable=not progress), ends).require()
    for layer, view in ends.views.items():
        require_way_back(layer, view)
    fit, choose, report = (ends.pairs(kind) for kind in ("fit", "choose", "report"))
    require_spread(start, fit[0], "fit")
    for kind, rows_of in (("fit", fit), ("choose by", choose), ("report on", report)):
        require_spread(end, rows_of[1], kind)
    linear = _closed_forms(fit, report[0], parts, generator)
    found = trained(
        fit,
        choose,
        states=fit[0].shape[1] if states is None else states,
        widths=widths,
        times=times,
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
        generator=generator,
        progress=progress,
    )
    with torch.no_grad():
        own = found.core(report[0][:, None])[:, 0]
    size = sum(parameter.numel() for parameter in found.core.parameters())
    predicted = linear | {GNODE: (own, size)}
    views = [ends.views[layer] for layer in (start, end)]
    result = GatedSurrogate(
        start,
        end,
        Replacement(found.core, *(view.layout for view in views)).eval(),
        {name: _r2(values, report[1]) for name, (values, _) in predicted.items()},
        {name: size for name, (_, size) in predicted.items()},
        len(fit[0]),
        len(report[0]),
        len(choose[0]),
        found.step,
        steps,
    )
    if progress:
        tqdm.write(str(result))
    return result


def _closed_forms(
    fit: tuple[Tensor, Tensor],
    unseen: Tensor,
    parts: Sequence[Part],
    generator: torch.Generator,
) -> dict[str, tuple[Tensor, int]]:
    """What is linear: its predictions of unseen rows, and how many numbers it holds."""
    start, end = fit
    found = {"skip": (unseen, 0)} if start.shape[1] == end.shape[1] else {}
    scale = Scale.of(start)
    dictionary = Dictionary(parts).build(start.shape[1], generator).to(start)
    held = sum(value.numel() for value in dictionary.state_dict().values())
    for name, seen, others, extra in (
        ("ridge map", start, unseen, 0),
        ("EDMD", *(dictionary.encode(scale(x)[:, None])[:, 0, 1:] for x in (start, unseen)), held),
    ):
        weight, bias = closed_form(seen, end)
        predicted = others.double() @ weight.T + bias
        found[name] = predicted, weight.numel() + bias.numel() + extra
    return found


def _r2(predicted: Tensor, truth: Tensor) -> float:
    """Share of the variance that is explained: 0 for the mean of the truth."""
    truth = truth.double()
    left = (predicted.double() - truth).square().sum()
    return (1 - left / (truth - truth.mean(0)).square().sum()).item()


def _require_options(
    states: int | None,
    times: int,
    steps: int,
    learning_rate: float,
    batch: int,
    rows: int,
    parts: Sequence[Part],
) -> None:
    given = {"times": times, "steps": steps, "batch": batch, "rows": rows}
    given |= {} if states is None else {"states": states}
    if min(given.values()) < 1 or not learning_rate > 0:
        said = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(
            f"fit_gated() got {said} and learning_rate={learning_rate}; give 1 or more of each, "
            "and a positive rate."
        )
    for part in parts:
        if part.contextual:
            raise ValueError(
                f"fit_gated() got the observables {type(part).__name__}, which look along the "
                "positions, and a flow moves each position alone; leave them out."
            )
