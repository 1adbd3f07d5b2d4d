"""How far what is read from a state moves away while nothing comes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.flows.maps import SAME

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
        ValueError: fewer steps than one, a read-out that is not one tensor of a row a state, or
            one that is random or mixes the states of a batch.
    """
    if steps < 1:
        raise ValueError(f"readout_drift() got steps={steps}; give 1 or more.")
    found = []
    with torch.no_grad():
        orbit = flow.orbit(states, steps, progress=progress)
        _require_same(readout, states)
        for now in orbit:
            read = _read(readout, now)
            found.append(read.double().flatten(1) if read.ndim > 1 else read.double()[:, None])
    change = torch.stack(found) - found[0]
    drift: Tensor = change.square().sum(2).mean(1)
    return drift


def _read(readout: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """One tensor with a row for each state."""
    read = readout(states)
    if not isinstance(read, Tensor) or read.ndim < 1 or len(read) != len(states):
        what = tuple(read.shape) if isinstance(read, Tensor) else type(read).__name__
        raise ValueError(
            f"the read-out of {len(states)} states gives {what}; it must give one tensor with a "
            "row for each state."
        )
    return read


def _require_same(readout: Callable[[Tensor], Tensor], states: Tensor) -> None:
    """Refuse what reads the same state in two ways: as a drift it would look like one."""
    first, again = _read(readout, states), _read(readout, states)
    differ = [first - again]
    if len(states) > 1:
        differ.append(first[1:] - _read(readout, states[1:]))
    apart = max(each.abs().nan_to_num().max().item() for each in differ)
    if apart > SAME * first.abs().nan_to_num().max().item():
        raise ValueError(
            f"two readings of the same states differ by {apart:.3g}: the read-out draws random "
            "numbers or mixes the states of a batch, as in training mode. Call .eval() on it."
        )
