"""What a surrogate is made of, as one value: made whole, and a change is a copy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from torchkoopman.koopman.coordinates import Coordinates
from torchkoopman.koopman.edits import Edit
from torchkoopman.koopman.files import read_surrogate, surrogates_path, write_surrogate
from torchkoopman.koopman.operator import Operator
from torchkoopman.koopman.remembered import Remembered
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.structure import parts_of
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.spectra.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torchkoopman.koopman.decomposition import Decomposition
    from torchkoopman.koopman.learnt import LearntObservables
    from torchkoopman.koopman.observables import Dictionary
    from torchkoopman.spectra.spectrum import Spectrum

_PARTS = (
    "span",
    "coordinates",
    "observables",
    "operator",
    "record",
    "statistics",
    "evidence",
    "edits",
    "previous",
)
"""The constructor's arguments, each an attribute of the same name."""


class Value(nn.Module):
    """The parts of a surrogate. They are set once; :meth:`with_` makes a copy with others.

    Parameters still move with ``.to()`` and take gradients, as in every module.

    Raises:
        TypeError: a part of another kind.
        ValueError: parts that do not fit each other.
    """

    def __init__(
        self,
        span: Span,
        coordinates: Sequence[Coordinates],
        observables: Dictionary | LearntObservables,
        operator: Operator,
        record: FitRecord,
        statistics: LabelledMoments | None = None,
        evidence: Evidence | None = None,
        edits: Sequence[Edit] = (),
        previous: Value | None = None,
    ) -> None:
        super().__init__()
        for name, several in (("coordinates", coordinates), ("edits", edits)):
            if not isinstance(several, Sequence | nn.ModuleList):
                raise TypeError(f"a surrogate's {name} are a sequence; it got {several!r:.80}.")
        for name, part, kind in (
            ("span", span, Span),
            ("observables", observables, nn.Module),
            ("operator", operator, Operator),
            ("record", record, FitRecord),
            ("statistics", statistics, LabelledMoments | None),
            ("evidence", evidence, Evidence | None),
            ("previous", previous, Value | None),
            *((f"coordinates[{n}]", frame, Coordinates) for n, frame in enumerate(coordinates)),
            *((f"edits[{n}]", edit, Edit) for n, edit in enumerate(edits)),
        ):
            if not isinstance(part, kind):
                raise TypeError(
                    f"a surrogate's {name} is a {getattr(kind, '__name__', kind)}; it got "
                    f"{part!r:.80}."
                )
        if not (hasattr(observables, "features") and hasattr(observables, "latent")):
            raise TypeError(
                "a surrogate's observables are a Dictionary or LearntObservables, with features "
                f"and latent; it got {observables!r:.80}."
            )
        sizes = [frame.size for frame in coordinates]
        if len(sizes) != len(span.layers) or {observables.features, *sizes} != set(sizes[:1]):
            raise ValueError(
                f"a surrogate of the layers {span.layers} has coordinates of sizes {sizes}, and "
                f"observables of {observables.features} coordinates: one size for each layer, all "
                "equal."
            )
        if observables.latent != operator.latent:
            raise ValueError(
                f"the observables have latent={observables.latent}, the operator "
                f"latent={operator.latent}; a surrogate's are equal."
            )
        if evidence is not None and evidence.start.shape[1:] != (operator.latent,):
            raise ValueError(
                f"the evidence has rows of shape {tuple(evidence.start.shape)}, and the operator "
                f"latent={operator.latent}: rows are latent states, (rows, latent), of this "
                "surrogate."
            )
        self.span = span
        """The layers, their depth-times, and how they were read."""
        self.coordinates = nn.ModuleList(coordinates)
        self.observables = observables
        self.operator = operator
        """K: ``operator.matrix(t)``, ``(latent, latent)``, leads over the depth-time t."""
        self.record = record
        """A :class:`FitRecord`: method, rows, errors, baselines and notes of the fit."""
        self.statistics = statistics
        """Moments of the latent states ``"start"`` and ``"end"`` of the span, per class where
        labels were given, from which the spectrum and ``unlearn`` are computed."""
        self.evidence = evidence
        """A sample of the latent states' rows, by which the spectrum's modes are tested."""
        self.edits = tuple(edits)
        """The edits of the operator since the fit, each an :class:`Edit`, last edit last."""
        self._previous = (previous,)  # in a tuple, or it would be a submodule of this one
        self._spectrum: Remembered[Spectrum] = Remembered()
        self._modes: Remembered[Decomposition] = Remembered()

    @property
    def previous(self) -> Value | None:
        """The surrogate before the last edit, for ``torchkoopman.undo``; it is in no file."""
        return self._previous[0]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _PARTS and (name in vars(self) or name in self._modules):
            raise AttributeError(
                f"a surrogate is a value, so its {name!r} cannot be set: make a copy with "
                f"surrogate.with_({name}=…)."
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in _PARTS:
            raise AttributeError(
                f"a surrogate is a value, so its {name!r} cannot be deleted: make a copy with "
                f"surrogate.with_({name}=…), which may be None for statistics, evidence and "
                "previous."
            )
        super().__delattr__(name)

    def with_(self, **changes: Any) -> Self:
        """A copy with other parts, such as ``surrogate.with_(evidence=None)``.

        Everything is copied, what is given too: the two share no tensor.

        Args:
            changes: arguments of the constructor by name.

        Raises:
            TypeError: there is no such part.
        """
        unknown = sorted(changes.keys() - set(_PARTS))
        if unknown:
            raise TypeError(f"a surrogate has no part {unknown[0]!r}; it has {', '.join(_PARTS)}.")
        parts = {name: getattr(self, name) for name in _PARTS} | changes
        return type(self)(**copy.deepcopy(parts)).train(self.training)

    def renamed(self, names: Mapping[str, str]) -> Self:
        """A copy for a model in which the layers have other names: ``{"module.1": "1"}``.

        The surrogate before the last edit keeps its names: ``torchkoopman.undo`` before renaming.

        Args:
            names: layer of the surrogate → its new name; the others keep theirs.

        Raises:
            ValueError: a layer that the surrogate does not have, or two with one name then.
        """
        layers = self.span.watched
        unknown = [name for name in names if name not in layers]
        if unknown:
            raise ValueError(
                f"renamed() was given the layers {unknown}, and the surrogate's are {layers}."
            )
        after = [names.get(name, name) for name in layers]
        if clashing := sorted({name for name in after if after.count(name) > 1}, key=str):
            raise ValueError(
                f"renamed({dict(names)}) would give several layers of {layers} the name "
                f"{clashing[0]!r}; each needs one of its own."
            )
        return self.with_(span=self.span.renamed(names), record=self.record.renamed(names))

    def frames(self) -> list[Coordinates]:
        """Coordinates of each layer."""
        return [frame for frame in self.coordinates if isinstance(frame, Coordinates)]

    def config(self) -> dict[str, Any]:
        """The structure without tensors, as JSON-able types, enough for :meth:`from_config`."""
        return {
            "span": self.span.config(),
            "sizes": [(frame.size, frame.features) for frame in self.frames()],
            "observables": self.observables.config(),
            "operator": self.operator.config(),
            "record": asdict(self.record),
            "edits": [edit.card() for edit in self.edits],
            "evidence": None if self.evidence is None else self.evidence.config(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A surrogate of the structure of ``config``; its tensors are still to be loaded."""
        return cls(**parts_of(config))

    def save(self, path: str | Path) -> Path:
        """Write the surrogate with its statistics and sampled rows, without the undo of its edits.

        The file holds tensors and JSON, a format number and a checksum of all its bytes. It is
        written beside its place and renamed, so that it is there whole or not at all.

        Args:
            path: ends in ``.safetensors``; folders that do not exist are made.

        Returns:
            The path.

        Raises:
            ValueError: another suffix.
        """
        path = surrogates_path(path)
        write_surrogate(path, self.config(), self.state_dict(), self.statistics, self.evidence)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The surrogate that :meth:`save` wrote, on the CPU, in the precision it had.

        Nothing in the file is run. It is read whole, so nothing done to it afterwards changes the
        surrogate, and takes no more memory than a small multiple of its size.

        Raises:
            FileError: a ``ValueError``: the file is not there (also a ``FileNotFoundError``), is
                damaged, holds no surrogate, or is of a format that this version does not know.
        """
        return cls(**read_surrogate(surrogates_path(path))).requires_grad_(False)
