"""What one surrogate shows of itself beside its spectrum: modes, eigenfunctions, their dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torchkoopman.koopman.arithmetic import own_precision
from torchkoopman.koopman.decomposition import Decomposition, decompose
from torchkoopman.koopman.encoded import Encoded
from torchkoopman.koopman.modes import (
    Modes,
    mean_amplitudes,
    mode_indices,
    modes_at,
    require_pairs,
)
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.readouts import (
    Readout,
    exact_readout,
    jacobian_readout,
    regressed_readout,
)
from torchkoopman.spectra.normality import NonNormality, non_normality
from torchkoopman.spectra.spectrum import spectrum_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Looks(Encoded):
    """The part of a surrogate that is looked at; modes have the order of ``spectrum()`` throughout.

    So ``spectrum.trusted()`` chooses modes here.
    """

    @own_precision
    def modes(self, layer: str | None = None, states: Tensor | None = None) -> Modes:
        """Koopman modes in a layer's own space, by default the last layer's.

        For DMD and EDMD they are exact: the sum over modes is what the surrogate decodes. A learnt
        decoder has no exact modes: without ``states`` they are those of its Jacobian at the mean
        latent state of the fit, carried to the layer, or at the layer's mean state where the
        surrogate has no statistics. ``Modes.exact`` and ``Modes.note`` say which.

        Args:
            layer: one of the surrogate's.
            states: states of that layer, ``(batch, positions, features)``, all of them rows that
                count, on which the modes of a learnt decoder are found by least squares.

        Raises:
            ValueError: an unknown layer, an operator without a basis of eigenvectors, states for a
                dictionary (whose modes are exact), states of another width or too few.
        """
        layer = self.layers[-1] if layer is None else layer
        readout = self._readout(layer, states)
        total = None if self.statistics is None else self.statistics.total()
        return modes_at(layer, self.time(layer), self._parts(), readout, total)

    @own_precision
    def eigenfunctions(
        self, state: Tensor, layer: str | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """φ_k(x) of a layer's states, by default the first layer's.

        ``φ_k(x) = w_kᴴ ψ(C(x))``, scaled so that ``Σ_k φ_k(x) v_k`` with the layer's
        :meth:`modes` is the state again. The law of an eigenfunction is φ(x_end) = λ φ(x_start);
        the spectrum's residuals measure it.

        Args:
            state: ``(batch, positions, features)``.
            layer: whose states they are.
            mask: positions that count, bool, ``(batch, positions)``; ignore the values at others.

        Returns:
            ``(batch, positions, modes)``, complex128 as the modes, on the states' device.

        Raises:
            ValueError: an unknown layer, another shape or width, or an operator without a basis of
                eigenvectors.
            TypeError: states or a mask of another kind.
        """
        return self._eigenfunctions(state, layer, mask, self._parts())

    @own_precision
    def amplitudes(self, state: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """How strongly each mode takes part (PyDMD's ``b``).

        With a state of the first layer, its eigenfunction values, complex, ``(batch, positions,
        modes)``; without, their RMS over the rows of the fit, real, ``(modes,)``.

        Raises:
            ValueError: no state given and no statistics of the fit; and as
                :meth:`eigenfunctions` does.
        """
        if state is not None:
            return self.eigenfunctions(state, mask=mask)
        if self.statistics is None:
            raise ValueError(
                "this surrogate has no statistics of its fit, so there is no mean amplitude; give "
                "amplitudes() a state of the first layer."
            )
        return mean_amplitudes(self._parts(), self.statistics.total())

    @own_precision
    def dynamics(
        self, state: Tensor, times: Sequence[float] | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """``λ_k^t φ_k(x)`` of a state of the first layer (PyDMD's ``dynamics``).

        ``(dynamics @ modes.vectors.mT).real`` is the path of :meth:`Surrogate.trajectory` where the
        layers have one frame and the modes are exact.

        Args:
            state: ``(batch, positions, features)``.
            times: depth-times; the layers' own by default.
            mask: positions that count, ``(batch, positions)``.

        Returns:
            ``(times, batch, positions, modes)``, complex128.

        Raises:
            ValueError: a time between the operator's steps with a negative eigenvalue; and as
                :meth:`eigenfunctions` does.
        """
        parts = self._parts()
        values = self._eigenfunctions(state, None, mask, parts)
        powers = parts.powers(self.span.times if times is None else times).to(state.device)
        return powers[:, None, None] * values

    @own_precision
    def reconstruct(
        self,
        state: Tensor,
        layer: str | None = None,
        modes: Tensor | Sequence[int] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The state of a layer predicted from one of the first layer by chosen modes alone.

        With all modes this is :meth:`Surrogate.predict`. For DMD and EDMD the parts of the modes
        add up, and the layer's mean belongs to the mode of the constant function (λ = 1); a learnt
        decoder is not linear, so its parts do not. Modes that are not orthogonal cancel each other:
        some of them may be further from the state than none.

        Args:
            state: ``(batch, positions, features)``.
            layer: where to, by default the last layer.
            modes: bool, shape ``(modes,)``, such as ``spectrum.trusted()``, or indices; all by
                default. Complex conjugates go together.
            mask: positions that count, ``(batch, positions)``.

        Returns:
            ``(batch, positions, features)``, of the state's dtype.

        Raises:
            ValueError: modes out of range or without their conjugate, a layer between the
                operator's steps with a negative eigenvalue; and as :meth:`eigenfunctions` does.
            TypeError: modes that are neither bool nor indices.
        """
        layer = self.layers[-1] if layer is None else layer
        frame, parts = self._frame(layer), self._parts()
        if modes is not None:
            index = mode_indices(modes, len(parts.values))
            require_pairs(parts, index)
            parts = parts.keep(index)
        values = self._eigenfunctions(state, None, mask, parts)
        grown = values * parts.powers([self.time(layer)])[0].to(state.device)
        latent = (grown @ parts.vectors.to(state.device).mT).real
        if isinstance(self.observables, Dictionary):
            readout = exact_readout(self.observables, frame, self._keeps_constant())
            matrix, offset = readout.matrix.to(state.device), readout.offset.to(state.device)
            return (latent @ matrix.mT + offset).to(state.dtype)
        decoded = self.observables.decode(latent.to(frame.weight.dtype))
        return frame.inverse(decoded).to(state.dtype)

    def non_normality(
        self, *, horizon: int = 20, points: int = 31, rank: int = 100
    ) -> NonNormality:
        """How far powers of K over the span grow beyond its eigenvalues.

        The same as :func:`torchkoopman.spectra.non_normality` of the surrogate, where arguments are
        described.
        """
        total: NonNormality = non_normality(self, horizon=horizon, points=points, rank=rank)
        return total

    def _parts(self) -> Decomposition:
        """Kept as the spectrum is."""
        operator = self.operator

        def sources() -> list[Any]:
            return [operator.config(), *operator.state_dict().values()]

        return self._modes.of(
            sources, lambda: decompose(operator, spectrum_of(operator.matrix(1.0)))
        )

    def _eigenfunctions(
        self, state: Tensor, layer: str | None, mask: Tensor | None, parts: Decomposition
    ) -> Tensor:
        """φ_k(x) as complex128."""
        layer = self.layers[0] if layer is None else layer
        latent = self._latents(state, layer, mask)
        values: Tensor = latent.to(parts.covectors.dtype) @ parts.covectors.conj().to(state.device)
        return values

    def _readout(self, layer: str, states: Tensor | None) -> Readout:
        """The layer's state as a linear function of the latent one."""
        frame, observables, constant = self._frame(layer), self.observables, self._keeps_constant()
        if isinstance(observables, Dictionary):
            if states is not None:
                raise ValueError(
                    f"modes of {self.layers} are exact, for their decoder is linear; leave states "
                    "out. Only a learnt decoder's modes are found on data."
                )
            return exact_readout(observables, frame, constant)
        if states is None:
            return jacobian_readout(observables, frame, self._mean_latent(layer), constant)
        latents = self._latents(states, layer, None)
        return regressed_readout(latents.flatten(0, 1), states.flatten(0, 1), constant)
