"""Cost of watching a GPT-2-like model (12 layers, 768 wide), as its forward pass with hooks.

Listeners, cheapest first: one that does nothing; exact second moments of all 12 layers on all
tokens (each layer's mean and own covariance) with products in float32 and in float64, the default;
the DMD fitter on 8 of 128 positions, and on all, which keeps 42 covariances between layers.

``python -m benchmarks.costs.watching`` prints times for this model and for a small one, 3 × 256.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.costs.measuring import in_turn, megabytes, peak_bytes, ratios, verdict
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.probes import attach

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchkoopman.observe.trajectory import Trajectory

MODULE = "benchmarks.costs.watching"
GOALS = {"nothing": 1.02, "moments, float32": 1.10, "moments, float64": 1.10}
LISTENERS = {
    "plain": "the model alone",
    "nothing": "attached, a listener that does nothing",
    "moments, float32": "exact moments of every layer, all tokens, products in float32",
    "moments, float64": "the same in float64, the default",
    "DMD, 8 positions": "`DMDFitter`, 8 of 128 positions",
    "DMD": "`DMDFitter`, all tokens: covariances between layers too",
}


class Watched:
    """The model, a batch, and its forward pass under each listener."""

    def __init__(self, quick: bool) -> None:
        from transformers import GPT2Config, GPT2Model

        self.depth, width = (3, 256) if quick else (12, 768)
        config = GPT2Config(
            n_layer=self.depth,
            n_embd=width,
            n_head=width // 64,
            vocab_size=1000,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model: nn.Module = GPT2Model(config)
        self.model = model.eval()
        generator = torch.Generator().manual_seed(0)
        self.tokens: Tensor = torch.randint(1000, (8, 128), generator=generator)
        self.layers = [f"h.{block}" for block in range(self.depth)]

    def runs(self, name: str, forwards: int = 1) -> Callable[[], object]:
        """Forward passes with a listener that lives on from call to call."""
        if name == "plain":
            return lambda: self.forward(forwards)
        listener = self._listener(name)
        positions = 8 if name == "DMD, 8 positions" else None

        def watched() -> None:
            with attach(self.model, self.layers, positions=positions) as probe:
                probe.stream_to(listener)
                self.forward(forwards)

        return watched

    @torch.no_grad()
    def forward(self, times: int) -> None:
        """The model on the batch, so many times."""
        for _ in range(times):
            self.model(self.tokens)

    def _listener(self, name: str) -> Callable[[Trajectory], object]:
        if name == "nothing":
            return lambda trajectory: None
        if name.startswith("DMD"):
            return DMDFitter().update
        precision = torch.float32 if name.endswith("float32") else torch.float64
        moments = Moments([(layer, layer) for layer in self.layers], precision=precision)
        return lambda trajectory: moments.update(trajectory.rows())


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Job → what measures it; none without transformers, which builds the model."""
    if find_spec("transformers") is None:
        return {}
    return {
        "time": lambda: times(quick),
        "memory": lambda: memory(quick),
    }


def times(quick: bool) -> dict[str, Any]:
    """Times of a forward pass under each listener, in turn."""
    watched = Watched(quick)
    runs = {name: watched.runs(name) for name in LISTENERS}
    return {"layers": watched.depth, "times": in_turn(runs, turns=3 if quick else 9)}


def overhead(turns: int = 15) -> str:
    """What watching costs by itself, and with moments, in a small model and in the full one."""
    names = ["plain", "nothing", "moments, float32", "moments, float64"]
    small, full = (
        in_turn({name: watched.runs(name, forwards) for name in names}, turns)
        for watched, forwards in ((Watched(quick=True), 10), (Watched(quick=False), 1))
    )
    lines = ["| watching, time ÷ plain (ratio of least times) | 3 × 256 | 12 × 768 | goal |"]
    lines.append("|---|---|---|---|")
    for name in names[1:]:
        met = full[name]["ratio"] <= GOALS[name] if name in GOALS else None
        goal = "" if met is None else f"≤ {GOALS[name]:.2f}: {verdict(met)}"
        row = (LISTENERS[name], ratios(small, name), ratios(full, name), goal)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def warm(quick: bool, name: str, forwards: int) -> Callable[[], object]:
    """Forward passes to come, after one that allocates what stays."""
    watched = Watched(quick)
    watched.forward(1)
    return watched.runs(name, forwards)


def memory(quick: bool) -> dict[str, Any]:
    """Listener → peak bytes over few and over more forward passes."""
    few, many = (2, 8) if quick else (2, 12)
    return {
        name: {
            str(forwards): peak_bytes(MODULE, "warm", quick=quick, name=name, forwards=forwards)
            for forwards in (few, many)
        }
        for name in ("moments, float32", "DMD")[: 1 if quick else 2]
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown; ratios are medians over turns, those of least times in brackets."""
    rows, sizes = results.get("time", {}).get("times", {}), results.get("memory", {})
    if not rows and not sizes:
        return "Watching: transformers is not installed."
    lines = ["| watching | time ÷ plain | peak memory, few → more batches | goal |"]
    lines.append("|---|---|---|---|")
    full = results.get("time", {}).get("layers") == 12
    for name, said in LISTENERS.items():
        peaks = sizes.get(name, {})
        memory = " → ".join(f"{megabytes(peaks[count])} ({count})" for count in peaks)
        goal = ""
        if name in GOALS and name in rows:
            goal = f"≤ {GOALS[name]:.2f}: {verdict(rows[name]['ratio'] <= GOALS[name], full)}"
        if peaks:
            least, most = peaks.values()
            goal += f"{'; ' if goal else ''}flat: {verdict(most <= 1.1 * least)}"
        lines.append(f"| {said} | {ratios(rows, name)} | {memory} | {goal} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(overhead())
