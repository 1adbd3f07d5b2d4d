"""Memory and time of ``tk.swap`` on a large model: ``python -m benchmarks.costs.swap_memory``.

A third of 24 residual blocks is replaced by one linear layer. The memory is what a fresh process
grows by during the swap, at its peak (VmHWM of ``/proc/self/status``, set back through
``/proc/self/clear_refs``), the returned model included, as a ratio to the size of the model's
parameters. A small swap by the same way goes before, so that what is imported does not count.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks.costs.measuring import megabytes, one_thread, peak_bytes, verdict

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "benchmarks.costs.swap_memory"
WAYS = ("fx", "export", "eager")
BLOCKS, START, END = 24, "blocks.8", "blocks.16"
BATCH = 2
FULL, QUICK = 1000, 200
"""Megabytes (10⁶ bytes) of float32 parameters."""
GOAL = 1.3
"""Added peak by the model's size: one copy, and what replaces the span."""


class Block(nn.Module):
    """``x + W tanh(V norm(x))``, twice as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.outer(torch.tanh(self.inner(self.norm(x))))
        return y


class Network(nn.Module):
    """Blocks of one width and a linear head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width) for _ in range(BLOCKS)))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(x))
        return y


class Subject:
    """A network of about so many megabytes, a batch, and the layer to put in."""

    def __init__(self, size: float) -> None:
        self.width = round((size * 1e6 / 4 / BLOCKS / 4) ** 0.5)  # 4 width² numbers per block
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = Network(self.width).eval()
            self.layer = nn.Linear(self.width, self.width)
            self.batch = torch.randn(BATCH, self.width)

    @property
    def bytes(self) -> int:
        """Of all parameters."""
        return sum(4 * parameter.numel() for parameter in self.model.parameters())

    def swap(self, way: str) -> nn.Module:
        """The edited network."""
        return tk.swap(self.model, self.layer, START, END, how=way, example_inputs=self.batch)

    @torch.no_grad()
    def forward(self) -> Tensor:
        """One forward pass."""
        output: Tensor = self.model(self.batch)
        return output


def swapping(way: str, size: float) -> Callable[[], object]:
    """A swap to be measured, after a small one that loads what stays loaded."""
    Subject(0.1).swap(way)
    subject = Subject(size)
    subject.forward()
    return lambda: subject.swap(way)


def added(way: str, size: float) -> float:
    """Peak of the memory that a swap adds, by the size of the model."""
    return peak_bytes(MODULE, "swapping", way=way, size=size) / Subject(size).bytes


def measure(way: str, size: float) -> dict[str, Any]:
    """Added peak by the model's size, and seconds of a swap and of a forward pass."""
    Subject(0.1).swap(way)
    subject = Subject(size)
    with one_thread():
        subject.forward()
        forward = min(_seconds(subject.forward) for _ in range(5))
        took = _seconds(lambda: subject.swap(way))
    ratio = peak_bytes(MODULE, "swapping", way=way, size=size) / subject.bytes
    return {"bytes": subject.bytes, "added": ratio, "seconds": took, "forward": forward}


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Way → what measures it."""
    size = QUICK if quick else FULL
    return {way: lambda way=way: measure(way, size) for way in WAYS}  # type: ignore[misc]


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: a row for each way."""
    size = megabytes(max((result["bytes"] for result in results.values()), default=None))
    lines = [
        f"| swap in a model of {size} | added peak ÷ model | seconds | forward passes | goal |"
    ]
    lines.append("|---|---|---|---|---|")
    for way, row in results.items():
        passes, met = row["seconds"] / row["forward"], verdict(row["added"] <= GOAL)
        lines.append(
            f"| {way} | {row['added']:.2f} | {row['seconds']:.2f} | {passes:.0f} | "
            f"≤ {GOAL}: {met} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse arguments, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=FULL, help="size of the model")
    parser.add_argument("ways", nargs="*", help=f"of {', '.join(WAYS)} (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(table({way: measure(way, arguments.megabytes) for way in arguments.ways or WAYS}))


if __name__ == "__main__":
    main()
