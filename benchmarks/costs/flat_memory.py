"""Memory of what trains on a stream: the reservoir, and the whole autoencoder fitter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from benchmarks.costs.measuring import megabytes, peak_bytes, verdict
from torchkoopman.fitting.autoencoder import AutoencoderFitter
from torchkoopman.fitting.replay import Reservoir
from torchkoopman.observe.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODULE = "benchmarks.costs.flat_memory"
LAYERS, FEATURES, BATCH = 3, 64, 500
BUDGET = 4 * 2**20
"""Bytes of the reservoir: full before the short stream ends, so that both streams fill it."""
SLACK = 2e6
"""Bytes that an allocator may keep of what was freed; the long stream is of 768 MB."""
WHAT = {"reservoir": "reservoir of 4 MB", "autoencoder": "autoencoder fitter, the same reservoir"}


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Job → what measures it."""
    long = 100_000 if quick else 1_000_000
    return {
        "reservoir": lambda: growth("reservoir", long),
        "autoencoder": lambda: growth("autoencoder", long),
    }


def growth(name: str, long: int) -> dict[str, Any]:
    """Rows streamed → peak bytes, of a short and a long stream."""
    return {
        str(rows): peak_bytes(MODULE, "stream", name=name, rows=rows) for rows in (10_000, long)
    }


def stream(name: str, rows: int) -> Callable[[], object]:
    """What is to be measured, after a short run that loads what stays loaded."""
    run = {"reservoir": sample, "autoencoder": train}[name]
    run(2 * BATCH)
    return lambda: run(rows)


def sample(rows: int) -> Reservoir:
    """A reservoir offered so many paths, a batch at a time."""
    reservoir = Reservoir(BUDGET, torch.Generator().manual_seed(1))
    for states in paths(rows):
        reservoir.add(torch.stack(states, 1))
        reservoir.sample(128)
    return reservoir


def train(rows: int) -> AutoencoderFitter:
    """An autoencoder that takes one gradient step for every batch that comes."""
    fitter = AutoencoderFitter(32, steps_per_update=1, replay_bytes=BUDGET, calibration=2 * BATCH)
    for states in paths(rows):
        fitter.update(Trajectory.of(*states))
    return fitter


def paths(rows: int) -> Iterator[list[torch.Tensor]]:
    """Batches of states of all layers, drawn one by one: rotations of noise."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=generator)).Q
    for _ in range(rows // BATCH):
        states = [torch.randn(BATCH, FEATURES, generator=generator)]
        for _ in range(LAYERS - 1):
            states.append(torch.tanh(states[-1] @ turn))
        yield states


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: peaks of a short and a long stream."""
    lines = [f"| memory, {LAYERS} layers of {FEATURES} features | rows | peak | goal |"]
    lines.append("|---|---|---|---|")
    for name, result in results.items():
        sizes = {int(rows): size for rows, size in result.items() if rows.isdigit()}
        (short, less), (long, more) = sizes.items()
        met = verdict(more <= 1.1 * less + SLACK)
        peaks = f"{megabytes(less)} → {megabytes(more)}"
        lines.append(f"| {WHAT[name]} | {short} → {long} | {peaks} | flat: {met} |")
    return "\n".join(lines)
