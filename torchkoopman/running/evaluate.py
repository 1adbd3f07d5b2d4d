"""``tk.evaluate``: how good a surrogate is on data that it has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchkoopman.observe.batches import check_loader
from torchkoopman.observe.watch import Watch
from torchkoopman.running.evaluation import Evaluation, Evaluator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.views import LayoutOption, OutputOption


def evaluate(
    surrogate: Surrogate,
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layout: LayoutOption | None = None,
    output: OutputOption | None = None,
    positions: int | None = None,
    forward: Forward | None = None,
    gather: bool = False,
) -> Evaluation:
    """R² of a surrogate at each layer, on data it has not seen.

    R² is the share of variance that is explained: 1 is perfect, 0 no better than the mean.

    Example:
        >>> evaluation = tk.evaluate(surrogate, model, test.loader(500))
        >>> evaluation.rows, evaluation.r2 > 0.9
        (5000, True)

    Args:
        surrogate: fitted to layers of the model.
        model: runs in eval mode without gradients and is given back as it was.
        loader: batches as for :func:`fit`.
        layout: as for :func:`fit`; by default what the surrogate's ``views`` say.
        output: likewise.
        positions: take so many random positions of each sample instead of all.
        forward: how to call the model on a batch, if not as :func:`fit` does.
        gather: as for :func:`fit`.

    Raises:
        ValueError: no rows in the loader; a layer that was read through a function, without
            ``output``; or one that returns another structure than it did in the fit.
    """
    evaluator = Evaluator(surrogate)
    watch = Watch.of(
        model,
        surrogate.span.watched,
        surrogate.views,
        layout=layout,
        output=output,
        positions=positions,
        forward=forward,
        gather=gather,
    )
    check_loader(loader)
    watch.stream(loader, evaluator).require()
    return evaluator.result()
