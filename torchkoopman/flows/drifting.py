"""How far what is read from a state moves away while nothing comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchkoopman.flows.flow import Flow


def readout_drift(
    flow: Flow,
    readout: Callable[[Tensor], Tensor],
    states: Tensor,
    steps: int = 100,
    *,
    progress: bool = False,
) -> Tensor:
    """Mean squared change of a read-out after each number of steps without input.

    A network that holds a value keeps its read-out where it is: on a continuous attractor the drift
    stays near 0, and where there are only fixed points it grows up to the distance to them. Beside
    it stands the variance of the read-out over the states, ``readout(states).var(0)``: drift as
    large as that means that nothing is left of what was held.

    Example:
        >>> decay = tk.flows.Flow(lambda x: 0.9 * x)
        >>> states = torch.tensor([[1.0], [-1.0]])
        >>> tk.flows.readout_drift(decay, lambda x: x, states, steps=2)  # 0, 0.1², 0.19²
        tensor([0.0000, 0.0100, 0.0361], dtype=torch.float64)

    Args:
        flow: a cell at the input that stands for none, ``Flow.of_cell(cell, torch.zeros(inputs))``.
        readout: a module or function from states ``(n, …)`` to ``(n, …)``, differentiable or not.
        states: those behind the last pulse, ``(n, …)``.
        steps: without input.
        progress: show a bar.

    Returns:
        float64, ``(1 + steps,)``, the first of them 0: the mean over states of the squared change,
        summed over what is read out.

    Raises:
        ValueError: fewer steps than one, or a read-out that is not one tensor of a row a state.
    """
    if steps < 1:
        raise ValueError(f"readout_drift() got steps={steps}; give 1 or more.")
    found = []
    with torch.no_grad():
        for now in flow.orbit(states, steps, progress=progress):
            read = readout(now)
            if not isinstance(read, Tensor) or read.ndim < 1 or len(read) != len(states):
                what = tuple(read.shape) if isinstance(read, Tensor) else type(read).__name__
                raise ValueError(
                    f"the read-out of {len(states)} states gives {what}; it must give one tensor "
                    "with a row for each state."
                )
            found.append(read.double().flatten(1) if read.ndim > 1 else read.double()[:, None])
    change = torch.stack(found) - found[0]
    drift: Tensor = change.square().sum(2).mean(1)
    return drift
