"""What following the spectrum costs a training: ``python -m benchmarks.costs.callbacks``.

Four kinds of optimiser steps in turn: without a monitor; with one, but not watched, as most are;
watched; and watched, with a spectrum behind it that goes into an event file. With the monitor's
defaults one step of 20 is watched and one of 200 has a spectrum. The amortised ratio to a plain
step is that of a step not watched, and these shares of what the others cost more.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchkoopman_tensorboard import EventFolder

import torchkoopman as tk
from benchmarks.costs.measuring import one_thread, verdict

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL = 1.15
NEVER = 10**9
DEFAULTS: dict[str, int] = {
    name: inspect.signature(tk.TrainingMonitor).parameters[name].default
    for name in ("sample_every", "log_every")
}
KINDS = {
    "plain": None,
    "not watched": {"sample_every": NEVER, "log_every": NEVER},
    "watched": {"sample_every": 1, "log_every": NEVER},
    "spectrum": {"sample_every": 1, "log_every": 1},
}

WATCHED = {"watched", "spectrum"}


class Job:
    """A model in training: a step of its optimiser, and the layers to follow."""

    def __init__(
        self, model: nn.Module, layers: list[str], loss: Callable[[], Tensor], at_once: int = 1
    ) -> None:
        self.model, self.layers, self.at_once = model, layers, at_once
        self._loss = loss
        self._optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(self) -> None:
        """Forward, backward, update."""
        self._optimiser.zero_grad()
        self._loss().backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()


def perceptron(quick: bool) -> Job:
    """Six layers 256 wide, batches of 128."""
    width, depth = (32, 3) if quick else (256, 6)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    x, y = torch.randn(128, width), torch.randint(10, (128,))
    names = [str(2 * k + 1) for k in range(depth)]
    return Job(model, names, lambda: nn.functional.cross_entropy(model(x), y), at_once=5)


def transformer(quick: bool) -> Job:
    """GPT-2-like: 12 layers 768 wide, 8 texts of 128 tokens."""
    from transformers import GPT2Config, GPT2Model

    depth, width = (2, 32) if quick else (12, 768)
    config = GPT2Config(
        n_layer=depth,
        n_embd=width,
        n_head=width // 16 if quick else 12,
        vocab_size=1000,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    model: nn.Module = GPT2Model(config)
    tokens = torch.randint(1000, (8, 128))
    names = [f"h.{k}" for k in range(depth)]
    return Job(model, names, lambda: model(tokens).last_hidden_state.square().mean())


JOBS: dict[str, Callable[[bool], Job]] = {
    "perceptron, 6 × 256, batches of 128": perceptron,
    "GPT-2-like, 12 × 768, 8 × 128 tokens": transformer,
}


def measure(job: Job, turns: int, folder: Path) -> dict[str, float]:
    """Processor seconds of each kind of step: the plain one's, and medians of ratios to it."""
    monitors: dict[str, tk.TrainingMonitor] = {}
    with tk.TrainingMonitor(job.layers, sample_every=1, log_every=NEVER).attach(job.model) as first:
        for _ in range(3):
            job.step()
            first.step()
        state = first.state_dict()
        first.close(quiet=True)
    for kind, options in KINDS.items():
        if options is not None:
            log = EventFolder(folder / kind)
            monitor = tk.TrainingMonitor(job.layers, log, **options)
            monitors[kind] = monitor.load_state_dict({**state, "watching": kind in WATCHED})
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(turns + 1):
        for kind in (list(KINDS) * 2)[turn % 4 : turn % 4 + 4]:
            # Alone on the model: attaching is once for a training, and is not timed.
            attached = None if kind == "plain" else monitors[kind].attach(job.model)
            start = time.process_time()
            for _ in range(job.at_once):
                job.step()
                if attached is not None:
                    attached.step()
            if turn:
                seconds[kind].append((time.process_time() - start) / job.at_once)
            if attached is not None:
                attached.close(quiet=True)
    plain = seconds["plain"]
    ratios = {
        kind: median(a / b for a, b in zip(seconds[kind], plain, strict=True)) for kind in KINDS
    }
    return {**ratios, "plain": median(plain)}


def amortised(found: dict[str, float]) -> float:
    """A step with the monitor's defaults, as a ratio to a plain one."""
    rest = found["not watched"]
    watched = (found["watched"] - rest) / DEFAULTS["sample_every"]
    spectrum = (found["spectrum"] - found["watched"]) / DEFAULTS["log_every"]
    return rest + watched + spectrum


def table(results: dict[str, dict[str, float]], full: bool) -> str:
    """Markdown."""
    lines = [
        "| a step of | plain, s | not watched | watched | with a spectrum | amortised | goal |"
    ]
    lines.append("|---" * 7 + "|")
    for name, found in results.items():
        ratio = amortised(found)
        kinds = " | ".join(f"{found[kind]:.2f}×" for kind in list(KINDS)[1:])
        goal = f"≤ {GOAL}: {verdict(ratio <= GOAL, full)}"
        lines.append(f"| {name} | {found['plain']:.4f} | {kinds} | **{ratio:.3f}×** | {goal} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small models, to see that it runs")
    parser.add_argument("--turns", type=int, default=40, help="of the perceptron; 1/5 of GPT-2")
    given = parser.parse_args(arguments)
    results = {}
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        for place, (name, make) in enumerate(JOBS.items()):
            torch.manual_seed(0)
            turns = max(2, given.turns // (5 if place else 1))
            results[name] = measure(make(given.quick), turns, Path(folder) / str(place))
    print(table(results, not given.quick))
    return results


if __name__ == "__main__":
    sys.exit(None if main() else 1)
