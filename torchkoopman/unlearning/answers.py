"""Answers: a classifier's logits and the states of a span, over training and unseen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchkoopman.koopman.folding import Replacement
from torchkoopman.observe.watch import Watch, read_again
from torchkoopman.unlearning.batches import labels_of
from torchkoopman.unlearning.measures import among

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.outputs import OutputChoice
    from torchkoopman.observe.trajectory import Trajectory
    from torchkoopman.observe.views import OutputOption, View
    from torchkoopman.unlearning.batches import Batches

_FLAT = "b ... -> b 1 (...)"
"""The layout with one row per sample, so that states and answers go together."""
_ROOT = ""
"""The model itself among its layers."""


@dataclass(frozen=True)
class Part:
    """What a network said of one data set."""

    logits: Tensor
    """``(samples, classes)``."""
    labels: Tensor
    """``(samples,)``."""
    states: dict[str, Tensor]
    """State → some of its rows, ``(rows, features)``."""
    target: Tensor
    """Whether a row of the states is of a forgotten class, boolean, ``(rows,)``."""


@dataclass(frozen=True)
class Answers:
    """What a network said of training and unseen data."""

    train: Part
    test: Part


@dataclass(frozen=True)
class Ends:
    """Which two layers are looked into, and how their outputs are read."""

    layers: tuple[str, str]
    """Start and end."""
    outputs: dict[str, OutputChoice | View]
    """Layer → which tensor of its output is looked at, where that is not left to the rule."""
    layouts: dict[str, str]
    """Layer → the pattern that makes one row a sample of that tensor."""

    @classmethod
    def of(
        cls,
        layers: tuple[str, str],
        surrogates: Iterable[Surrogate | None],
        output: OutputOption | None,
    ) -> Ends:
        """The two layers, read as for the first surrogate that knows them, or as ``output`` says.

        Raises:
            ValueError: a layer was read through a function and ``output`` has nothing for it, or a
                key of ``output`` matches no layer.
        """
        views: dict[str, View] = {}
        for surrogate in surrogates:
            views = {**({} if surrogate is None else surrogate.views), **views}
        outputs, _ = read_again(layers, views, output)
        layouts = {
            layer: views[layer].layout.by_sample if layer in views else _FLAT for layer in layers
        }
        return cls(layers, outputs, layouts)


class Interview:
    """Asks a network about batches, and keeps its answers and a share of its states.

    Args:
        name: of the network, for errors.
        model: the classifier.
        classes: the forgotten ones.
        ends: of the span whose states are looked into; None for none.
        surrogate: what stands in the network's span, for its latent state.
        samples: half so many states of forgotten and of other samples are kept at most.
        forward: how to call the model on a batch, if not as a fit does.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        classes: Collection[int],
        ends: Ends | None,
        surrogate: Surrogate | None,
        samples: int,
        forward: Forward | None = None,
    ) -> None:
        self.forward = forward
        self.name, self.model, self.classes = name, model, tuple(classes)
        self.surrogate, self.samples = surrogate, samples
        self.ends = ends
        self.layers = None if ends is None else _places(name, model, *ends.layers)

    def ask(self, batches: Batches, what: str) -> Part:
        """Run the model over the batches, in eval mode and without gradients."""
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._states: list[dict[str, Tensor]] = []
        self._targets: list[Tensor] = []
        self._watch().stream(self._read(batches, what), self)
        if not self._labels:
            raise ValueError(f"{what}= has no batches; an audit needs {what} data.")
        names = self._states[0]
        return Part(
            torch.cat(self._logits),
            torch.cat(self._labels),
            {name: torch.cat([states[name] for states in self._states]) for name in names},
            torch.cat(self._targets),
        )

    def update(self, trajectory: Trajectory) -> None:
        """Take in one batch: its logits, and rows of its states as long as they are wanted."""
        labels, rows = trajectory.labels, trajectory.rows()
        assert labels is not None, "every batch has been asked for its labels"
        logits = rows.pop(_ROOT)
        if len(logits) != len(labels) or logits.shape[1] <= int(labels.max()):
            raise TypeError(
                f"the {self.name} network answered {len(labels)} samples of classes up to "
                f"{int(labels.max())} with finite rows {tuple(logits.shape)}; an audit needs one "
                "finite row of logits per sample and a column for every class."
            )
        target = among(labels, self.classes)
        chosen = torch.cat([self._wanted(target, kind) for kind in (True, False)])
        self._logits.append(logits.float().cpu())
        self._labels.append(labels.cpu())
        self._targets.append(target[chosen].cpu())
        self._states.append(self._span({layer: row[chosen] for layer, row in rows.items()}))

    def _watch(self) -> Watch:
        """The two layers and the logits; what was swapped in returns the end's tensor itself."""
        layouts, outputs = {_ROOT: _FLAT}, dict[str, "OutputChoice | View"]()
        if self.ends is not None and self.layers is not None:
            for layer, module in zip(self.ends.layers, self.layers, strict=True):
                layouts[module] = self.ends.layouts[layer]
                swapped = isinstance(self.model.get_submodule(module), Replacement)
                if layer in self.ends.outputs and not swapped:
                    outputs[module] = self.ends.outputs[layer]
        layers = [*(self.layers or ()), _ROOT]
        return Watch(self.model, layers, layouts, forward=self.forward, output=outputs)

    def _read(self, batches: Batches, what: str) -> Iterator[Any]:
        """The batches, each once it is certain that it has labels."""
        for batch in batches:
            labels_of(batch, self.model, self.forward, what)
            yield batch

    def _wanted(self, target: Tensor, kind: bool) -> Tensor:
        """Indices of the batch's forgotten or other samples that there is still room for."""
        have = sum(int((known == kind).sum()) for known in self._targets)
        return (target == kind).nonzero()[:, 0][: max(0, self.samples // 2 - have)]

    def _span(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """States at the span's start, behind its operator, and at its end."""
        if self.layers is None:
            return {}
        start, end = (rows[layer] for layer in self.layers)
        states = {"start": start}
        if self.surrogate is not None:
            states["operator"] = self._latent(start)
        states["decoded"] = end
        return {name: state.float().cpu() for name, state in states.items()}

    @torch.no_grad()
    def _latent(self, start: Tensor) -> Tensor:
        """Latent states behind the operator, ``(rows, positions × latent)``."""
        surrogate = self.surrogate
        assert surrogate is not None
        first = surrogate.layers[0]
        features = surrogate.frames()[0].features
        if start.shape[1] != features:
            raise ValueError(
                f"the {self.name} network's state has {start.shape[1]} features a sample, its "
                f"surrogate {features} a position; leave it out of surrogates=, which takes spans "
                "of one position."
            )
        state = start[:, None].to(next(surrogate.parameters()).dtype)
        latent: Tensor = surrogate.operator(surrogate.encode(state, first), 1.0)
        return latent[:, 0]


def _places(name: str, model: nn.Module, start: str, end: str) -> tuple[str, str]:
    """The modules whose outputs are the two layers'; what was swapped in stands for the end."""
    modules = dict(model.named_modules())
    swapped = [place for place, module in modules.items() if isinstance(module, Replacement)]
    if end not in modules and len(swapped) == 1:
        end = swapped[0]
    missing = [layer for layer in (start, end) if layer not in modules]
    if missing:
        raise ValueError(
            f"the {name} network has no layer {missing[0]!r} and no surrogate in its place; "
            "layers= must name modules that all networks have, or be left out."
        )
    return start, end


def answers_of(interview: Interview, train: Batches, test: Batches) -> Answers:
    """What a network says of both data sets."""
    return Answers(interview.ask(train, "train"), interview.ask(test, "test"))
