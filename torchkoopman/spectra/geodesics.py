"""The search of ``alignment.py`` for large matrices: conjugate gradients on orthogonal matrices.

At C with M = Cᵀ A C the form ⟨A, C B Cᵀ⟩ is ⟨M, B⟩. Along a geodesic C exp(t X), X skew, its first
derivatives are ⟨M, [X, B]⟩ and -⟨[X, M], [X, B]⟩, so a step has a length without trials: Newton's,
as far as the form bends down. Directions are conjugate in the manner of Polak and Ribière (Edelman,
Arias & Smith 1998). A step is a few products in place of a singular value decomposition, and half
as many steps come as far. Of small matrices the other search finds the better maxima.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SETTLED = 1e-9
"""Gain of a step, relative to ‖A‖‖B‖, below which a start counts as settled; …"""
_QUIET = 5
"""… after so many such steps in a row."""
_FAR = 1.0, 3.0
"""Frobenius norm of the first step at most, and of any."""


def climb(first: Tensor, second: Tensor, starts: Tensor, steps: int) -> Tensor:
    """Climb ``⟨A, C B Cᵀ⟩`` over orthogonal C from several starts at once.

    Four fifths of the steps are taken in float32, the rest in float64.

    Args:
        first: A, shape ``(size, size)``.
        second: B, of the same shape.
        starts: orthogonal matrices, shape ``(starts, size, size)``.
        steps: at most; it stops earlier where no start gains any more.

    Returns:
        The matrices reached, never worse than where they started; of the shape of ``starts``.
    """
    sizes = first.norm(), second.norm()
    if not min(sizes) > 0:
        return starts
    first, second = first / sizes[0], second / sizes[1]  # float32 ends at 1e38
    rough_steps = 4 * steps // 5
    single = _climbed(first.float(), second.float(), starts.float(), rough_steps)
    U, _, Vh = torch.linalg.svd(single.double())
    rough = torch.matmul(U, Vh).to(starts)
    better = _value(first, second, rough) > _value(first, second, starts)
    C = torch.where(better[:, None, None], rough, starts)
    U, _, Vh = torch.linalg.svd(_climbed(first, second, C, steps - rough_steps))
    found: Tensor = U @ Vh
    worse = _value(first, second, found) < _value(first, second, C)
    return torch.where(worse[:, None, None], C, found)


def _climbed(first: Tensor, second: Tensor, starts: Tensor, steps: int) -> Tensor:
    """The starts after so many steps, in their own precision, orthogonal up to that.

    The matrices have norm 1.
    """
    A, B, C = first, second, starts
    found, going = C.clone(), torch.arange(len(C))
    M = C.mT @ A @ C
    value, far = _inner(M, B), torch.full((len(C),), _FAR[0]).to(C)
    direction = gradient = torch.zeros_like(C)
    length, quiet = torch.ones_like(value), torch.zeros(len(C), dtype=torch.long)
    for _ in range(steps):
        slope = _skew(M @ B.T + M.mT @ B)
        conjugate = (_inner(slope, slope - gradient) / length).clamp(min=0)
        direction = slope + conjugate[:, None, None] * direction
        uphill = (_inner(direction, slope) > 0)[:, None, None]
        direction = torch.where(uphill, direction, slope)
        gradient, length = slope, _inner(slope, slope).clamp(min=1e-30)
        t = _step(M, B, direction, slope, far)
        move = _exponential(t[:, None, None] * direction)
        trial = move.mT @ M @ move
        reached = _inner(trial, B)
        better = reached >= value
        taken = better[:, None, None]
        gain = torch.where(better, reached - value, 0.0)
        C = torch.where(taken, C @ move, C)
        M, value = torch.where(taken, trial, M), torch.where(better, reached, value)
        direction = torch.where(taken, direction, 0.0)  # begin anew, with shorter steps
        far = torch.where(better, (1.5 * far).clamp(max=_FAR[1]), far / 8)
        quiet = torch.where(gain > _SETTLED, 0, quiet + 1)
        rest = quiet < _QUIET
        if not rest.all():
            found[going[~rest]] = C[~rest]
            going, C, M, value, far = going[rest], C[rest], M[rest], value[rest], far[rest]
            direction, gradient, length, quiet = (
                each[rest] for each in (direction, gradient, length, quiet)
            )
        if not len(going):
            break
    found[going] = C
    return found


def _step(turned: Tensor, second: Tensor, direction: Tensor, slope: Tensor, far: Tensor) -> Tensor:
    """How far to go along each direction: to the maximum of the parabola, or as far as allowed."""
    commutators = (direction @ matrix - matrix @ direction for matrix in (turned, second))
    bend = -_inner(*commutators)
    most = far / torch.linalg.matrix_norm(direction).clamp(min=1e-30)
    newton = -_inner(direction, slope) / bend
    return torch.where(bend < 0, torch.minimum(newton, most), most)


def _exponential(skew: Tensor) -> Tensor:
    """``exp(X)`` of small skew matrices to second order, orthogonal to eighth.

    ``(I + X + X²/2)ᵀ (I + X + X²/2) = I + X⁴/4``, whose inverse root is a series.
    """
    eye = torch.eye(skew.shape[-1]).to(skew)
    square = skew @ skew
    fourth = square @ square
    return (eye + skew + square / 2) @ (eye - fourth / 8)


def _skew(matrix: Tensor) -> Tensor:
    return (matrix - matrix.mT) / 2


def _inner(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum((-2, -1))


def _value(first: Tensor, second: Tensor, rotations: Tensor) -> Tensor:
    return _inner(first, rotations @ second @ rotations.mT)
