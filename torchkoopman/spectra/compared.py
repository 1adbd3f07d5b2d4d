"""The matrices that stand for two systems when they are compared: on which functions, less what.

A dictionary's random features are another space of functions at each draw, and K on that space
differs from draw to draw more than between networks. What does not depend on the draw is K on
functions that all surrogates share, 1 and the state's coordinates: P K P, with P the orthogonal
projection on them in L²(data). For K from regression across the span that is the best affine map of
the state, whatever else is in the dictionary, up to its ridge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch

from torchkoopman.spectra.matrices import System, matrix_of
from torchkoopman.spectra.resolvents import excited

if TYPE_CHECKING:
    from torch import Tensor

Functions = Literal["auto", "state", "latent"]

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


def comparable(
    first: Fitted | Tensor,
    second: Fitted | Tensor,
    rank: int,
    functions: Functions,
    less_identity: bool | None,
) -> tuple[Tensor, Tensor, str, tuple[str, ...]]:
    """Both matrices, what they are, and notes; the arguments are those of ``compare``."""
    both = (first, "first"), (second, "second")
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
    found = [
        _in_data_metric(operator, matrix, rank, of_state, name)
        for (operator, name), matrix in zip(both, matrices, strict=True)
    ]
    if less_identity:
        found = [matrix - torch.eye(len(matrix)).to(matrix) for matrix in found]
    if not systems:
        return found[0], found[1], "K - I" if less_identity else "operators", ()
    kind = "functions of the state" if of_state else "latent functions"
    subject = f"{'K - I' if less_identity else 'K'} on {kind},"
    return found[0], found[1], subject, () if of_state else (_LATENT,)


def _in_data_metric(
    operator: Fitted | Tensor, matrix: Tensor, rank: int, of_state: bool, name: str
) -> Tensor:
    """P K P in axes in which the start states are white; a matrix as it is."""
    if isinstance(operator, torch.Tensor):
        return matrix
    if operator.statistics is None or operator.statistics.count == 0:
        raise ValueError(
            f"the {name} surrogate has no statistics of its latent states, so their metric is "
            "unknown; fit it, or compare the matrices surrogate.operator.matrix(1.0) themselves."
        )
    G = operator.statistics.total().second("start", "start").cpu()
    image = matrix @ G
    if of_state and isinstance(operator.observables, Linear):
        read = operator.observables.decoding_matrix().detach().cpu().to(G)
        if operator.observables.constant:
            read = torch.cat([torch.eye(1, len(G)).to(G), read])
        G, image = read @ G @ read.T, read @ image @ read.T
    directions, sizes = excited(G, rank)
    whiten = directions / sizes.sqrt()
    white: Tensor = whiten.T @ image @ whiten
    return white
