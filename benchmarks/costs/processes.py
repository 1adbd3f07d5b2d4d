"""Two processes beside one: the time of closed forms, and what the autoencoder loses.

Both run in one group of two processes with one thread each: for the time of one process the second
waits. Times are wall times without the start of the processes, the least of several rounds in turn;
on cores that others use too, the processor seconds of the slower process say more. The autoencoder
replaces the blocks of the Yin-Yang networks; what it loses is counted on 20 000 fresh points.

    python -m benchmarks.costs.processes --rounds 10 --networks 5
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

import torchkoopman as tk
from benchmarks.networks import accuracy
from benchmarks.robust_networks import FRESH, TEST_SEED, data, network
from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.networks import ResidualMLP

GOAL, POINTS = 0.65, 0.1
"""Of the wall time of one process; points of accuracy that two may lose more than one."""
BATCHES, ROWS, WIDTH, LAYERS = 160, 500, 256, 3
"""80 000 rows, long enough for what is not shared out, the regression, to weigh little."""

Timed = tuple[float, float]
"""Wall seconds, and processor seconds of this process."""


def together(fitter: Any, batches: list[Trajectory]) -> tk.Surrogate:
    """What the fitter makes of the batches, those of other processes among them."""
    for batch in batches:
        fitter.update(batch)
    surrogate: tk.Surrogate = fitter.sync().surrogate
    return surrogate


def alone(fitter: Any, batches: list[Trajectory]) -> None:
    """The same in one process; the other has nothing to do."""
    for batch in batches:
        fitter.update(batch)
    if batches:
        fitter.surrogate  # noqa: B018


def timed(work: Callable[[], object]) -> Timed:
    """How long it takes, after all have come."""
    dist.barrier()
    wall, processor = time.perf_counter(), time.process_time()
    work()
    processor = time.process_time() - processor
    dist.barrier()
    return time.perf_counter() - wall, processor


def closed_forms(rank: int, rounds: int) -> None:
    """The ratio of times, for DMD and for EDMD with 500 features."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        Trajectory.of(*(torch.randn(ROWS, WIDTH, generator=generator) for _ in range(LAYERS)))
        for _ in range(20)
    ] * (BATCHES // 20)
    sample = Trajectory.concatenate(batches[:8])
    makers: dict[str, Callable[[], Any]] = {
        "DMD": tk.DMDFitter,
        "EDMD": lambda: tk.EDMDFitter(dynamics="span").calibrate(sample),
    }
    for name, make in makers.items():
        one, two = [], []
        for _ in range(rounds + 1):
            fitters = make(), make()
            one.append(timed(partial(alone, fitters[0], [] if rank else batches)))
            two.append(timed(partial(together, fitters[1], batches[rank::2])))
        everyone: list[Any] = [None, None]
        dist.all_gather_object(everyone, (one[1:], two[1:]))
        if rank == 0:
            wall = [min(took for took, _ in each[1:]) for each in (one, two)]
            single = min(took for _, took in one[1:])
            slower = min(
                max(mine, other)
                for (_, mine), (_, other) in zip(everyone[0][1], everyone[1][1], strict=True)
            )
            ratio, processor = wall[1] / wall[0], slower / single
            print(
                f"{name}: {wall[0]:.3f} s in one process, {wall[1]:.3f} s in two: ratio "
                f"{ratio:.2f} (goal {GOAL}: {'met' if ratio <= GOAL else 'MISSED'}); of processor "
                f"seconds in the slower process {processor:.2f}",
                flush=True,
            )


def fitted(
    found: list[tk.Surrogate],
    model: ResidualMLP,
    options: dict[str, Any],
    batches: list[Any],
    group: Any,
) -> None:
    """Fit the blocks on these batches, if there are any or others have some."""
    if batches:
        found.append(tk.fit(model, batches, ["blocks.*"], group=group, **options))


def autoencoders(rank: int, networks: int, folder: Path) -> None:
    """Points lost by two processes less those lost by one, on the same fresh points."""
    me = dist.new_group([rank], use_local_synchronization=True)
    worse, seconds = [], []
    for seed in range(networks):
        if rank == 0:
            network(seed, folder)  # trained, or read
        dist.barrier()
        model, points = network(seed, folder), data(seed, 5000)
        order = torch.randperm(5000, generator=torch.Generator().manual_seed(seed))
        batches = [(points.inputs[each], points.labels[each]) for each in torch.split(order, 250)]

        found: list[tk.Surrogate] = []
        options = {"latent": 64, "tail": model.head, "steps": 1300, "progress": False}
        fit = partial(fitted, found, model, options)
        jobs = [
            partial(fit, batches if rank == 0 else [], me),
            partial(fit, batches[rank::2], None),
        ]
        took = [timed(job)[0] for job in jobs]
        if rank == 0:
            test = data(TEST_SEED + seed, FRESH)
            base = accuracy(model, test)
            lost = [
                100 * (base - accuracy(tk.swap(model, each, example_inputs=test.inputs[:8]), test))
                for each in found
            ]
            worse.append(lost[1] - lost[0])
            seconds.append(took[1] / took[0])
            print(
                f"network {seed}: {lost[0]:.2f} points lost by one process, {lost[1]:.2f} by two; "
                f"wall time {took[0]:.1f} s and {took[1]:.1f} s",
                flush=True,
            )
    if rank == 0:
        error = stdev(worse) / len(worse) ** 0.5 if len(worse) > 1 else float("nan")
        verdict = "met" if mean(worse) <= POINTS else "MISSED"
        print(
            f"autoencoder, {networks} networks, {FRESH} fresh points: two processes lose "
            f"{mean(worse):+.3f} ± {error:.3f} points more than one (goal {POINTS}: {verdict}), "
            f"worst {max(worse):+.2f}; ratio of wall times {mean(seconds):.2f}"
        )


def work(rank: int, port: int, chosen: argparse.Namespace) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    if chosen.rounds:
        closed_forms(rank, chosen.rounds)
    if chosen.networks:
        autoencoders(rank, chosen.networks, chosen.folder)
    dist.destroy_process_group()


def main() -> None:
    """Start two processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("runs/robust"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(work, (port, parser.parse_args()), nprocs=2)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
