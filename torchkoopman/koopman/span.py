"""Where a surrogate stands in a model, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from torchkoopman.observe.places import spelled
from torchkoopman.observe.views import View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.observe.trajectory import InputSpec, Trajectory


@dataclass(frozen=True)
class Span:
    """Where a surrogate stands in a model."""

    layers: tuple[str, ...]
    """Names of the chosen layers, first in depth first."""
    times: tuple[float, ...]
    """Depth-time of each layer, ascending from 0 to 1."""
    views: dict[str, View] = field(default_factory=dict)
    """Layer → how its output becomes a state, those in ``before`` included; empty where states were
    given as they are."""
    inputs: tuple[InputSpec, ...] = ()
    """The model's positional tensor arguments, where the probe saw them."""
    before: tuple[str, ...] = ()
    """Layers ahead of the first, whose states are only part of stacks (delay coordinates)."""

    def __post_init__(self) -> None:
        names = self.watched
        if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
            raise ValueError(f"a span's layers have names, each one of its own; it got {names}.")
        rising = all(earlier < later for earlier, later in pairwise(self.times))
        if len(self.times) != len(self.layers) or not rising:
            raise ValueError(
                f"a span's depth-times ascend, one for each layer; it got {self.times} for "
                f"{self.layers}."
            )

    @classmethod
    def of(cls, trajectory: Trajectory, delays: int = 0) -> Span:
        """The span that a trajectory follows, its states stacked on ``delays`` earlier ones.

        Raises:
            ValueError: as :meth:`Trajectory.delayed`, or fewer than two layers.
        """
        return cls.even(
            trajectory.delayed(delays).layers,
            views=dict(trajectory.views),
            inputs=trajectory.inputs,
            before=trajectory.layers[:delays],
        )

    @property
    def watched(self) -> tuple[str, ...]:
        """All layers that are read, those ahead of the first included, in order of execution."""
        return (*self.before, *self.layers)

    def stacked(self, trajectory: Trajectory) -> Trajectory:
        """A trajectory of ``watched`` in the states of ``layers``: stacked where there are any."""
        return trajectory.delayed(len(self.before))

    def between(self, start: str, end: str) -> Span:
        """The span from one of the layers to a later one, without those between."""
        kept = (*self.before, start, end)
        views = {layer: view for layer, view in self.views.items() if layer in kept}
        return replace(self, layers=(start, end), times=(0.0, 1.0), views=views)

    def readings(self) -> dict[str, tuple[str, str, str | None]]:
        """Layer → the tensor of its output, the layout, and the function, if one made it."""
        return {
            layer: (spelled(view.place), view.layout.pattern, view.function)
            for layer, view in self.views.items()
        }

    def renamed(self, names: Mapping[str, str]) -> Span:
        """The span with other names for some layers."""
        return replace(
            self,
            layers=tuple(names.get(name, name) for name in self.layers),
            views={names.get(name, name): view for name, view in self.views.items()},
            before=tuple(names.get(name, name) for name in self.before),
        )

    def config(self) -> dict[str, Any]:
        """JSON-able form, enough for :meth:`from_config`."""
        views = {layer: view.config() for layer, view in self.views.items()}
        return {**{each.name: getattr(self, each.name) for each in fields(self)}, "views": views}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Span:
        """The span that :meth:`config` and JSON made ``config`` of.

        Raises:
            ValueError: a description from before layers had views.
        """
        if "views" not in config:
            raise ValueError(
                "the surrogate was written by an earlier version of torchkoopman: its span has "
                f"{sorted(config)} but no 'views', so nothing says which tensor of a layer's "
                "output was its state. Fit it again with this version, or read it with the version "
                "that wrote it."
            )
        return cls(
            tuple(config["layers"]),
            tuple(config["times"]),
            {layer: View.from_config(view) for layer, view in config["views"].items()},
            tuple((tuple(shape), dtype) for shape, dtype in config["inputs"]),
            tuple(config["before"]),
        )

    @classmethod
    def even(cls, layers: Sequence[str], **rest: Any) -> Span:
        """Layers at even depth-times ``t_l = l / L``."""
        if len(layers) < 2:
            raise ValueError(
                f"a span leads from one layer's output to a later one's; it got {list(layers)}. "
                "Choose two layers or more."
            )
        last = len(layers) - 1
        return cls(tuple(layers), tuple(depth / last for depth in range(last + 1)), **rest)


@dataclass(frozen=True)
class FitRecord:
    """How a surrogate was fitted, and how well it predicts."""

    method: str
    """``"dmd"``, ``"edmd"`` or ``"autoencoder"``."""
    rows: int
    """Rows the fit has seen."""
    r2: dict[str, float] = field(default_factory=dict)
    """Layer → R², the share of its variance that its prediction from the first explains, on the
    latest batch of the fit; for rows it has not seen see :func:`torchkoopman.evaluate`."""
    outside: dict[str, float] = field(default_factory=dict)
    """Layer → share of its variance outside the directions that were kept (``rank=``), which no
    prediction of it can explain; only where they are fewer than its features. On the latest batch
    of the fit; ``torchkoopman.fit`` puts that of held-out rows in its place."""
    losses: dict[str, float] = field(default_factory=dict)
    """Loss term → latest value; empty for closed forms."""
    held_out: dict[str, float] = field(default_factory=dict)
    """Layer → R² on rows the fit has not seen; filled by ``torchkoopman.fit``."""
    baselines: dict[str, float] = field(default_factory=dict)
    """Trivial baseline → R² of the last layer on the same rows."""
    frames: str = ""
    """``"shared"``: λ is that of the map between the layers; ``"aligned"``: each layer has a frame
    of its own, and λ depends on them."""
    dynamics: str = ""
    """``"step"``: K is a power of one matrix for every step; ``"span"``: it leads from the first
    layer to the last alone; ``"skip"``: no matrix did better than the identity."""
    notes: tuple[str, ...] = ()
    """What the fit chose by itself and why, and what it left out, one sentence each."""

    def renamed(self, names: Mapping[str, str]) -> FitRecord:
        """The record with other names for some layers."""
        errors = {
            kind: {names.get(name, name): value for name, value in known.items()}
            for kind, known in (
                ("r2", self.r2),
                ("outside", self.outside),
                ("held_out", self.held_out),
            )
        }
        r2, outside, held_out = errors["r2"], errors["outside"], errors["held_out"]
        return replace(self, r2=r2, outside=outside, held_out=held_out)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FitRecord:
        """The record that ``dataclasses.asdict`` and JSON made ``config`` of.

        Version 0.1 wrote ``1 - R²`` in the place of each R², with ``"fvu"`` for ``"r2"``.
        """
        known = {**config, "notes": tuple(config.get("notes", ()))}
        if "fvu" in known:
            known["r2"] = known.pop("fvu")
            for kind in ("r2", "held_out", "baselines"):
                known[kind] = {name: 1 - left for name, left in known.get(kind, {}).items()}
        return cls(**known)
