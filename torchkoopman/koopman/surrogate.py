"""The surrogate: coordinates → observables → operator, as one ``nn.Module``.

    x_j ≈ C_j⁻¹ ∘ decode ∘ K(t_j - t_i) ∘ encode ∘ C_i (x_i)

for any two chosen layers i before j at depth-times t (as in arXiv 2505.12809).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.koopman.arithmetic import without_autocast
from torchkoopman.koopman.folding import Replacement, fold
from torchkoopman.koopman.looks import Looks
from torchkoopman.koopman.structure import card_of_config
from torchkoopman.spectra.pseudospectrum import Pseudospectrum, pseudospectrum_of
from torchkoopman.spectra.spectrum import Spectrum, spectrum_of
from torchkoopman.tables import qualities

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchkoopman.observe.trajectory import InputSpec
    from torchkoopman.observe.views import View
    from torchkoopman.spectra.pseudospectrum import Kind


class Surrogate(Looks):
    """A linear system that stands for the layers of a span; every fitter gives one.

    Calling it predicts the last layer's state from the first layer's, both of shape
    ``(batch, positions, features)``. It computes in its own precision, under autocast too. Its
    parts cannot be set; :meth:`with_` makes a copy with others.

    Example:
        >>> state = model[:2](test.inputs[:8])[:, None]  # of layer "1"
        >>> surrogate(state).shape
        torch.Size([8, 1, 32])
        >>> surrogate.layers, surrogate.latent, surrogate.record.method
        (('1', '3', '5', '7', '9'), 533, 'edmd')
    """

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Shape and dtype of the model's positional tensor arguments, where a probe saw them."""
        return self.span.inputs

    @property
    def views(self) -> Mapping[str, View]:
        """Layer → how its output becomes a state; empty where states were given as they are.

        ``attach(model, surrogate.layers, output=surrogate.views)`` reads the layers in this way.
        """
        return self.span.views

    @property
    def latent(self) -> int:
        """Size of the operator."""
        return self.operator.latent

    @without_autocast
    def encode(self, state: Tensor, layer: str, mask: Tensor | None = None) -> Tensor:
        """The latent state of a layer's state.

        Args:
            state: ``(batch, positions, features)``, of any floating-point dtype.
            layer: whose state it is.
            mask: rows that count, ``(batch, positions)``.

        Returns:
            ``(batch, positions, latent)``, in the surrogate's precision.

        Raises:
            ValueError: an unknown layer.
        """
        frame = self._frame(layer)
        own = state.to(frame.weight.dtype) if state.is_floating_point() else state
        return self.observables.encode(frame(own), mask)

    @without_autocast
    def decode(self, latent: Tensor, layer: str) -> Tensor:
        """The state of a layer, ``(batch, positions, features)``, from a latent one."""
        return self._frame(layer).inverse(self.observables.decode(latent))

    @without_autocast
    def predict(
        self,
        state: Tensor,
        start: str | None = None,
        end: str | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The state of layer ``end`` from that of layer ``start``, by default of last from first.

        Raises:
            ValueError: an unknown layer, ``start`` not before ``end``, or layers between the steps
                of an operator that has no real power there.
        """
        start, end = self._ends(start, end)
        time = self.time(end) - self.time(start)
        return self.decode(self.operator(self.encode(state, start, mask), time), end)

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """The last layer's state from the first layer's, as :meth:`predict` without layers."""
        return self.predict(state, mask=mask)

    @without_autocast
    def trajectory(
        self, state: Tensor, times: Sequence[float] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The path through depth that starts at a state of the first layer.

        Args:
            state: ``(batch, positions, features)``.
            times: depth-times, from 0 at the first layer to 1 at the last; the layers' own by
                default. Between two layers the state is decoded in the coordinates of both, and
                interpolated.
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
        """Eigenvalues of K over the whole span, with modes, rates, residuals and energies.

        Computed anew at each call, in seconds for a thousand latent coordinates: keep the result.
        """
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
        """Where in the complex plane K over the span almost has an eigenvalue.

        Takes seconds at 61 × 61 points and 100 directions.

        Args:
            kind: ``"residual"``, by the data of the fit, or ``"matrix"``, of the operator alone.
            real: real parts of the grid, ascending; by default ``points`` that cover the unit disk
                and the trusted eigenvalues (without data: all eigenvalues).
            imag: imaginary parts likewise.
            points: per axis of the default grid.
            rank: directions at most, of largest latent states or of largest ``|λ|``; fewer raise
                the values. The time grows with its cube.

        Raises:
            ValueError: no statistics of the fit for ``"residual"``, an unknown kind, or a grid that
                does not ascend.
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
        """A module from the output of one layer to that of a later one, as :func:`swap` puts it in.

        It is encoder, one matrix and decoder. Coordinates are folded into encoder and decoder, and
        layouts are applied inside.

        Raises:
            ValueError: as :meth:`predict`, or a surrogate fitted with delays.
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
            self.operator,
            self.time(end) - self.time(start),
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
        quality, r2 = "", record.r2.get(self.layers[-1])
        if r2 is not None:
            quality = f", {record.rows} rows, R² of the latest {qualities(r2)[0]}"
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
