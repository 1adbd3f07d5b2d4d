"""What ``tests/test_distributed.py`` runs in every process: ``torchrun … <case> <folder>``."""

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import torchkoopman as tk
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.launched import initialised
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.observe.processes import Processes
from torchkoopman.observe.totals import labelled_total_of, total_of
from torchkoopman.observe.trajectory import Trajectory

WIDTHS = {"0": 4, "1": 4, "2": 4}
PAIRS = layer_pairs(("0", "1", "2"), "all")


def data() -> tuple[list[Tensor], Tensor]:
    """All rows of all processes: three float32 layers and labels."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=generator) + 3
    turn = torch.randn(4, 4, generator=generator) / 2
    return [x, torch.tanh(x @ turn), torch.sin(x)], torch.arange(400) % 3


def shard(rank: int, case: str) -> Tensor:
    """The rows of a process: uneven shards, and class 2 in process 0 alone."""
    _, labels = data()
    if case == "empty":
        first = torch.ones(400, dtype=torch.bool)
    else:
        first = (torch.arange(400) < 130) | (labels == 2)
    return (first if rank == 0 else ~first).nonzero()[:, 0]


def batches(rows: Tensor) -> tuple[Tensor, ...]:
    """Batches of a shard; a process without rows never gets to see a batch."""
    return rows.split(60) if len(rows) else ()


def trajectory(rows: Tensor) -> Trajectory:
    states, labels = data()
    return Trajectory.of(*(state[rows] for state in states), labels=labels[rows])


def moments(rows: Tensor, rank: int) -> dict[str, Tensor]:
    found = Moments(PAIRS)
    for part in batches(rows):
        found.update(trajectory(part).rows())
    if initialised():
        found = total_of(found, WIDTHS, Processes(), torch.device("cpu"))
    return found.tensors()


def labelled(rows: Tensor, rank: int) -> dict[str, Tensor]:
    found = LabelledMoments(PAIRS)
    for part in batches(rows):
        found.update(trajectory(part).rows(), trajectory(part).row_labels())
        found.update({name: value + 1 for name, value in trajectory(part).rows().items()})
    if initialised():
        found = labelled_total_of(found, range(3), WIDTHS, Processes(), torch.device("cpu"))
    total = found.total().tensors()
    return found.tensors() | {f"total/{name}": tensor for name, tensor in total.items()}


def tensors(surrogate: tk.Surrogate) -> dict[str, Tensor]:
    assert surrogate.statistics is not None
    return dict(surrogate.state_dict()) | surrogate.statistics.tensors()


def dmd(rows: Tensor, rank: int) -> dict[str, Tensor]:
    fitter = tk.DMDFitter()
    for part in batches(rows):
        fitter.update(trajectory(part))
    return tensors(fitter.sync().surrogate)


def edmd(rows: Tensor, rank: int) -> dict[str, Tensor]:
    """Calibrated with the same trajectory in every process."""
    fitter = tk.EDMDFitter(tk.RandomFeatures(30)).calibrate(trajectory(torch.arange(0, 400, 2)))
    for part in batches(rows):
        fitter.update(trajectory(part))
    return tensors(fitter.sync().surrogate)


def different(rows: Tensor, rank: int) -> dict[str, Tensor]:
    """Other random features in every process: nothing that could be merged."""
    generator = torch.Generator().manual_seed(rank)
    fitter = tk.EDMDFitter(tk.RandomFeatures(30), generator=generator)
    fitter.calibrate(trajectory(torch.arange(0, 400, 2))).update(trajectory(rows))
    try:
        fitter.sync()
    except (ValueError, RuntimeError):
        return {"refused": torch.tensor(True)}
    return {"refused": torch.tensor(False)}


CASES: dict[str, Callable[[Tensor, int], dict[str, Tensor]]] = {
    "moments": moments,
    "labelled": labelled,
    "dmd": dmd,
    "edmd": edmd,
    "different": different,
}


def main(names: list[str], folder: Path) -> None:
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=15))
    rank = dist.get_rank()
    results: dict[str, Any] = {}
    for name in names:
        case, _, kind = name.partition(":")
        results[name] = CASES[case](shard(rank, kind), rank)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[2:], Path(sys.argv[1]))
