"""What checkpoints cost: their share of the time of a fit, measured within one run.

``python -m benchmarks.costs.checkpointing`` streams 10⁶ rows of 512 features with a checkpoint
every 10⁵ of them and prints, for each fitter, the seconds spent on checkpoints as a share of the
rest: by the clock, which others who use the machine prolong, and of the processor. ``--rows`` makes
it shorter; ``--replay`` is the autoencoder's reservoir in MB.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

import torchkoopman as tk
from torchkoopman.running.orders import Passes
from torchkoopman.running.run import Run

WIDTH, BATCH, DISTINCT = 512, 1000, 40


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * WIDTH**-0.5)
    return model


PARTS = (
    (Run, "_save"),
    (Run, "_between"),
    (Passes, "position"),
    (Passes, "_note"),
    (Passes, "_states"),
)
"""What a fit does for its checkpoints alone; one of them may call another."""


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(begun: tuple[float, float]) -> tuple[float, float]:
    clock, processor = now()
    return clock - begun[0], processor - begun[1]


@contextmanager
def timed_checkpoints() -> Iterator[list[tuple[float, float]]]:
    """Seconds of each call and of the processor, those of a call within another left out."""
    seconds: list[tuple[float, float]] = []
    depth = [0]

    def timed(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            begun = now()
            depth[0] += 1
            try:
                return original(*arguments)
            finally:
                depth[0] -= 1
                if not depth[0]:
                    seconds.append(since(begun))

        return call

    with ExitStack() as stack:
        for kind, name in PARTS:
            replaced = timed(getattr(kind, name))
            stack.enter_context(mock.patch.object(kind, name, replaced))
        yield seconds


def measured(
    rows: int, every: int, folder: Path, **options: Any
) -> tuple[Any, Any, tuple[int, int]]:
    """Seconds of the whole fit, of what checkpoints took, and bytes of the last one and of logs."""
    generator = torch.Generator().manual_seed(1)
    distinct = [torch.randn(BATCH, WIDTH, generator=generator) for _ in range(DISTINCT)]
    batches = [distinct[number % DISTINCT] for number in range(rows // BATCH)]
    path = folder / "checkpoint"
    begun = now()
    with timed_checkpoints() as seconds:
        tk.fit(
            network(), batches, ["0", "2"], checkpoint=path, every=every, progress=False, **options
        )
    took = [sum(each) for each in zip(*seconds, strict=True)]
    logs = sum(log.stat().st_size for log in folder.glob("checkpoint.rows-*"))
    return since(begun), took, (path.stat().st_size, logs)


def main(arguments: list[str]) -> float:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--every", type=int, default=10**5)
    parser.add_argument("--replay", type=int, default=128)
    parser.add_argument("--kinds", nargs="*", default=["dmd", "edmd", "autoencoder"])
    chosen = parser.parse_args(arguments)
    kinds: dict[str, dict[str, Any]] = {
        "dmd": {"method": "dmd"},
        "edmd": {"method": "edmd"},
        "autoencoder": {"latent": 64, "replay_bytes": chosen.replay * 2**20},
    }
    worst = 0.0
    for kind in chosen.kinds:
        with tempfile.TemporaryDirectory() as folder:
            whole, seconds, sizes = measured(chosen.rows, chosen.every, Path(folder), **kinds[kind])
        shares = [took / (all_ - took) for all_, took in zip(whole, seconds, strict=True)]
        worst = max(worst, shares[0])
        file, logs = (size / 2**20 for size in sizes)
        print(
            f"{kind:12} {chosen.rows} rows: {chosen.rows // chosen.every} checkpoints, the last of "
            f"{file:.0f} MB and {logs:.0f} MB of logs, took {seconds[0]:.2f} s of {whole[0]:.1f} "
            f"s: {shares[0]:.2%} beside the rest, {shares[1]:.2%} of the processor's time",
            flush=True,
        )
    return worst


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main(sys.argv[1:]) > 0.03)
