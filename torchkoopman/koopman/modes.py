"""Koopman modes in a layer's own space: what each eigenvalue does to the features.

A state x of layer l is ``Σ_k φ_k(x) v_k(l)``, with eigenfunctions ``φ_k(x) = w_kᴴ ψ(C_l(x))`` and
modes ``v_k(l)`` the eigenvectors decoded at the layer; at a later layer it is ``Σ_k λ_k^t φ_k(x)
v_k(l')`` (Rowley et al. 2009; Williams, Kevrekidis & Rowley 2015, equation 9). PyDMD calls
``v_k`` modes, ``φ_k`` of the first snapshot amplitudes, ``λ_k^t φ_k`` dynamics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.koopman.plotting import draw_modes
from torchkoopman.tables import Table, Tabular, complex_number, more

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from torchkoopman.koopman.decomposition import Decomposition
    from torchkoopman.koopman.readouts import Readout
    from torchkoopman.observe.moments import Moments

_ILL = 1e6
"""At this condition number or above, a printed result says that its modes cancel each other."""


@dataclass(frozen=True)
class Modes(Tabular):
    """Koopman modes in the features of one layer, in the order of ``surrogate.spectrum()``.

    Scale and phase of a mode are a convention: its latent vector has length one and its largest
    entry is real, as in ``Spectrum.modes``. The eigenfunction has the inverse scale, so that
    products ``φ_k v_k`` and :attr:`sizes` do not depend on it.

    Example:
        >>> linear = tk.fit(model, train.loader(500), ["1", "9"], method="dmd", progress=False)
        >>> modes = linear.modes()  # of layer "9"; print(modes) shows the largest
        >>> modes.vectors.shape, modes.exact  # 32 features, 33 modes
        (torch.Size([32, 33]), True)
    """

    layer: str
    """The layer whose features the modes are in."""
    time: float
    """Depth-time of the layer."""
    eigenvalues: Tensor
    """λ of K over the whole span; complex128, shape ``(modes,)``."""
    vectors: Tensor
    """The modes, one a column; complex128, shape ``(features, modes)``. With delays the features
    are those of the stacked state."""
    offset: Tensor
    """What is added to the sum over the modes; float64, shape ``(features,)``. Zero where the mode
    of the constant function holds the layer's mean, which ``note`` says."""
    exact: bool
    """Whether the sum over all modes is what the surrogate decodes."""
    note: str
    """How the modes were found, and which of them holds the layer's mean."""
    conjugates: Tensor
    """Index of each mode's complex conjugate, its own for a real mode; -1 if it was left out."""
    condition: float
    """σ_max / σ_min of the latent eigenvectors: 1 if orthogonal. Where it is large, modes are large
    and cancel, and rounding or noise of relative size ε moves them by up to this times ε."""
    amplitudes: Tensor | None
    """RMS of each eigenfunction over the first layer's states of the fit; float64, shape
    ``(modes,)``. None without data."""

    @property
    def sizes(self) -> Tensor | None:
        """RMS norm of each mode's part of the layer's state, in the features' units.

        ``|λ_k|^time · amplitude_k · ‖v_k‖``, shape ``(modes,)``; None without data. Parts of
        non-orthogonal modes overlap: sizes do not add up.
        """
        if self.amplitudes is None:
            return None
        norms: Tensor = self.vectors.norm(dim=0)
        return self.eigenvalues.abs().pow(self.time) * self.amplitudes * norms

    def keep(self, chosen: Tensor) -> Modes:
        """The chosen modes alone; ``chosen`` is bool, shape ``(modes,)``, or holds indices.

        Raises:
            TypeError: neither bool nor integers.
            ValueError: another shape, or an index out of range or twice.
        """
        index = mode_indices(chosen, len(self.eigenvalues))
        places = {int(old): new for new, old in enumerate(index.tolist())}
        partners = [places.get(k, -1) for k in self.conjugates[index].tolist()]
        return replace(
            self,
            eigenvalues=self.eigenvalues[index],
            vectors=self.vectors[:, index],
            conjugates=torch.tensor(partners, dtype=torch.long),
            amplitudes=None if self.amplitudes is None else self.amplitudes[index],
        )

    def table(self, modes: int = 10) -> Table:
        """The largest modes: index, λ, norm, RMS amplitude, size at the layer."""
        count = len(self.eigenvalues)
        above = [
            f"{count} modes at {self.layer!r}, {len(self.vectors)} features; {self.note}",
            f"largest first: size is the RMS norm of a mode's part of the state; eigenvector "
            f"condition {self.condition:.3g}"
            + (", so modes are large and cancel" if self.condition >= _ILL else ""),
        ]
        norms, sizes = self.vectors.norm(dim=0), self.sizes
        rows = [
            [
                str(k),
                complex_number(complex(self.eigenvalues[k])),
                f"{norms[k]:.4g}",
                "" if self.amplitudes is None else f"{self.amplitudes[k]:.4g}",
                "" if sizes is None else f"{sizes[k]:.4g}",
            ]
            for k in self._largest_first()[:modes]
        ]
        head = ["mode", "λ (span)", "norm", "amplitude", "size"]
        return Table(head, rows, above, more(count, modes), text=())

    def summary(self, modes: int = 10) -> str:
        """The same as text."""
        return str(self.table(modes))

    def plot(self, ax: Axes | None = None, modes: int = 4) -> Axes:
        """The largest modes over the layer's features, below each other, each in its own scale.

        Stems are real parts, rings imaginary ones; of two conjugates one is drawn. Others are
        chosen by :meth:`keep`.

        Args:
            ax: matplotlib axes to draw on; None for a new figure.
            modes: how many.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
        """
        order, partners = self._largest_first(), self.conjugates.tolist()
        at = {k: place for place, k in enumerate(order)}
        alone = [k for k in order if partners[k] < 0 or at[k] <= at[partners[k]]][:modes]
        sizes = self.sizes
        names = [
            f"λ = {complex_number(complex(self.eigenvalues[k]))}"
            + ("" if sizes is None else f"\nsize {sizes[k]:.3g}")
            for k in alone
        ]
        real = [partners[k] == k for k in alone]
        title = f"{len(alone)} of {len(order)} modes at layer {self.layer}"
        return draw_modes(self.vectors[:, alone], names, real, title, ax)

    def _largest_first(self) -> list[int]:
        """By size at the layer; without data by norm."""
        sizes = self.vectors.norm(dim=0) if self.sizes is None else self.sizes
        order: list[int] = sizes.argsort(descending=True, stable=True).tolist()
        return order


def modes_at(
    layer: str, time: float, parts: Decomposition, readout: Readout, moments: Moments | None
) -> Modes:
    """The modes of a layer at a depth-time from the latent ones and the layer's read-out."""
    return Modes(
        layer,
        time,
        parts.eigenvalues,
        readout.matrix.to(parts.vectors.dtype) @ parts.vectors,
        readout.offset,
        readout.exact,
        readout.note,
        parts.conjugates,
        parts.condition,
        None if moments is None else mean_amplitudes(parts, moments),
    )


def mean_amplitudes(parts: Decomposition, moments: Moments) -> Tensor:
    """√(E|φ_k|²) over the latent states ``"start"``, float64, shape ``(modes,)``."""
    W = parts.covectors
    second = moments.second("start", "start").cpu().to(W.dtype)
    power = torch.einsum("ik,ij,jk->k", W.conj(), second, W).real
    return power.clamp(min=0).sqrt()


def mode_indices(chosen: Tensor | Sequence[int], count: int) -> Tensor:
    """Indices of chosen modes, from bool of shape ``(modes,)`` or from indices.

    Raises:
        TypeError: neither bool nor integers.
        ValueError: another shape, or an index out of range or twice.
    """
    given = torch.as_tensor(chosen).detach().cpu()
    if given.numel() == 0 and given.dtype != torch.bool:
        given = given.long()
    if given.is_floating_point() or given.is_complex():
        raise TypeError(f"modes are chosen by bool or by index; got {given.dtype}.")
    if given.dtype == torch.bool:
        if given.shape != (count,):
            raise ValueError(
                f"modes has shape {tuple(given.shape)}; expected one bool for each of {count}."
            )
        return given.nonzero().flatten()
    listed = given.flatten().tolist()
    outside = [k for k in listed if not 0 <= k < count]
    if given.ndim != 1 or outside or len(set(listed)) < len(listed):
        raise ValueError(
            f"modes={listed} must be a list of different indices from 0 to {count - 1}, in the "
            "order of surrogate.spectrum()."
        )
    return given.long()


def require_pairs(parts: Decomposition, index: Tensor) -> None:
    """Refuse half of a conjugate pair, whose part of a real state is not real.

    Raises:
        ValueError: names the mode and its partner.
    """
    there = set(index.tolist())
    for k in index.tolist():
        partner = int(parts.conjugates[k])
        if partner not in there:
            raise ValueError(
                f"modes has {k} (λ = {parts.eigenvalues[k].item():.4g}) without its complex "
                f"conjugate {partner}, and one alone is not real. Choose both: [{k}, {partner}]."
            )
