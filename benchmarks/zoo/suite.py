"""The zoo: ``tk.swap`` on the architectures people have, held to a reference made of hooks alone.

``make zoo`` prints one row per family. A random linear map is swapped in; what the edited model
must return is known from the original model, with one layer's output overridden. The last column is
of a surrogate fitted to the span and swapped in.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import math
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks.hostile import suite as hostile
from benchmarks.zoo.comparing import call, difference, gap, hooked, reference, state
from benchmarks.zoo.families import FAMILIES
from benchmarks.zoo.family import WAYS, Family, Inputs
from benchmarks.zoo.fitted import Fitted, examine_fitted, summary


@dataclass(frozen=True)
class Outcome:
    """What became of one family in one way."""

    parameters: int
    """Parameters of the original model."""
    seconds: float
    way: str = ""
    """The backend that was taken; empty if the swap was refused."""
    effect: float = math.nan
    """Relative change of the model's output by the swap. Near 0, the other numbers say nothing."""
    difference: float = math.nan
    """Largest relative difference from the reference, on three samples of two batch sizes."""
    untouched: bool = True
    """Whether the original kept its weights, hooks and, bit by bit, outputs."""
    left: tuple[str, ...] = ()
    """Parameters of the replaced layers that the edited model still has."""
    surplus: int = 0
    """How many more parameters the edited model has than it should."""
    restored: bool = False
    """Whether ``tk.undo`` gives the original outputs, bit by bit."""
    program: float = math.nan
    """As ``difference``, of the program read from a ``.pt2`` file."""
    unexported: str = ""
    """Why there is no program."""
    refused: str = ""
    """Why there is no edited model."""


@torch.no_grad()
def examine(family: Family, how: str = "auto", folder: Path | None = None) -> Outcome:
    """Swap a linear map into a family and compare; with a folder, also as a ``.pt2`` program."""
    began, model, found = time.perf_counter(), family.model(), dict[str, Any]()
    samples = [family.sample(0), family.sample(1), family.sample(2, batch=3)]
    outputs = [call(model, inputs) for inputs in samples]
    weights, hooks = copy.deepcopy(model.state_dict()), hook_count(model)
    module = stand_in(family, model, samples[0])
    truth = [reference(family, model, module, inputs) for inputs in samples]
    ends = family.start, family.end
    try:
        edited = tk.swap(model, module, *ends, how=how, example_inputs=samples[0])
    except (TypeError, ValueError, RuntimeError) as error:
        found["refused"] = f"{type(error).__name__}: {error}"
    else:
        gone = only_in(model, family.replaced())
        spare = sum(model.get_parameter(name).numel() for name in gone)
        found |= {
            "way": tk.swap_history(edited)[-1].how,
            "effect": difference(truth[0], outputs[0]),
            "difference": gap(edited, samples, truth),
            "left": tuple(name for name in gone if name in edited.state_dict()),
            "surplus": max(0, count(edited) - count(model) + spare - count(module)),
            "restored": gap(tk.undo(edited), samples, outputs) == 0,
            **(saved(edited, folder / "model.pt2", samples, truth) if folder else {}),
        }
    same = all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    same = same and hook_count(model) == hooks and gap(model, samples, outputs) == 0
    return Outcome(count(model), time.perf_counter() - began, untouched=same, **found)


def saved(model: nn.Module, path: Path, samples: list[Inputs], truth: list[Any]) -> dict[str, Any]:
    """The fields of an outcome that tell of the edited model as a file."""
    try:
        tk.export(model, path, example_inputs=samples[0])
    except (TypeError, ValueError, RuntimeError) as error:
        return {"unexported": f"{type(error).__name__}: {error}"}
    return {"program": gap(torch.export.load(path).module(), samples, truth, typed=False)}


class Separable(nn.Module):
    """A linear map of the features, and of every other axis whose length changes."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        super().__init__()
        features = 1 if len(before) == 4 else len(before) - 1  # images have their channels first
        axes = [i for i in range(1, len(before)) if i == features or before[i] != after[i]]
        self.maps = nn.ModuleDict({str(i): nn.Linear(before[i], after[i]) for i in axes})

    def forward(self, x: Tensor) -> Tensor:
        for axis, linear in self.maps.items():
            x = linear(x.transpose(int(axis), -1)).transpose(int(axis), -1)
        return x


def stand_in(family: Family, model: nn.Module, inputs: Inputs) -> nn.Module:
    """A random linear map from the state at start to that at end, always the same."""
    seen: list[tuple[int, ...]] = []

    def look(output: Any) -> None:
        seen.append(tuple(state(output).shape))

    with hooked(model, family.start, look), hooked(model, family.end, look):
        call(model, inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Separable(*seen)


def count(model: nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def hook_count(model: nn.Module) -> int:
    """Forward hooks; some libraries have their own."""
    return sum(len(module._forward_hooks) for module in model.modules())


def only_in(model: nn.Module, layers: list[str]) -> list[str]:
    """Names of the parameters that some layers, and no others, hold."""
    inside = tuple(f"{layer}." for layer in layers)
    everywhere = dict(model.named_parameters(remove_duplicate=False))
    others = {id(value) for name, value in everywhere.items() if not name.startswith(inside)}
    return [name for name, value in everywhere.items() if id(value) not in others]


def row(family: Family, how: str) -> tuple[str, Fitted | None]:
    """One line of the table, and what became of a fitted surrogate."""
    head = f"{family.name:<26}{f'{family.start} → {family.end}':<74}"
    if family.missing:
        return f"{head}needs {family.needs}", None
    try:
        with tempfile.TemporaryDirectory() as folder:
            got = examine(family, how, Path(folder))
        fitted = examine_fitted(family, how)
    except Exception as error:  # a table of anybody's code: show what happened and go on
        return f"{head}FAILED: {brief(f'{type(error).__name__}: {error}')}", None
    return f"{head}{got.parameters:>8,} {cells(got):<38}  {told(fitted)}", fitted


def cells(got: Outcome) -> str:
    """The columns of the linear map."""
    if got.refused:
        return f"refused: {brief(got.refused)}"
    back = "exact" if got.restored else "DIFFERS"
    file = f"no: {brief(got.unexported)}" if got.unexported else f"{got.program:.0e}"
    wrong = "" if got.untouched else "  THE ORIGINAL CHANGED"
    if got.left or got.surplus:
        wrong += f"  {len(got.left)} PARAMETERS OF THE SPAN LEFT, {got.surplus} NUMBERS TOO MANY"
    return f"{got.way:<7}{got.difference:>7.0e} {back:>8}{got.seconds:>6.1f}  {file}{wrong}"


def told(fitted: Fitted) -> str:
    """The column of the fitted surrogate: its difference and how it was fitted, or the reason."""
    if fitted.unfitted:
        return f"no surrogate: {brief(fitted.unfitted)}"
    if fitted.refused:
        return f"refused ({fitted.method}): {brief(fitted.refused)}"
    return f"{fitted.difference:.0e} ({fitted.method})"


def brief(message: str) -> str:
    """The kind of an error and its first reason: the line after the headline, if there is one."""
    headline, *reasons = message.strip().splitlines()
    return (f"{headline.partition(':')[0]}: {reasons[0].strip()}" if reasons else headline)[:150]


def main() -> None:
    """Parse arguments, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the families' names (default: all)")
    parser.add_argument("--ways", action="store_true", help="each backend, not the first that fits")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the libraries behind: the table says what matters
    logging.disable(logging.WARNING)
    names = [name.lower() for name in arguments.names] or [""]
    chosen = [one for one in FAMILIES if any(name in one.name.lower() for name in names)]
    columns = f"{'numbers':>8} {'way':<7}differs     back     s  {'.pt2':<8}  fitted"
    print(f"{'family':<26}{'span':<74}{columns}")
    outcomes: list[Fitted] = []
    for how, family in itertools.product(WAYS if arguments.ways else ("auto",), chosen):
        line, fitted = row(family, how)
        outcomes += [fitted] if fitted else []
        print(line, flush=True)
    print(summary(outcomes))
    if not arguments.names:
        print(hostile.summary())


if __name__ == "__main__":
    main()
