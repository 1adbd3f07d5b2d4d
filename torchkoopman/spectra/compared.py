"""The matrices that stand for two systems when they are compared: on which functions, less what.

A dictionary's random features are another space of functions at each draw, and K on that space
differs from draw to draw more than between networks. What does not depend on the draw is K on
functions that all surrogates share, 1 and the state's coordinates: P K P, with P the orthogonal
projection on them in L²(data). For K from regression across the span that is the best affine map of
the state, whatever else is in the dictionary, up to its ridge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch

from torchkoopman.spectra.matrices import System, matrix_of
from torchkoopman.spectra.refits import Refits
from torchkoopman.spectra.resolvents import excited

if TYPE_CHECKING:
    from torch import Tensor

Functions = Literal["auto", "state", "latent"]

_NO_FLOOR = (
    "a fit with residuals=False kept nothing to tell by how far two fits of one system differ"
)
_LATENT = (
    "all latent functions were compared, so how these were drawn or learnt counts as well as the "
    "dynamics"
)


class Record(Protocol):
    """What a fit says of itself."""

    @property
    def frames(self) -> str:
        """``"shared"`` where all layers have one frame of coordinates."""
        ...


@runtime_checkable
class Linear(Protocol):
    """Observables the state is read off linearly: those of a dictionary, not of an encoder."""

    constant: bool
    """The first latent coordinate is 1 for every state."""

    def decoding_matrix(self) -> Tensor:
        """The state's coordinates as functionals, ``(features, latent)``."""
        ...


class Fitted(System, Protocol):
    """A linear system that knows how it was fitted, such as a ``tk.Surrogate``."""

    @property
    def observables(self) -> object:
        """The functions that latent coordinates are; :class:`Linear` where they hold the state."""
        ...

    @property
    def record(self) -> Record:
        """How the system was fitted."""
        ...


@dataclass(frozen=True)
class Compared:
    """The matrices that stand for two systems."""

    first: Tensor
    """Float64, square; sizes may differ."""
    second: Tensor
    subject: str
    """What they are."""
    notes: tuple[str, ...] = ()
    """What they hold besides the dynamics."""
    refits: tuple[Refits | None, Refits | None] = (None, None)
    """What other fits of each system are drawn from; None for matrices as they are."""


def comparable(
    first: Fitted | Tensor,
    second: Fitted | Tensor,
    rank: int,
    functions: Functions,
    less_identity: bool | None,
    names: tuple[str, str] = ("first", "second"),
) -> Compared:
    """What stands for both; the arguments are those of ``compare``, the names are for errors."""
    both = (first, names[0]), (second, names[1])
    matrices = [matrix_of(operator, name) for operator, name in both]
    systems = [operator for operator in (first, second) if not isinstance(operator, torch.Tensor)]
    if functions not in ("auto", "state", "latent"):
        raise ValueError(f"functions={functions!r} is unknown; choose 'auto', 'state' or 'latent'.")
    if less_identity is None:
        less_identity = len(systems) == 2 and all(s.record.frames == "shared" for s in systems)
    hold_state = all(isinstance(system.observables, Linear) for system in systems)
    known = len(systems) == 2 and hold_state
    if functions == "state" and not hold_state:
        raise ValueError(
            "functions='state': a learnt encoder's latent coordinates do not hold the state; "
            "compare them with functions='latent'."
        )
    of_state = functions == "state" or (functions == "auto" and known)
    (A, refits_a), (B, refits_b) = (
        _in_data_metric(operator, matrix, rank, of_state, less_identity, name)
        for (operator, name), matrix in zip(both, matrices, strict=True)
    )
    if not systems:
        return Compared(A, B, "K - I" if less_identity else "operators")
    kind = "functions of the state" if of_state else "latent functions"
    subject = f"{'K - I' if less_identity else 'K'} on {kind},"
    notes, sides = [] if of_state else [_LATENT], ((first, refits_a), (second, refits_b))
    if not all(isinstance(s, torch.Tensor) or known is not None for s, known in sides):
        notes.append(_NO_FLOOR)
    return Compared(A, B, subject, tuple(notes), (refits_a, refits_b))


def _in_data_metric(
    operator: Fitted | Tensor,
    matrix: Tensor,
    rank: int,
    of_state: bool,
    less_identity: bool,
    name: str,
) -> tuple[Tensor, Refits | None]:
    """P K P in axes in which the start states are white, or less I; a matrix as it is, or less I.

    Also what other fits of the system are drawn from, where that is known.
    """
    if isinstance(operator, torch.Tensor):
        return _less(matrix, less_identity), None
    if operator.statistics is None or operator.statistics.count == 0:
        raise ValueError(
            f"the {name} surrogate has no statistics of its latent states, so their metric is "
            "unknown; fit it, or compare the matrices surrogate.operator.matrix(1.0) themselves."
        )
    total = operator.statistics.total()
    G, A = (total.second(*pair).cpu() for pair in (("start", "start"), ("end", "start")))
    L = total.second("end", "end").cpu() if ("end", "end") in total.pairs else None
    image, mean = matrix @ G, total.mean("start").cpu()
    if of_state and isinstance(operator.observables, Linear):
        read = operator.observables.decoding_matrix().detach().cpu().to(G)
        if operator.observables.constant:
            read = torch.cat([torch.eye(1, len(G)).to(G), read])
        G, image, A = (read @ form @ read.T for form in (G, image, A))
        L, mean = None if L is None else read @ L @ read.T, read @ mean
    directions, sizes = excited(G, len(G))
    whiten = directions / sizes.sqrt()
    whole, regression = (whiten.T @ form @ whiten for form in (image, A))
    white = _less(whole[:rank, :rank], less_identity)
    if L is None:
        return white, None
    left, axes = torch.linalg.eigh(whiten.T @ L @ whiten - regression @ regression.T)
    noise, start = axes * left.clamp(min=0).sqrt(), whiten.T @ mean
    return white, Refits(whole, noise, start, sizes, total.count, rank, less_identity)


def _less(matrix: Tensor, identity: bool) -> Tensor:
    """The matrix, or the matrix less I."""
    return matrix - torch.eye(len(matrix)).to(matrix) if identity else matrix
