"""How far data bear out an eigenpair: residual, sampling error, and what the dictionary misses.

Three questions are asked of rows ``z_start, z_end`` of latent states, for each eigenvalue λ with
left eigenvector w, right eigenvector v and eigenfunction φ(z) = wᴴ z, error r = φ(z_end) - λ
φ(z_start):

* **residual**: √(E|r|² / E|φ|²), that of ResDMD (Colbrook & Townsend 2024). Rows that were part of
  the fit are predicted by the fit without their sample, all its tokens and repetitions: for least
  squares those errors are (1 - H)⁻¹ r, H the leverages of the sample's rows, exactly (Allen 1974,
  PRESS; by groups Cook & Weisberg 1982).
* **error**: the standard error of λ. To first order δλ = wᴴ δK v / wᴴ v, and δK is a mean over rows
  of error times regressor, so its variance is read off the rows, whatever their noise; rows of one
  sample count together (Liang & Zeger 1986). Where noise may have drawn eigenvalues apart from one,
  how far it is to that one counts too (``clusters.py``).
* **closure**: how much of r is no noise: a function of the start. With noise the residual stays
  large where the law holds in the mean; this one does not. r is regressed on functions outside the
  dictionary, and on those of the dictionary, with which only a least-squares K leaves nothing in
  common: powers of a step, learnt and edited operators do. For a normal operator some eigenvalue
  lies within the closure of λ; for another, to first order, within that times the condition number
  of λ, by which the closure is multiplied, but for what chance may add. Where 0 predicts φ(z_end)
  of unseen samples as well as λ φ(z_start) does, the eigenvalue may be 0, and the closure is |λ| at
  least: many functions fit a small one to a stream's chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from torchkoopman.spectra.clusters import raised
from torchkoopman.spectra.conditions import conditions
from torchkoopman.spectra.grouped import Grouped
from torchkoopman.spectra.trust import OFF

if TYPE_CHECKING:
    from torchkoopman.observe.moments import Moments

_WITNESSES = 64
"""Functions that the closure asks. More see more, and need more rows to be told from chance."""
_DEVIATIONS = 2.0
"""Standard deviations by which the closure is raised: few rows must not pass for few errors."""
_NEVER = 1e-14
"""Share of the latent states' second moment below which the data do not excite a functional."""
_ROUNDING = 1e-11
"""Directions with less than this share of the largest second moment are the moments' rounding."""


@dataclass(frozen=True)
class Evidence:
    """A bounded sample of rows that eigenpairs are judged by."""

    start: Tensor
    """Latent states at the start, ``(rows, latent)``."""
    end: Tensor
    """Latent states of the same rows at the end, ``(rows, latent)``."""
    state: slice
    """Which latent coordinates hold the state itself."""
    fitted: bool
    """Whether the rows were part of the operator's regression, which their leverage undoes."""
    samples: Tensor | None = None
    """A number for each row's sample, integer, ``(rows,)``; None: each row is one of its own."""
    shares: Tensor | None = None
    """How many rows of its sample each stands for, ``(rows,)``; None: itself alone."""
    weights: Tensor | None = None
    """Weight of each in the fit, ``(rows,)``, and how likely it is to be here; None: all alike."""

    def with_constant(self) -> Self:
        """The same rows with the constant 1 in front of each latent state."""
        start, end = (
            torch.cat([torch.ones_like(rows[:, :1]), rows], 1) for rows in (self.start, self.end)
        )
        state = slice(self.state.start + 1, self.state.stop + 1)
        return replace(self, start=start, end=end, state=state)

    def config(self) -> dict[str, Any]:
        """JSON-able part; the rows are tensors beside it."""
        return {"state": [self.state.start, self.state.stop], "fitted": self.fitted}

    def tensors(self) -> dict[str, Tensor]:
        """The rows, and what is known of them."""
        names = ("start", "end", "samples", "shares", "weights")
        known = {name: getattr(self, name) for name in names}
        return {name: tensor for name, tensor in known.items() if tensor is not None}

    @classmethod
    def from_config(
        cls,
        config: dict[str, Any],
        start: Tensor,
        end: Tensor,
        samples: Tensor | None = None,
        shares: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Self:
        """The evidence that :meth:`config` and :meth:`tensors` describe."""
        state = slice(*config["state"])
        return cls(start, end, state, config["fitted"], samples, shares, weights)


@dataclass(frozen=True)
class Judgement:
    """What the data say of each eigenpair; float64, shape ``(latent,)``."""

    residuals: Tensor
    errors: Tensor
    closures: Tensor | None
    conditions: Tensor


def judge(
    values: Tensor, modes: Tensor, functionals: Tensor, moments: Moments, evidence: Evidence
) -> Judgement:
    """Ask the rows.

    Args:
        values: eigenvalues of K, complex, ``(latent,)``.
        modes: right eigenvectors as columns.
        functionals: left eigenvectors as columns.
        moments: of all rows of the fit, ``"start"`` and ``"end"``.
        evidence: some of them, or rows that the fit has not seen.
    """
    G = moments.second("start", "start").cpu()
    start, end = evidence.start.double().cpu(), evidence.end.double().cpu()
    G_inverse = torch.linalg.pinv(G, hermitian=True, rtol=_ROUNDING)
    W, V = functionals, modes / (functionals.conj() * modes).sum(0)
    sizes = torch.einsum("ik,ij,jk->k", W.conj(), G.to(W), W).real
    errors = end.to(W) @ W.conj() - (start.to(W) @ W.conj()) * values
    influence = start.to(W) @ (G_inverse.to(W) @ V)
    rows = Grouped.of(len(start), evidence.samples, evidence.shares, evidence.weights)
    count = rows.independent(moments.count)
    fitted = len(values) if evidence.fitted else 0
    spread = rows.variance(errors * influence.conj(), moments.count, fitted)
    excited = sizes > _NEVER * G.diagonal().sum()
    scale = torch.where(excited, sizes, torch.nan).sqrt()
    errors = errors / scale
    unseen, ends = errors, end.to(W) @ W.conj() / scale
    if evidence.fitted:
        roots = start @ _root(G_inverse)
        unseen = rows.without_own(errors, ends, roots / moments.count**0.5)
    residuals = rows.mean(unseen.abs().square())
    witnesses, apart = _witnesses(start, evidence.state, len(rows.sizes))
    # Witnesses apart from the dictionary see nothing of what the fit made of these rows, but see
    # far-out rows of large leverage, which would count manifold.
    outside, at_most = _outside(errors if apart else unseen, witnesses)
    regression = (moments.second("end", "start").cpu() @ G_inverse).to(W)
    missed = regression.mH @ W - W * values.conj()
    within = torch.einsum("ik,ij,jk->k", missed.conj(), G.to(W), missed).real / sizes
    within = (within - residuals * len(values) / count).clamp(min=0)  # less what is chance
    known = conditions(values, W.mH @ G.to(W) @ W, V.mH @ G_inverse.to(V) @ V, OFF)
    moved = known * (outside + within).sqrt()
    closures = torch.maximum((at_most + within).sqrt(), moved)
    gain = ends.abs().square() - unseen.abs().square()
    no_better = rows.mean(gain) <= rows.deviation(gain)
    closures = torch.where(no_better, torch.maximum(closures, values.abs()), closures)
    return Judgement(residuals.sqrt(), raised(values, spread.sqrt(), known), closures, known)


def without_rows(values: Tensor, modes: Tensor, functionals: Tensor, moments: Moments) -> Judgement:
    """What moments alone say, where no rows were kept: all but the closures.

    A fit of p functions to n rows comes n/(n - p) too near to them: residuals, and the squares of
    standard errors, are raised by that, to infinity where p ≥ n. The standard errors assume noise
    of one size everywhere.
    """
    G, A, L = (
        moments.second(a, b).cpu().to(values)
        for a, b in (("start", "start"), ("end", "start"), ("end", "end"))
    )
    forms = [torch.einsum("ik,ij,jk->k", functionals.conj(), M, functionals) for M in (G, A, L)]
    start, cross, end = forms
    error = end.real - 2 * (values.conj() * cross).real + values.abs().square() * start.real
    error = error.clamp(min=0)
    # A functional the data never excites has no measurable law; its residual is unknown, hence nan.
    excited = start.real > _NEVER * G.diagonal().real.sum()
    free = moments.count - len(values)
    bias = moments.count / free if free > 0 else torch.inf
    residuals = bias * torch.where(excited, error / start.real, torch.nan).sqrt()
    V = modes / (functionals.conj() * modes).sum(0)
    G_inverse = torch.linalg.pinv(G.real, hermitian=True, rtol=_ROUNDING).to(V)
    size = torch.einsum("ik,ij,jk->k", V.conj(), G_inverse, V).real
    spread = error * size / free if free > 0 else torch.full_like(error, torch.inf)
    W = functionals
    known = conditions(values, W.mH @ G @ W, V.mH @ G_inverse @ V, OFF)
    return Judgement(residuals, raised(values, spread.clamp(min=0).sqrt(), known), None, known)


def _root(symmetric: Tensor) -> Tensor:
    """R with R Rᵀ the matrix."""
    sizes, axes = torch.linalg.eigh(symmetric)
    root: Tensor = axes * sizes.clamp(min=0).sqrt()
    return root


def _witnesses(start: Tensor, state: slice, samples: int) -> tuple[Tensor, bool]:
    """Functions of the state, orthonormal over the rows; and whether they are apart.

    Apart means less what the dictionary explains of them, where samples are many enough to tell.

    Random features ``tanh(a·c + b)``, half of them slow and half fast, of the state with each
    coordinate at deviation 1; always the same ones, drawn from a generator of their own.
    """
    rows = len(start)
    c = start[:, state]
    c = (c - c.mean(0)) / c.std(0, correction=0).clamp(min=1e-12 * c.abs().max().item() + 1e-300)
    generator = torch.Generator().manual_seed(0)
    shape = (c.shape[1], _WITNESSES)
    weight = torch.randn(shape, generator=generator, dtype=c.dtype) / c.shape[1] ** 0.5
    bias = torch.randn(_WITNESSES, generator=generator, dtype=c.dtype)
    pace = torch.where(torch.arange(_WITNESSES) % 2 == 0, 1.5, 4.0).to(c)
    functions = torch.tanh((c @ weight + bias) * pace)
    apart = start.shape[1] < samples // 2
    if apart:
        basis = torch.linalg.qr(start)[0]
        functions = functions - basis @ (basis.T @ functions)
    U, S, _ = torch.linalg.svd(functions - functions.mean(0), full_matrices=False)
    orthonormal: Tensor = U[:, 1e-5 * rows**0.5 < S] * rows**0.5
    return orthonormal, apart


def _outside(errors: Tensor, witnesses: Tensor) -> tuple[Tensor, Tensor]:
    """The part of E|r|² that the witnesses explain, and the same raised by its uncertainty.

    ``errors`` are relative to √E|φ|², ``(rows, latent)``; witnesses are orthonormal over the rows.
    What chance explains, E|u r|²/rows for each, is taken off; the deviation of the rest is added
    ``_DEVIATIONS`` times.
    """
    rows = len(errors)
    explained = (witnesses.to(errors).T @ errors / rows).abs().square()
    chance = witnesses.square().T @ errors.abs().square() / rows**2
    # Of a sum of squares of Gaussian numbers with means m and variances s: 2 Σ s² + 4 Σ m² s.
    true = (explained - chance).clamp(min=0)
    deviation = (2 * chance.square() + 4 * true * chance).sum(0).sqrt()
    found = (explained - chance).sum(0)
    return found.clamp(min=0), (found + _DEVIATIONS * deviation).clamp(min=0)


def shares(amplitudes: Tensor, moments: Moments) -> Tensor:
    """Share of E|z|² that each mode's component carries, normalised over the modes.

    Nearly parallel modes cancel each other, and each alone is then larger than the whole: it counts
    as the whole, lest the others vanish beside it.
    """
    G = moments.second("start", "start").cpu().to(amplitudes)
    power = torch.einsum("ki,ij,kj->k", amplitudes, G, amplitudes.conj()).real
    power = torch.minimum(power, G.diagonal().real.sum())
    return power / power.sum()
