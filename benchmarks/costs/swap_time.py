"""Time of ``tk.swap``, in forward passes: ``python -m benchmarks.costs.swap_time [file.json]``.

Medians of processor seconds after warm-up, on one thread, with memory that the process keeps, or
with ``--fresh`` memory that the system gives anew for each tensor, as in a first swap. Left to
itself the C library does either, by chance: for the 1 GB model a matter of seconds. The script uses
only what every version of ``tk.swap`` has, so the folder also runs in a checkout of an earlier
commit. With a file it writes its seconds there, and if the file has some, it prints how many times
as long it took now.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import torchkoopman as tk
from benchmarks.costs.swap_memory import Subject

if TYPE_CHECKING:
    from collections.abc import Callable

WARM, REPEATS = 2, 7
LARGE = 1000
"""Megabytes of the model of ``swap_memory``; it is swapped five times after two warm-ups."""
GOAL = 2.0
"""Times as long as at the commit before the proof looked at everything that crosses (a5c51fd)."""


@dataclass(frozen=True)
class Subjects:
    """A model, the layer to put in, the span, and an example."""

    model: nn.Module
    layer: nn.Module
    span: tuple[str, str]
    example: Any
    ways: tuple[str, ...] = ("fx", "export", "eager")
    large: bool = False

    def swap(self, way: str) -> nn.Module:
        """The edited network."""
        return tk.swap(self.model, self.layer, *self.span, how=way, example_inputs=self.example)

    @torch.no_grad()
    def forward(self) -> object:
        """One forward pass on the example."""
        keyed = isinstance(self.example, dict)
        return self.model(**self.example) if keyed else self.model(self.example)


def mlp() -> Subjects:
    """Twelve layers, 64 wide, a batch of 32."""
    blocks = (nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(12))
    return Subjects(
        nn.Sequential(*blocks).eval(), nn.Linear(64, 64), ("2", "8"), torch.rand(32, 64)
    )


def bert() -> Subjects:
    """Six layers, 128 wide, a batch of 4 × 16 tokens with a mask."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=256,
        vocab_size=1000,
    )
    tokens = torch.randint(1000, (4, 16))
    example = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    span = ("encoder.layer.1", "encoder.layer.4")
    model: nn.Module = transformers.BertModel(config)
    model.eval()
    return Subjects(model, nn.Linear(128, 128), span, example, ("export", "eager"))


def large() -> Subjects:
    """The model of ``swap_memory``."""
    subject = Subject(LARGE)
    model, layer, batch = subject.model, subject.layer, subject.batch
    return Subjects(model, layer, ("blocks.8", "blocks.16"), batch, large=True)


MODELS: dict[str, Callable[[], Subjects]] = {"MLP": mlp, "BERT": bert, "1 GB": large}


def memory(fresh: bool) -> None:
    """Take every large tensor's memory fresh from the system, or give none back, where libc can."""
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4
    options = {mmap_threshold: 2**20} if fresh else {trim_threshold: -1, mmap_max: 0}
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)


def seconds(work: Callable[[], object], warm: int, repeats: int) -> float:
    """The median."""
    found = []
    for _ in range(warm + repeats):
        gc.collect()  # models are freed by it
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found[warm:])


def measure(chosen: list[str]) -> dict[str, dict[str, float]]:
    """Model and way → seconds of a swap and of a forward pass."""
    found = {}
    for name in chosen:
        torch.manual_seed(0)
        subject = MODELS[name]()
        forward = seconds(subject.forward, 3, 20)
        for way in subject.ways:
            counts = (2, 5) if subject.large else (WARM, REPEATS)
            took = seconds(partial(subject.swap, way), *counts)
            found[f"{name}, {way}"] = {"swap": took, "forward": forward}
    return found


def row(name: str, now: dict[str, float], before: dict[str, dict[str, float]]) -> str:
    """Markdown: one model and way."""
    told = f"| {name} | {now['swap']:.3f} | {now['swap'] / now['forward']:.0f} |"
    if name not in before:
        return told
    ratio = now["swap"] / before[name]["swap"]
    return f"{told} {before[name]['swap']:.3f} | {ratio:.2f} | ≤ {GOAL:.0f}: {ratio <= GOAL} |"


def main() -> None:
    """Parse arguments, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="seconds of an earlier commit")
    parser.add_argument("--fresh", action="store_true", help="memory fresh from the system")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    memory(arguments.fresh)
    path: Path | None = arguments.file
    known = path is not None and path.exists()
    before = json.loads(path.read_text()) if path and known else {}
    found = measure(arguments.models)
    more = " seconds before | ratio | goal |" if known else ""
    print(f"| swap | seconds | forward passes |{more}\n" + "|---" * (6 if known else 3) + "|")
    for name, now in found.items():
        print(row(name, now, before))
    if path and not known:
        path.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
