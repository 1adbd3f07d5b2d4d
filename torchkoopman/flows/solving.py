"""Differential equations in continuous time: fixed steps of our own, or adaptive by torchdiffeq."""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from torchkoopman.flows.maps import moved, one_step, require_kind, require_states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Solver = Literal["rk4", "dopri5"]

_STEPS = 100_000
"""Of the adaptive solver between two times; more means that it does not get on."""


def solve(
    velocity: Callable[[Tensor], Tensor],
    starts: Tensor,
    times: Sequence[float] | Tensor,
    *,
    method: Solver = "rk4",
    dt: float = 0.05,
    tolerance: float = 1e-6,
) -> Tensor:
    """States at given times of ``dx/dt = velocity(x)``; differentiable.

    ``"rk4"`` divides each interval into equal steps of ``dt`` or less of the classical Runge-Kutta
    method: the error is of order ``dt⁴``. ``"dopri5"`` (Dormand & Prince 1980, by torchdiffeq)
    chooses its steps so that the error of each step is within the tolerance in every number of
    every state; the steps are common to all states of a call.

    Jacobians of many states at once (``torch.func``) go through ``"rk4"`` alone; a :class:`Flow`
    of an adaptive solution differentiates it by plain autograd, one state at a time.

    Example:
        >>> states = tk.flows.solve(lambda x: -x, torch.ones(1, 1), [0.0, 1.0, 2.0])
        >>> states.flatten()  # 1, e⁻¹, e⁻²
        tensor([1.0000, 0.3679, 0.1353])
        >>> options = {"method": "dopri5", "tolerance": 1e-9}
        >>> fine = tk.flows.solve(lambda x: -x, torch.ones(1, 1).double(), [0, 1], **options)
        >>> abs(fine[-1].item() - 0.36787944) < 1e-8
        True

    Args:
        velocity: a module or function of states alone.
        starts: at the first of the times, ``(n, …)``, float32 or float64.
        times: two or more, increasing.
        method: ``"rk4"``, or ``"dopri5"``, which needs the extra ``torchkoopman[ode]``.
        dt: the longest step of ``"rk4"``.
        tolerance: relative and absolute error of a step of ``"dopri5"``.

    Returns:
        ``(times, n, …)``, the first of them the starts. A solution that diverges is not finite
        under ``"rk4"``.

    Raises:
        TypeError: starts that are no float32 or float64 tensor.
        ValueError: no starts, a velocity of another shape than the states, an unknown method, times
            that do not increase, options that are not positive, or starts of ``"dopri5"`` that are
            not finite.
        ImportError: torchdiffeq is not installed.
        RuntimeError: the adaptive solver does not get on, for a solution diverges or is stiff; or
            it is called under ``torch.func``.
    """
    require_solver(method, dt, tolerance)
    require_kind(starts)
    clock = torch.as_tensor(times, dtype=torch.float64).cpu()
    if clock.ndim != 1 or len(clock) < 2 or not (clock.diff() > 0).all() or clock.isinf().any():
        raise ValueError(
            f"solve() takes two times or more that increase; got {clock.flatten()[:5].tolist()}."
        )
    if method == "dopri5":
        return _adaptive(velocity, starts, clock, tolerance)
    state, found = starts, [starts]
    for length in clock.diff().tolist():
        steps = math.ceil(length / dt - 1e-9)
        step = one_step(velocity, length / steps, "rk4")
        for _ in range(steps):
            state = step(state)
        found.append(state)
    return torch.stack(found)


def require_solver(method: str, dt: float, tolerance: float) -> None:
    """Refuse what no solution comes of.

    Raises:
        ValueError: an unknown method, or options that are not positive and finite.
    """
    if method not in ("rk4", "dopri5"):
        raise ValueError(f"solve() got method={method!r}; choose 'rk4' or 'dopri5'.")
    for name, value in (("dt", dt), ("tolerance", tolerance)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"solve() got {name}={value}; give a positive number.")


def _adaptive(
    velocity: Callable[[Tensor], Tensor], starts: Tensor, clock: Tensor, tolerance: float
) -> Tensor:
    """By torchdiffeq, with the largest error of a call's numbers as its norm.

    Under its own norm, their root mean square, one state among many at rest may be far off.
    """
    try:
        torchdiffeq = import_module("torchdiffeq")
    except ImportError as error:
        raise ImportError(
            "method='dopri5' needs torchdiffeq, which is not installed: pip install "
            "'torchkoopman[ode]'. method='rk4' needs nothing."
        ) from error
    options = {"norm": lambda x: x.abs().max(), "max_num_steps": _STEPS}
    try:
        require_states(starts)
        found: Tensor = torchdiffeq.odeint(
            lambda _, state: moved(velocity, state),
            starts,
            clock.to(starts.device),
            rtol=tolerance,
            atol=tolerance,
            method="dopri5",
            options=options,
        )
    except AssertionError as error:
        raise RuntimeError(
            f"the adaptive solver does not get on ({error}): a solution diverges, is stiff, or is "
            f"asked for more digits than {starts.dtype} has. Leave its start out, give a larger "
            "tolerance, or use method='rk4', in which a solution that diverges is not finite."
        ) from error
    except RuntimeError as error:
        if not any(name in str(error) for name in ("functorch", "vmap")):
            raise
        raise RuntimeError(
            "method='dopri5' writes in place, which torch.func.vmap and jacrev do not take; use "
            "method='rk4' for them, or tk.flows.Flow(…).jacobian, which takes both."
        ) from error
    return found
