"""Cells with a linear read-out on flip-flop trials: what all parts on gated cells train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import trange

import torchkoopman as tk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.flows import FlipFlops

WIDTHS = (100, 100)
"""Hidden layers of F."""
CELLS: dict[str, dict[str, Any]] = {
    "RNN": {"gate": False},
    "mGRU": {},
    "nODE": {"gate": False, "widths": WIDTHS},
    "gnODE": {"widths": WIDTHS},
}
"""Cells that are a ``GatedODECell``, all with α = 1, as in the paper; the GRU is torch's."""
BATCH = 50
LOOKS = 20
"""In so many equal parts of a training loss and gradient norm are averaged."""


class Network(nn.Module):
    """A cell and its linear read-out, run over whole trials."""

    def __init__(
        self, cell: str, states: int, bits: int, widths: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.core, self.gru = None, None
        if cell in CELLS:
            options = dict(CELLS[cell])
            if widths is not None and "widths" in options:
                options["widths"] = widths
            self.core = tk.flows.GatedODECell(bits, states, **options)
        else:
            self.gru = nn.GRU(bits, states)
        self.readout = nn.Linear(states, bits)

    @property
    def size(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def states(self, inputs: Tensor) -> Tensor:
        """``(times, trials, bits)`` → ``(times, trials, states)``."""
        if self.core is not None:
            return self.core.run(inputs)
        assert self.gru is not None
        found: Tensor = self.gru(inputs)[0]
        return found

    def forward(self, inputs: Tensor) -> Tensor:
        """What is read out at each time."""
        out: Tensor = self.readout(self.states(inputs))
        return out

    def resting(self) -> tk.flows.Flow:
        """The flow between pulses, in float64."""
        self.double().eval()
        cell: nn.Module | None = self.core
        if self.gru is not None:
            cell = nn.GRUCell(self.gru.input_size, self.gru.hidden_size).double().eval()
            weights = {k.removesuffix("_l0"): v for k, v in self.gru.state_dict().items()}
            cell.load_state_dict(weights)
        assert cell is not None
        return tk.flows.Flow.of_cell(cell, torch.zeros(self.readout.out_features).double())


@dataclass(frozen=True)
class Training:
    """How a network is trained, the same for all cells of a comparison."""

    rate: float
    iterations: int
    decay: float = 1e-2
    """Of AdamW, whose default it is."""
    cosine: bool = False
    """Whether the rate falls to 0 by a cosine."""
    critical: bool = False
    """Whether weights begin critically scaled."""


def drawn(
    cell: str,
    states: int,
    seed: int,
    trials: FlipFlops,
    training: Training,
    widths: Sequence[int] | None = None,
) -> tuple[Network, list[tuple[float, float]]]:
    """A fresh network of a seed, trained, and its course."""
    torch.manual_seed(seed)
    network = Network(cell, states, trials.inputs.shape[2], widths)
    if training.critical:
        assert network.core is not None, "the critical start is of a GatedODECell"
        network.core.critical_()
    return network, trained(network, trials, training, seed, f"{cell} {states}")


def trained(
    network: Network, trials: FlipFlops, training: Training, seed: int, name: str = ""
) -> list[tuple[float, float]]:
    """AdamW on the mean squared error, in batches of the seed; leaves it in evaluation mode.

    Returns:
        Mean loss and mean gradient norm before clipping, of each of ``LOOKS`` parts of the
        training. It ends where the loss is no number.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.rate, weight_decay=training.decay
    )
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.iterations)
    generator = torch.Generator().manual_seed(seed)
    told: list[tuple[float, float]] = []
    for _ in trange(training.iterations, desc=f"{name} at {training.rate}", leave=False):
        rows = torch.randperm(trials.inputs.shape[1], generator=generator)[:BATCH]
        loss = (network(trials.inputs[:, rows]) - trials.targets[:, rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if training.cosine:
            falling.step()
        told.append((loss.item(), norm.item()))
        if not math.isfinite(told[-1][0]):  # its weights are no numbers from here on
            break
    network.eval()
    parts = torch.tensor(told, dtype=torch.float64).tensor_split(min(LOOKS, len(told)))
    return [(a, b) for a, b in (part.mean(0).tolist() for part in parts)]


@torch.no_grad()
def error(network: Network, trials: FlipFlops) -> float:
    """Mean squared error over all times, trials and bits; infinite where it is not a number."""
    found: Tensor = (network(trials.inputs) - trials.targets).square().mean()
    return found.nan_to_num(torch.inf).item()
