"""Cost of the operator within a training step of the Koopman autoencoder, family by family.

The operator's part is timed by itself: forward on the rows and as often as the losses ask for,
backward to its parameters and to the latent states, and AdamW's step on its parameters. The rest of
a step is that of the trainer with the cheapest family, less that family's part. Beside them stands
the authors' parametrisation (arXiv 2505.12809), ``K = exp(X / k)^k`` formed in every step.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.costs.measuring import in_turn, one_thread, verdict
from torchkoopman.fitting.losses import LossWeights
from torchkoopman.fitting.trainer import Trainer
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operator import Operator
from torchkoopman.koopman.operators import FAMILIES, operator_from_config

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL = 0.05
CHEAPEST = "BlockDiagonal"
AUTHORS = "authors' exp(X / k)^k"
SIZES = {"latent": 800, "hidden": 1000, "features": 784, "batch": 512}
SMALL = {"latent": 64, "hidden": 96, "features": 64, "batch": 128}


class Exponential(Operator):
    """The authors' parametrisation: the power of an exponential, formed whenever it is applied."""

    def __init__(self, latent: int, steps: int = 1, power: int = 10) -> None:
        super().__init__(latent, steps)
        self.power = power
        self.exponent = nn.Parameter(1e-3 * torch.ones(latent, latent))

    def matrix(self, time: float = 1.0) -> Tensor:
        """``exp(time X / k)^k``."""
        root = torch.matrix_exp(time * self.exponent / self.power)
        power: Tensor = torch.linalg.matrix_power(root, self.power)
        return power


def jobs(quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Job → what measures it: the ends of a span alone, and four layers in time."""
    size, turns = (SMALL, 3) if quick else (SIZES, 5)
    return {
        "ends alone": lambda: measure(size, 2, turns),
        "four layers": lambda: measure(size, 4, turns),
    }


def measure(size: dict[str, int], layers: int, turns: int) -> dict[str, Any]:
    """Times of each family's part and of whole steps, in turn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        paths = torch.randn(size["batch"], layers, size["features"])
        operators = {family: _operator(family, size["latent"], layers) for family in FAMILIES}
        operators[AUTHORS] = Exponential(size["latent"], layers - 1)
        runs: dict[str, Callable[[], object]] = {
            f"step, {family}": partial(_trainer(size, family, layers).step, paths)
            for family in (CHEAPEST, "Dense")
        }
        with one_thread():
            for name, operator in operators.items():
                runs[name] = part(operator, size["batch"], layers)
    return {**size, "layers": layers, "times": in_turn(runs, turns)}


def part(operator: Operator, batch: int, layers: int) -> Callable[[], object]:
    """The operator's part of a step: what the losses ask of it, with its backward and AdamW."""
    steps = layers - 1
    # The batch starts at the first layer, a quarter of it at each inner one; arrived rows leave.
    rows = [batch + (left - 1) * (batch // 4) for left in range(steps, 0, -1)]
    latents = [torch.randn(count, operator.latent, requires_grad=True) for count in rows]
    optimiser = torch.optim.AdamW(operator.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=True)

    def work() -> None:
        optimiser.zero_grad(set_to_none=True)
        for latent in latents:
            latent.grad = None  # in a step it is passed on, not summed up
        moved = [operator(latent, 1 / steps) for latent in latents]
        torch.autograd.backward(moved, [latent.detach() for latent in latents])
        optimiser.step()

    return work


def shares(result: dict[str, Any]) -> dict[str, float]:
    """Family → its part's share of a whole step with it, from median times."""
    seconds = {name: row["median"] for name, row in result["times"].items()}
    rest = seconds[f"step, {CHEAPEST}"] - seconds[CHEAPEST]
    return {
        name: took / (took + rest)
        for name, took in seconds.items()
        if not name.startswith("step, ")
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: each family's share of a training step."""
    if not results:
        return ""
    size = next(iter(results.values()))
    title = f"latent {size['latent']}, batch {size['batch']}, hidden {size['hidden']}"
    heads = [f"{job}: share of a step, time ÷ Dense" for job in results]
    lines = [f"| operator, {title}, {size['features']}-d | {' | '.join(heads)} |"]
    lines.append("|---" * (1 + len(heads)) + "|")
    for name in (*FAMILIES, AUTHORS):
        cells = []
        for result in results.values():
            share, rows = shares(result)[name], result["times"]
            ratio = rows[name]["median"] / rows["Dense"]["median"]
            goal = (
                ""
                if name == AUTHORS
                else f", ≤ 5 %: {verdict(share <= GOAL, result['latent'] == SIZES['latent'])}"
            )
            cells.append(f"{100 * share:.1f} %, {ratio:.2f}×{goal}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _operator(family: str, latent: int, layers: int) -> Operator:
    config = {"family": family, "latent": latent, "steps": layers - 1}
    if family == "Dense":
        config["constant"] = True
    if family == "LowRank":
        config["rank"] = latent // 4  # AutoencoderFitter's default
    return operator_from_config(config)


def _trainer(size: dict[str, int], family: str, layers: int) -> Trainer:
    observables = LearntObservables(
        size["features"], size["latent"], (size["hidden"],), constant=family == "Dense"
    )
    operator = _operator(family, size["latent"], layers)
    return Trainer(observables, operator, LossWeights(), learning_rate=1e-3, decay=1e-4)
