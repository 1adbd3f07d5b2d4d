"""Comparison of two operators: do two systems have the same linear dynamics up to a change of axes?

The distances are in ``similarity.py``, which matrices stand for two surrogates in ``compared.py``,
and what a distance is held against in ``nulls.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.spectra.compared import comparable
from torchkoopman.spectra.nulls import named, one_system, unrelated
from torchkoopman.spectra.similarity import (
    similarity_bound,
    similarity_distance,
    spectral_distance,
)
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.spectra.compared import Fitted, Functions


@dataclass(frozen=True)
class OperatorDistance(Tabular):
    """How far two operators are from each other, beside the distances of unrelated ones; print it.

    A and B are the two operators as they are compared, the smaller one padded with zeros.

    Example:
        >>> one, other = torch.diag(torch.tensor([0.9, 0.5])), torch.diag(torch.tensor([0.9, 0.3]))
        >>> distance = tk.compare(one, other)
        >>> round(distance.similarity, 3), round(distance.spectral, 3)
        (0.2, 0.2)
    """

    similarity: float
    """‖A - C B Cᵀ‖_F at the best orthogonal C found; an upper bound of the minimum."""
    lower_bound: float
    """A bound below which no C leads: a better search could lower ``similarity`` to it at most."""
    spectral: float
    """``√(Σ |λ_i - μ_π(i)|²)`` of the eigenvalues λ of A and μ of B at the optimal assignment π;
    not divided by their number, so that it is on the scale of ``similarity``."""
    scale: float
    """√(‖A‖_F² + ‖B‖_F²); ``similarity`` is at most √2 times this."""
    angle: float
    """The least angle between A and C B Cᵀ as vectors, in radians (the angular distance of DSA,
    Ostrow et al. 2023): it does not depend on the operators' scales. NaN if one is zero."""
    rotation: Tensor
    """The best C found, float64, shape ``(size, size)``."""
    null_similarity: Tensor
    """``similarity`` of the null pairs, on the scale of this one; shape ``(pairs,)``: the pairs
    ``beside``, or ``draws`` pairs of random operators with the singular values of A and B."""
    null_spectral: Tensor
    """``spectral`` of the same pairs."""
    floor: Tensor
    """``similarity`` of two fits of one system to as many rows, which differ by sampling alone;
    shape ``(draws,)``, empty where it is not known."""
    sizes: tuple[int, int]
    """Sizes of A and B as compared, before padding."""
    agreement: float
    """Share of the search's starts that ended within 1 % of the scale of the best. Where it is
    small the search is hard, and ``similarity`` may be too large."""
    subject: str = "operators"
    """What was compared: ``"operators"`` as they are, or K or K - I on which functions."""
    notes: tuple[str, ...] = ()
    """What the distance depends on besides the dynamics, one sentence each."""

    @property
    def relative(self) -> float:
        """``similarity / scale``: 0 for similar operators, whatever their size."""
        return self.similarity / self.scale if self.scale else 0.0

    @property
    def below_null(self) -> float:
        """Share of the null pairs that are farther apart, relative to their scale; NaN without any.

        With m pairs ``beside``, a share of 1 rejects at the level 1 / (m + 1) that the two are no
        more alike than those pairs. With random operators 1 says little: it rejects that the two
        have only singular values in common, and any two networks of one kind have more, also
        untrained ones. A share below 1 then says much.
        """
        return (self.null_similarity > self.similarity).double().mean().item()

    @property
    def above_floor(self) -> float:
        """Share of ``floor`` that is nearer; NaN if it is not known.

        1 rejects that both are fits to independent rows of one system. With small values the rows
        cannot tell the two apart.
        """
        return (self.floor < self.similarity).double().mean().item()

    def table(self) -> Table:
        """Both distances beside their nulls; below them the bound, and what the starts agree in."""
        above = (
            f"{self.subject} of size {self.sizes[0]} and {self.sizes[1]}, scale {self.scale:.4g}"
        )
        rows = []
        for name, value, null in (
            ("similarity", self.similarity, self.null_similarity),
            ("eigenvalues", self.spectral, self.null_spectral),
        ):
            shares = null / self.scale if self.scale else null
            relative = value / self.scale if self.scale else 0.0
            spread = "none drawn"
            if len(shares):
                spread = f"{shares.mean():.4f} ± {shares.std(correction=0):.4f}"
            rows.append([name, f"{value:.4f}", f"{relative:.4f}", spread])
        below = []
        if len(self.floor):
            floor = self.floor.mean() / self.scale if self.scale else 0.0
            below.append(
                f"two fits of one system to as many rows: {floor:.4f}; {self.above_floor:.0%} of "
                "such pairs are nearer"
            )
        below.append(
            f"similarity is at least {self.lower_bound:.4f}; angle {self.angle:.4f}; "
            f"{self.agreement:.0%} of the starts agree"
        )
        head = ["", "distance", "relative", "null, relative"]
        return Table(head, rows, [above], [*below, *self.notes])


@torch.no_grad()
def compare(
    first: Fitted | Tensor,
    second: Fitted | Tensor,
    *,
    rank: int = 20,
    starts: int = 8,
    draws: int = 10,
    beside: Sequence[tuple[Fitted | Tensor, Fitted | Tensor]] = (),
    functions: Functions = "auto",
    less_identity: bool | None = None,
    generator: torch.Generator | None = None,
) -> OperatorDistance:
    """How alike the dynamics of two operators are, beside pairs that are unrelated.

    The distance is the least ‖A - C B Cᵀ‖_F over orthogonal C (DSA, Ostrow et al. 2023).

    Surrogates are compared in the metric of their own data: each K over its span in axes in which
    the latent states at the start have second moment 1, over the ``rank`` directions of largest
    share. By default K is projected orthogonally on functions of the state alone (1 and its
    coordinates), so that for a fit across the span the draw of random features does not matter;
    differences in further functions are not seen. With all directions kept, no invertible change of
    a latent space's basis matters, so surrogates of different seeds can be compared. Matrices are
    taken as they are.

    Example:
        >>> turn = torch.linalg.qr(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).Q
        >>> K = torch.tensor([[0.9, 0.2], [0.0, 0.5]])
        >>> distance = tk.compare(K, turn @ K @ turn.T)  # one system in two bases
        >>> distance.similarity < 1e-3, distance.below_null
        (True, 1.0)

    Args:
        first: a surrogate or a real square matrix.
        second: the same; sizes may differ.
        rank: directions of each surrogate; the time grows with its cube, and is seconds at 100.
        starts: random starts of the search, for the pair and for each null pair.
        draws: null pairs, and pairs that differ by sampling alone; each costs as much as the
            comparison itself.
        beside: null pairs in place of random operators, such as pairs of untrained networks: only
            beside what any two networks of the kind have in common does a distance tell what was
            learnt. Nineteen pairs can reject at 5 %.
        functions: ``"state"``; ``"latent"`` for all latent coordinates, which also depend on the
            draw of a dictionary or the training of an encoder; or ``"auto"``: ``"state"`` where
            both have the state among their latent coordinates.
        less_identity: compare K - I, the change that layers make to the state: in residual networks
            every K is near the identity, and any two are alike. None: yes, where both surrogates
            have one frame for all layers, without which the identity means nothing.
        generator: of the starts and the null; None for one seeded with 0.

    Raises:
        TypeError: something else came.
        ValueError: a matrix that is not square or not finite, a surrogate without statistics, or a
            ``rank`` below 1, ``starts`` or ``draws`` below 0, ``functions`` that are not known, or
            pairs ``beside`` of which something else would be compared, such as K where it is K - I.
    """
    if rank < 1:
        raise ValueError(f"rank={rank} must be at least 1.")
    if starts < 0 or draws < 0:
        raise ValueError(f"starts={starts} and draws={draws} must not be negative.")
    draw = torch.Generator().manual_seed(0) if generator is None else generator
    pair = comparable(first, second, rank, functions, less_identity)
    others = list(named(pair, beside, rank, functions, less_identity))
    A, B = pair.first, pair.second
    distance, rotation, agreement = similarity_distance(A, B, starts=starts, generator=draw)
    scale = math.hypot(A.norm().item(), B.norm().item())
    null_similarity, null_spectral, floor = [], [], []
    for other in others:
        both = other.first, other.second
        size = math.hypot(*(matrix.norm().item() for matrix in both))
        share = scale / size if size else 0.0
        null_similarity.append(share * similarity_distance(*both, starts=starts, generator=draw)[0])
        null_spectral.append(share * spectral_distance(*both))
    for number in range(draws):
        if not others:
            both = unrelated(pair, draw)
            null_similarity.append(similarity_distance(*both, starts=starts, generator=draw)[0])
            null_spectral.append(spectral_distance(*both))
        if (fits := one_system(pair, number % 2, draw)) is not None:
            floor.append(similarity_distance(*fits, starts=0, generator=draw)[0])
    size_a, size_b = A.norm().item(), B.norm().item()
    angle = math.nan
    if size_a and size_b:
        cosine = (size_a**2 + size_b**2 - distance**2) / (2 * size_a * size_b)
        angle = math.acos(max(-1.0, min(1.0, cosine)))
    return OperatorDistance(
        similarity=distance,
        lower_bound=similarity_bound(A, B),
        spectral=spectral_distance(A, B),
        scale=scale,
        angle=angle,
        rotation=rotation,
        null_similarity=torch.tensor(null_similarity, dtype=torch.float64),
        null_spectral=torch.tensor(null_spectral, dtype=torch.float64),
        floor=torch.tensor(floor, dtype=torch.float64),
        sizes=(len(A), len(B)),
        agreement=agreement,
        subject=pair.subject,
        notes=pair.notes,
    )
