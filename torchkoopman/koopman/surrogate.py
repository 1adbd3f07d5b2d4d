"""The surrogate: coordinates → observables → operator, as one ``nn.Module``.

    x_j ≈ C_j⁻¹ ∘ decode ∘ K(t_j - t_i) ∘ encode ∘ C_i (x_i)

for any two chosen layers i before j at depth-times t (as in arXiv 2505.12809).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.koopman.folding import Replacement, fold
from torchkoopman.koopman.looks import Looks
from torchkoopman.koopman.structure import card_of_config
from torchkoopman.spectra.pseudospectrum import Pseudospectrum, pseudospectrum_of
from torchkoopman.spectra.spectrum import Spectrum, spectrum_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.observe.trajectory import InputSpec
    from torchkoopman.observe.views import View
    from torchkoopman.spectra.pseudospectrum import Kind


class Surrogate(Looks):
    """A linear system that stands for the layers of a span.

    Calling it leads a state of the first layer, ``(batch, positions, features)``, to the last.
    It is a value: its parts cannot be set, and :meth:`with_` makes a copy with others.
    """

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """The model's positional tensor arguments, where the probe saw them."""
        return self.span.inputs

    @property
    def views(self) -> Mapping[str, View]:
        """Layer → how its output becomes a state; empty where states were given as they are.

        ``attach(model, surrogate.layers, output=surrogate.views)`` reads the layers so again.
        """
        return self.span.views

    @property
    def latent(self) -> int:
        """Size of the operator."""
        return self.operator.latent

    def encode(self, state: Tensor, layer: str, mask: Tensor | None = None) -> Tensor:
        """State of a layer, ``(batch, positions, features)``, to ``(batch, positions, latent)``."""
        return self.observables.encode(self._frame(layer)(state), mask)

    def decode(self, latent: Tensor, layer: str) -> Tensor:
        """Latent state to the state of a layer."""
        return self._frame(layer).inverse(self.observables.decode(latent))

    def predict(
        self,
        state: Tensor,
        start: str | None = None,
        end: str | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The state of layer ``end`` that follows from that of layer ``start``."""
        start, end = self._ends(start, end)
        time = self.time(end) - self.time(start)
        return self.decode(self.operator(self.encode(state, start, mask), time), end)

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """First layer's state to the last's."""
        return self.predict(state, mask=mask)

    def trajectory(
        self, state: Tensor, times: Sequence[float] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The path through depth that starts at a state of the first layer.

        Args:
            state: ``(batch, positions, features)``.
            times: depth-times; the layers' own by default. Between two layers the decoded state
                goes over from the earlier layer's coordinates to the later's linearly.
            mask: rows that count, ``(batch, positions)``.

        Returns:
            ``(times, batch, positions, features)``.

        Raises:
            ValueError: layers of different widths, or a time at which K(t) does not exist.
        """
        if len({frame.features for frame in self.frames()}) > 1:
            raise ValueError(
                f"layers have widths {[frame.features for frame in self.frames()]}, so the states "
                "of a path do not fit in one tensor; ask predict() layer by layer."
            )
        latent = self.encode(state, self.layers[0], mask)
        times = self.span.times if times is None else times
        return torch.stack([self._decode_at(latent, float(time)) for time in times])

    def spectrum(self) -> Spectrum:
        """Eigenvalues of K over the whole span, with modes, rates, residuals and energies."""
        total = None if self.statistics is None else self.statistics.total()
        return spectrum_of(
            self.operator.matrix(1.0),
            total,
            self.evidence,
            steps=len(self.layers) - 1,
            frames=self.record.frames,
        )

    def pseudospectrum(
        self,
        kind: Kind = "residual",
        *,
        real: Tensor | None = None,
        imag: Tensor | None = None,
        points: int = 61,
        rank: int = 100,
    ) -> Pseudospectrum:
        """Where over the complex plane K over the span almost has an eigenvalue.

        ``"residual"`` asks the data of the fit, ``"matrix"`` the operator alone; for the arguments
        see :func:`pseudospectrum_of`. The default grid covers the unit disk and the trusted
        eigenvalues, or all where there are no data to trust any by. Seconds at
        the default 61 × 61 points and 100 directions.
        """
        total = None if self.statistics is None else self.statistics.total()
        K, spectrum = self.operator.matrix(1.0), self.spectrum()
        known = spectrum.residuals is not None
        cover = spectrum.eigenvalues[spectrum.trusted()] if known else None
        return pseudospectrum_of(
            K, total, kind=kind, real=real, imag=imag, points=points, rank=rank, cover=cover
        )

    @torch.no_grad()
    def replacement(self, start: str | None = None, end: str | None = None) -> Replacement:
        """The module that stands between two layers' outputs: encoder, one matrix, decoder.

        Coordinates are folded into the encoder and the decoder; layouts are applied inside.
        """
        start, end = self._ends(start, end)
        if self.span.before:
            raise ValueError(
                f"the states of {start!r} are stacked on those of {self.span.before}, which no "
                "module between two layers can see; fit without delays to replace layers."
            )
        core = fold(
            self._frame(start),
            self.observables,
            self.operator.matrix(self.time(end) - self.time(start)),
            self._frame(end),
        )
        views = (self.views.get(layer) for layer in (start, end))
        return Replacement(core, *(None if view is None else view.layout for view in views))

    def card(self) -> dict[str, Any]:
        """JSON-able description for the file an edited model is exported to."""
        return card_of_config(self.config())

    def __repr__(self) -> str:
        record = self.record
        where = f"{self.layers[0]} → {self.layers[-1]}, {len(self.layers)} layers"
        kind = f"{record.method}, {type(self.operator).__name__} {self.latent}×{self.latent}"
        if record.frames:
            kind += f", {record.frames} frames, dynamics by {record.dynamics}"
        fvu = record.fvu.get(self.layers[-1])
        quality = "" if fvu is None else f", {record.rows} rows, FVU of the latest {fvu:.4f}"
        notes = "".join(f"; {note}" for note in record.notes)
        return f"Surrogate({where}; {kind}{quality}{', edited' if self.edits else ''}{notes})"

    def _decode_at(self, latent: Tensor, time: float) -> Tensor:
        """The state at any depth-time, between two layers mixed from both their coordinates."""
        coordinates = self.observables.decode(self.operator(latent, time))
        times, frames = self.span.times, self.frames()
        later = next((k for k, t in enumerate(times) if t >= time), len(times) - 1)
        earlier = max(later - 1, 0) if times[later] > time else later
        gap = times[later] - times[earlier]
        weight = 0.0 if gap == 0 else (time - times[earlier]) / gap
        return torch.lerp(
            frames[earlier].inverse(coordinates), frames[later].inverse(coordinates), weight
        )

    def _ends(self, start: str | None, end: str | None) -> tuple[str, str]:
        start = self.layers[0] if start is None else start
        end = self.layers[-1] if end is None else end
        if self._index(start) >= self._index(end):
            raise ValueError(f"start={start!r} must come before end={end!r} in {self.layers}.")
        return start, end
