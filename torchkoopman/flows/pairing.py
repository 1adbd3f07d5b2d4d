"""Orbits as a trajectory that the Koopman fitters take: each state beside the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from torch import Tensor

    from torchkoopman.flows.flow import Flow


def pairs(flow: Flow, starts: Tensor, steps: int = 1) -> Trajectory:
    """States and what the flow makes of them, of all orbits together.

    Fitted to it, a surrogate's spectrum is that of one step of the flow. Near a fixed point with
    multipliers μ it holds the products of powers of μ (the eigenvalue lattice), for a dictionary of
    monomials.

    Example:
        >>> flow = tk.flows.Flow(lambda x: x * torch.tensor([0.9, 0.5]))
        >>> starts = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> fitted = tk.DMDFitter().update(tk.flows.pairs(flow, starts)).surrogate
        >>> fitted.spectrum().moduli.round(decimals=3)
        tensor([1.0000, 0.9000, 0.5000], dtype=torch.float64)

    Args:
        flow: what is iterated.
        starts: ``(n, …)``.
        steps: pairs of each orbit.

    Raises:
        ValueError: fewer than one step, or an orbit that diverges.
        TypeError: as for :meth:`Flow.orbit`.
    """
    if steps < 1:
        raise ValueError(f"pairs() got steps={steps}; give 1 or more.")
    orbit = flow.orbit(starts, steps)
    whole = orbit.flatten(2).isfinite().all(2).all(0)
    if not whole.all():
        raise ValueError(
            f"{int((~whole).sum())} of {len(whole)} orbits are not finite after {steps} steps; "
            "leave their starts out, or take fewer steps."
        )
    return Trajectory.of(orbit[:-1].flatten(0, 1).flatten(1), orbit[1:].flatten(0, 1).flatten(1))
