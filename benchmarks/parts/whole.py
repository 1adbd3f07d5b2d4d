"""A residual CNN, a ViT and a decoder looked at whole, fitted and swapped: seconds and accuracy."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks.tables import markdown, seeds, spread
from benchmarks.whole import Network, Span, trained
from torchkoopman.observe.watch import Watch
from torchkoopman.running.baselines import Baselines

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchkoopman.observe.layouts import Layout

KINDS = {"cnn": "residual CNN", "vit": "ViT", "decoder": "decoder of 8 blocks"}
GOAL = 60
"""Processor seconds of a whole look with all its fits and swaps, on one core."""


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """One job for each network and seed; the quick bench has the first network alone."""
    kinds = [*KINDS][:1] if quick else KINDS
    return {
        f"{kind}-{seed}": partial(looked, kind, seed) for kind in kinds for seed in seeds(quick)
    }


def looked(kind: str, seed: int) -> dict[str, Any]:
    """Train a network; then look at it, rank its spans, and fit and swap some of them."""
    network = trained(kind, seed)
    model, train = network.model, network.train
    example = next(iter(train))
    inputs = example if isinstance(example, dict) else example[0]
    start = time.process_time()
    inspection = tk.inspect(model, train, progress=False)
    looking = time.process_time() - start
    ranking = tk.rank_spans(model, train, network.layers, progress=False)
    told: dict[str, Any] = {
        "seed": seed,
        "right": network.right(model),
        "layers": len(inspection.layers),
        "ranked": len(ranking.spans),
        "unranked": len(ranking.unranked),
        "inspect": looking,
        "rank": time.process_time() - start - looking,
        "spans": {f"{s.start} → {s.end}": replaced(network, s, inputs) for s in network.spans},
    }
    fits = sum(span["seconds"] for span in told["spans"].values())
    return told | {"total": told["inspect"] + told["rank"] + fits}


def replaced(network: Network, span: Span, inputs: Any) -> dict[str, Any]:
    """One span fitted and swapped, beside the ridge map and the skip in the same place."""
    model, train, ends = network.model, network.train, [span.start, span.end]
    start = time.process_time()
    fitted = tk.fit(model, train, ends, progress=False, **span.options)
    edited = tk.swap(model, fitted, example_inputs=inputs)
    seconds = time.process_time() - start
    record = tk.swap_history(edited)[-1]
    baselines = Baselines()
    Watch(model, ends, span.options.get("layout")).stream(train, baselines)
    weight, bias = baselines.maps(fitted.latent)["ridge map"]
    first, last = (fitted.views[layer].layout for layer in ends)
    put_in: dict[str, nn.Module] = {"ridge": Mapped(weight.float(), bias.float(), first, last)}
    if first == last:
        put_in["skip"] = nn.Identity()
    right = {
        name: network.right(tk.swap(model, module, span.start, span.end, example_inputs=inputs))
        for name, module in put_in.items()
    }
    return {
        "seconds": seconds,
        "right": network.right(edited),
        "ridge": right["ridge"],
        "skip": right.get("skip"),
        "r2": fitted.record.held_out[span.end],
        "outside": fitted.record.outside,
        "removed": record.removed,
        "added": record.added,
    }


class Mapped(nn.Module):
    """An affine map between the outputs of two layers, in the layouts in which they were read."""

    def __init__(self, weight: Tensor, bias: Tensor, first: Layout, last: Layout) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], len(weight))
        with torch.no_grad():
            self.linear.weight.copy_(weight)
            self.linear.bias.copy_(bias)
        self.first, self.last = first, last

    def forward(self, output: Tensor) -> Tensor:
        """Output of the one layer to that of the other."""
        return self.last.to_output(self.linear(self.first.to_state(output)))


def table(results: dict[str, dict[str, Any]]) -> str:
    """A row for each span, and below it what a whole look took."""
    rows, told = [], []
    for kind, name in KINDS.items():
        runs = [run for job, run in results.items() if job.startswith(f"{kind}-")]
        if not runs:
            continue
        for span in runs[0]["spans"]:
            own = [run["spans"][span] for run in runs]

            def percent(key: str, own: list[dict[str, Any]] = own) -> str:
                known = [100 * each[key] for each in own if each[key] is not None]
                return spread(known, 1) if known else "–"

            outside = [max(each["outside"].values(), default=0.0) for each in own]
            numbers = (
                round(sum(each[key] for each in own) / len(own)) for key in ("removed", "added")
            )
            rows.append(
                [
                    name,
                    span,
                    spread([100 * run["right"] for run in runs], 1),
                    percent("right"),
                    percent("ridge"),
                    percent("skip"),
                    spread([each["r2"] for each in own], 3),
                    spread([100 * each for each in outside], 1) if any(outside) else "–",
                    " → ".join(f"{each:,}" for each in numbers),
                    spread([each["seconds"] for each in own], 1),
                ]
            )
        worst = max(run["total"] for run in runs)
        met = "met" if worst <= GOAL else "MISSED"
        looking, ranking = (spread([run[key] for run in runs], 1) for key in ("inspect", "rank"))
        first = runs[0]
        told.append(
            f"* {name}: inspect takes {looking} s, rank_spans {ranking} s ({first['ranked']} spans "
            f"ranked, {first['unranked']} listed as not comparable), with all fits and swaps "
            f"{worst:.1f} s at most; goal {GOAL} s: {met}."
        )
    head = ["network", "span", "network %", "swapped %", "ridge %", "skip %", "R²"]
    head += ["outside %", "numbers", "fit and swap, s"]
    return markdown(head, rows) + "\n\n" + "\n".join(told)
