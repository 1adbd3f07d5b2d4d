"""The main job, from a running network to a forgetful drop-in model: ``make demo``.

Trains a residual perceptron, streams its blocks into three fitters, puts each surrogate in the
place of the blocks, makes the network forget a class, and exports it. Everything printed is
measured on test data that no fit has seen.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torchkoopman_tensorboard import log, report

import torchkoopman as tk
from benchmarks.networks import accuracy, class_accuracies
from benchmarks.tasks import TASKS, Task, watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.networks import ResidualMLP
    from torchkoopman.datasets import Split


@dataclass
class Outcome:
    """What one seed gave."""

    accuracy: dict[str, float] = field(default_factory=dict)
    """Network or method → test accuracy with the blocks replaced."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Method → time of the fit, with the forward passes it watches."""
    r2: dict[str, dict[str, float]] = field(default_factory=dict)
    """Method → layer → test R²."""
    classes: dict[str, list[float]] = field(default_factory=dict)
    """Network or edit → test accuracy per class."""
    inner: float = 0.0
    """Test accuracy with only the middle blocks replaced by the autoencoder's surrogate."""


def main() -> None:
    """Parse arguments, run the seeds, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=TASKS, default="yinyang")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 (default 1)")
    parser.add_argument("--compare", action="store_true", help="also other ways to follow layers")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="logs and exported models")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS[arguments.data]
    out = arguments.out / arguments.data
    out.mkdir(parents=True, exist_ok=True)
    outcomes = [run(task, seed, out, compare=arguments.compare) for seed in range(arguments.seeds)]
    print(f"\n{arguments.data}: {len(outcomes)} seed(s), one thread, unseen test data")
    print(accuracy_table(outcomes))
    print(class_table(outcomes, task))
    for path in sorted(out.glob("forgetful-*")):
        print(f"exported {path}")
    report(out, out / "training.html")
    print(f"look: {out}/training.html, {out}/network.html, or tensorboard --logdir {out}")


def run(task: Task, seed: int, out: Path, compare: bool) -> Outcome:
    """One seed: train, fit, swap, forget, export."""
    data, outcome = task.data(seed), Outcome()
    loader, unseen = task.stream(data.train, seed), data.test.loader(1000)
    print(f"seed {seed}: training the network", flush=True)
    model = task.trained(data.train, seed)
    tk.inspect(model, loader, progress=False).report(out / "network.html")
    swapped: dict[str, nn.Module] = {
        "network": model,
        "skip the blocks": tk.swap(model, nn.Identity(), *task.span),
    }
    methods: dict[str, Callable[[], tk.Surrogate]] = {
        "ridge map": lambda: tk.fit(
            model, loader, "blocks.*", method="dmd", dynamics="span", progress=False
        ),
        "EDMD": lambda: tk.fit(model, loader, "blocks.*", method="edmd", progress=False),
    }
    if compare:
        methods["EDMD, step by step"] = lambda: tk.fit(
            model, loader, "blocks.*", method="edmd", dynamics="step", progress=False
        )
        methods["autoencoder, ends"] = lambda: logged(
            task, model, data, seed, out / f"seed{seed}-ends", dynamics="span"
        )
    methods["autoencoder"] = lambda: logged(task, model, data, seed, out / f"seed{seed}")
    for name, method in methods.items():
        start = time.perf_counter()
        surrogate = method()
        outcome.seconds[name] = time.perf_counter() - start
        outcome.r2[name] = tk.evaluate(surrogate, model, unseen).layers
        swapped[name] = tk.swap(model, surrogate, example_inputs=data.test.inputs[:8])
    outcome.accuracy = {name: accuracy(net, data.test) for name, net in swapped.items()}
    print(f"\n{surrogate.spectrum().summary(6)}", flush=True)
    if surrogate.operator.exact_at(surrogate.time("blocks.1")):
        inner = tk.swap(model, surrogate, "blocks.1", f"blocks.{task.network[2] - 2}")
        outcome.inner = accuracy(inner, data.test)
    neutral = copy.deepcopy(swapped["autoencoder"])
    neutral.head = tk.neutral_head(model.head, [task.forget])
    forgetful = tk.swap(model, tk.unlearn(surrogate, [task.forget], model=model))
    stages = {
        "network": model,
        "swapped, not edited": swapped["autoencoder"],
        "neutral row only": neutral,
        "operator edit only": tk.swap(model, tk.unlearn(surrogate, [task.forget])),
        "both: the export": forgetful,
    }
    outcome.classes = {name: class_accuracies(net, data.test) for name, net in stages.items()}
    for suffix in (".pt2", ".safetensors"):
        tk.export(forgetful, out / f"forgetful-seed{seed}{suffix}")
    return outcome


def logged(
    task: Task, model: ResidualMLP, data: Split, seed: int, logs: Path, **options: Any
) -> tk.Surrogate:
    """The autoencoder, watched in TensorBoard while the data stream."""
    fitter, loader = task.fitter(model, seed, **options), task.stream(data.train, seed)
    every = max(1, len(loader) // 5)
    with SummaryWriter(str(logs)) as writer:

        def log_fifths(batch: int) -> None:
            if batch % every == every - 1:
                log(writer, fitter.surrogate, fitter.steps)

        surrogate = watch(model, loader, fitter, log_fifths).train(task.steps).surrogate
        log(writer, surrogate, fitter.steps)
        shape = surrogate.topology(model, data.test.loader(1000), points=300)
        log(writer, shape, fitter.steps)
        log(writer, surrogate.paths(model, data.test.loader(1000)), fitter.steps)
    return surrogate


def accuracy_table(outcomes: list[Outcome]) -> str:
    """Accuracy, its loss against the network, R² by layer and fitting time of each method."""
    lines = [
        f"{'blocks replaced by':<20}{'accuracy':>15} {'change':>15} {'seconds':>8}  R² by layer"
    ]
    for name in outcomes[0].accuracy:
        values = [100 * each.accuracy[name] for each in outcomes]
        drops = [100 * (each.accuracy[name] - each.accuracy["network"]) for each in outcomes]
        seconds = [each.seconds[name] for each in outcomes if name in each.seconds]
        took = f"{mean(seconds):8.2f}" if seconds else " " * 8
        layers = outcomes[0].r2.get(name, {})
        r2 = "  ".join(
            f"{layer.split('.')[1]}: {mean(each.r2[name][layer] for each in outcomes):.4f}"
            for layer in layers
        )
        lines.append(f"{name:<20}{spread(values):>15} {spread(drops):>15} {took}  {r2}")
    if outcomes[0].inner:
        values = [100 * each.inner for each in outcomes]
        lines.append(f"{'inner blocks only':<20}{spread(values):>15}   (by the same autoencoder)")
    return "\n".join(lines)


def class_table(outcomes: list[Outcome], task: Task) -> str:
    """Accuracy class by class before and after forgetting."""
    head = f"forgetting {task.classes[task.forget]!r}"
    lines = ["", f"{head:<20}" + " ".join(f"{name:>13}" for name in task.classes)]
    for name in outcomes[0].classes:
        columns = zip(*(each.classes[name] for each in outcomes), strict=True)
        cells = [spread([100 * value for value in column]) for column in columns]
        lines.append(f"{name:<20}" + " ".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Mean, and standard deviation where there are several."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


if __name__ == "__main__":
    main()
