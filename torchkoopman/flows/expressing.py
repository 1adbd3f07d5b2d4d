"""Expressivity: how well flows of a class follow trajectories that are drawn at random.

After Kim et al. (ICML 2023), who compare cells by it; their formula is not printed in the paper, so
what is measured here is ours: one less the normalised mean squared error of the best fit found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Callable

_RIDGE = 1e-4
"""Of the read-out, relative to the mean variance of the states: what a flow hardly does counts as
not done."""
_JITTER = 1e-6
"""Added to the kernel's diagonal, so that it can be factored."""


@dataclass(frozen=True)
class Expressivity(Tabular):
    """What flows of a class explain of random trajectories, beside what needs no flow; print it.

    All scores are of the trajectories that were fitted: they say what a class can express, not
    what it would predict.

    Example:
        >>> def cell(states):
        ...     return tk.flows.GatedODECell(0, states, widths=[16])
        >>> print(tk.flows.expressivity(cell, 2, draws=2, steps=20, progress=False))
        share of the variance of 2 random trajectories, 2 dimensions, 50 times
                                             mean    least
        the mean of a trajectory           0.0000   0.0000
        read-out of the untrained flow  ...
        trained flow                    ...
        the trajectory without noise       1.0000   1.0000
    """

    scores: Tensor
    """1 - NMSE of the trained flows; float64, ``(draws,)``."""
    untrained: Tensor
    """The same before the training, where the read-out alone is fitted; ``(draws,)``."""
    ceiling: Tensor
    """The same of the trajectories themselves without the noise that was added; ``(draws,)``."""
    states: int
    """Dimension of the trajectories and of the flow's state."""
    times: int
    """Points of a trajectory."""

    def table(self) -> Table:
        """The mean and the least of the draws, from the trivial to the best there could be."""
        known = {
            "the mean of a trajectory": torch.zeros_like(self.scores),
            "read-out of the untrained flow": self.untrained,
            "trained flow": self.scores,
            "the trajectory without noise": self.ceiling,
        }
        rows = [[name, f"{each.mean():.4f}", f"{each.min():.4f}"] for name, each in known.items()]
        above = (
            f"share of the variance of {len(self.scores)} random trajectories, {self.states} "
            f"dimensions, {self.times} times"
        )
        return Table(["", "mean", "least"], rows, [above])


@torch.inference_mode(False)
@torch.enable_grad()
def expressivity(
    make: Callable[[int], nn.Module],
    states: int = 6,
    *,
    times: int = 50,
    length: float = 10.0,
    noise: float = 0.0,
    draws: int = 5,
    steps: int = 300,
    learning_rate: float = 1e-2,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Expressivity:
    """How well a flow of a class, without input, follows random trajectories of its own dimension.

    For each draw a fresh cell and its first state are trained by Adam to follow one trajectory of a
    Gaussian process with a squared-exponential kernel, which a ridge map reads out of the states,
    solved anew in each step; the best step counts. Global random state is as before in the end.

    Example:
        >>> def cell(states):
        ...     return tk.flows.GatedODECell(0, states, widths=[32], alpha=0.5)
        >>> told = tk.flows.expressivity(cell, 3, draws=1, steps=200, progress=False)
        >>> told.scores.mean() > told.untrained.mean()
        tensor(True)

    Args:
        make: from the width of the state to a fresh cell, ``cell(input, state) → state``; its
            inputs (of the width ``cell.inputs`` or ``cell.input_size``, or none) are 0.
        states: the dimension.
        times: points of a trajectory.
        length: of the kernel, in steps of time: the smaller, the more a trajectory turns.
        noise: deviation of the noise that is added to trajectories of deviation 1.
        draws: trajectories, each with a cell of its own.
        steps: gradient steps of each.
        learning_rate: of Adam.
        generator: draws trajectories and the seeds of the cells; None for one seeded with 0.
        progress: show a bar and print the table.

    Raises:
        ValueError: options out of range, or a cell that gives states of another shape.
    """
    counts = {"states": states, "draws": draws, "steps": steps}
    if min(counts.values()) < 1 or times < 2 or not (length > 0 and learning_rate > 0):
        said = ", ".join(f"{name}={value}" for name, value in counts.items())
        raise ValueError(
            f"expressivity() got {said}, times={times}, length={length} and learning_rate="
            f"{learning_rate}; give 1 or more of each, two times or more, and positive numbers."
        )
    if not noise >= 0:
        raise ValueError(f"expressivity() got noise={noise}; give 0 or more.")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    found: list[tuple[float, float, float]] = []
    with tqdm(total=draws * steps, desc="expressivity", disable=not progress) as bar:
        for _ in range(draws):
            clean = _trajectory(times, states, length, generator)
            target = clean + noise * torch.randn(
                clean.shape, generator=generator, dtype=clean.dtype
            )
            seed = int(torch.randint(2**31, (1,), generator=generator))
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                follower = Follower(make(states), states, times)
                before, after = follower.fit(target, steps, learning_rate, bar)
            found.append((after, before, 1 - _left(clean, target).item()))
    trained, untrained, ceiling = torch.tensor(found, dtype=torch.float64).unbind(1)
    told = Expressivity(trained, untrained, ceiling, states, times)
    if progress:
        tqdm.write(str(told))
    return told


class Follower(nn.Module):
    """A cell without input, from a first state on."""

    def __init__(self, cell: nn.Module, states: int, times: int) -> None:
        super().__init__()
        self.cell, self.times = cell, times
        self.first = nn.Parameter(0.1 * torch.randn(1, states))
        width = getattr(cell, "inputs", getattr(cell, "input_size", 0))
        self.register_buffer("nothing", torch.zeros(1, width))

    def states(self) -> Tensor:
        """``(times, states)``, the first one included.

        Raises:
            ValueError: the cell gives another shape.
        """
        state: Tensor = self.first
        found: list[Tensor] = []
        for _ in range(self.times):
            found.append(state)
            state = self.cell(self.nothing, state)
            if not isinstance(state, Tensor) or state.shape != self.first.shape:
                what = tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__
                raise ValueError(
                    f"the {type(self.cell).__name__} takes a state {tuple(self.first.shape)} and "
                    f"gives {what}; a cell must give a state of the same shape, as nn.GRUCell does."
                )
        return torch.cat(found)

    def fit(
        self, target: Tensor, steps: int, learning_rate: float, bar: tqdm[Any]
    ) -> tuple[float, float]:
        """Scores before the training and at its best, each with the best read-out there is."""
        optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)
        scores = []
        for _ in range(steps):
            left = _left(_read(self.states(), target), target)
            scores.append(1 - left.item())
            optimizer.zero_grad()
            torch.autograd.backward(left)
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimizer.step()
            bar.update()
        with torch.no_grad():
            scores.append(1 - _left(_read(self.states(), target), target).item())
        known = [score for score in scores if math.isfinite(score)]
        return scores[0], max(known, default=-math.inf)


def _read(states: Tensor, target: Tensor) -> Tensor:
    """The ridge map of the states that is nearest to the target; differentiable, float64."""
    design = states.double() - states.double().mean(0)
    square = design.T @ design
    ridge = (_RIDGE * square.diagonal().mean()).clamp_min(torch.finfo(square.dtype).tiny)
    centre = target.mean(0)
    kept = square + ridge * torch.eye(len(square), dtype=square.dtype)
    read: Tensor = centre + design @ torch.linalg.solve(kept, design.T @ (target - centre))
    return read


def _trajectory(times: int, states: int, length: float, generator: torch.Generator) -> Tensor:
    """One trajectory of the Gaussian process, float64, ``(times, states)``."""
    clock = torch.arange(times, dtype=torch.float64) / length
    kernel = torch.exp(-(clock[:, None] - clock).square() / 2)
    factor = torch.linalg.cholesky(kernel + _JITTER * torch.eye(times, dtype=torch.float64))
    drawn = torch.randn(times, states, generator=generator, dtype=torch.float64)
    found: Tensor = factor @ drawn
    return found


def _left(predicted: Tensor, target: Tensor) -> Tensor:
    """NMSE: 0 is perfect, 1 the mean over time."""
    error: Tensor = (predicted - target).square().sum()
    return error / (target - target.mean(0)).square().sum()
