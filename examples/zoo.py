"""The zoo: ``tk.swap`` on the architectures people have, held to a reference made of hooks alone.

``python examples/zoo.py`` prints one row per family, and the totals of ``hostile.py``. What a model
with a random linear map swapped in must return is known: the original, one output overridden.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import logging
import math
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hostile
import torch
from hostile_compare import with_state
from torch import Tensor, nn
from zoo_families import FAMILIES, WAYS, Family, Inputs

import torchkoopman as tk
from torchkoopman.observe.outputs import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    """Whether ``tk.swap_back`` gives the original outputs, bit by bit."""
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
            "way": tk.swaps(edited)[-1].how,
            "effect": difference(truth[0], outputs[0]),
            "difference": gap(edited, samples, truth),
            "left": tuple(name for name in gone if name in edited.state_dict()),
            "surplus": max(0, count(edited) - count(model) + spare - count(module)),
            "restored": gap(tk.swap_back(edited), samples, outputs) == 0,
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


def reference(family: Family, model: nn.Module, module: nn.Module, inputs: Inputs) -> Any:
    """What the edited model must return: the original runs whole, with the state at end overridden.

    What the layers between the two compute reaches all others that use it, as in the original.
    """
    kept: list[Tensor] = []
    with (
        hooked(model, family.start, lambda output: kept.append(state(output).clone())),
        hooked(model, family.end, lambda output: with_state(output, module(kept[0]))[0]),
    ):
        return call(model, inputs)


@contextlib.contextmanager
def hooked(model: nn.Module, layer: str, action: Callable[[Any], Any]) -> Iterator[None]:
    """Give ``action`` the output of one call of a layer, and the layer what it returns, if any."""
    name, _, number = layer.partition("#")
    calls = itertools.count()

    def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
        return action(output) if next(calls) == int(number or 0) else None

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def state(output: Any) -> Tensor:
    """A layer's state: the first real tensor with two axes or more in what it returns."""
    return next(x for x in tensors_in(output).values() if x.is_floating_point() and x.ndim >= 2)


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


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's output; it gets copies, since it may write into them."""
    given = copy.deepcopy(inputs)
    return model(**given) if isinstance(given, dict) else model(*given)


def gap(model: nn.Module, samples: list[Inputs], outputs: list[Any], typed: bool = True) -> float:
    """The largest difference of a model's outputs from the given ones, infinite for other types."""
    pairs = [(call(model, x), y) for x, y in zip(samples, outputs, strict=True)]
    if typed and not all(isinstance(found, type(expected)) for found, expected in pairs):
        return math.inf
    return max(difference(found, expected) for found, expected in pairs)


def difference(found: Any, expected: Any) -> float:
    """Largest difference of two outputs, each tensor relative to its largest value.

    0 if equal bit by bit; infinite if places of tensors, shapes or dtypes differ, or at NaN.
    """
    mine, theirs = tensors_in(found), tensors_in(expected)
    if mine.keys() != theirs.keys():
        return math.inf
    worst = 0.0
    for path, other in theirs.items():
        value = mine[path]
        if value.shape != other.shape or value.dtype != other.dtype:
            return math.inf
        if not torch.equal(value, other):
            ratio = ((value - other).abs().max() / other.abs().max()).item()
            worst = max(worst, math.inf if math.isnan(ratio) else ratio)
    return worst


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


def row(family: Family, how: str) -> str:
    """One line of the table."""
    head = f"{family.name:<26}{f'{family.start} → {family.end}':<74}"
    if family.missing:
        return f"{head}needs {family.needs}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            got = examine(family, how, Path(folder))
    except Exception as error:  # a table of anybody's code: show what happened and go on
        return f"{head}FAILED: {brief(f'{type(error).__name__}: {error}')}"
    head += f"{got.parameters:>8,} "
    if got.refused:
        return f"{head}refused: {brief(got.refused)}"
    back = "exact" if got.restored else "DIFFERS"
    file = f"no: {brief(got.unexported)}" if got.unexported else f"{got.program:.0e}"
    wrong = "" if got.untouched else "  THE ORIGINAL CHANGED"
    if got.left or got.surplus:
        wrong += f"  {len(got.left)} PARAMETERS OF THE SPAN LEFT, {got.surplus} NUMBERS TOO MANY"
    return f"{head}{got.way:<7}{got.difference:>7.0e} {back:>8}{got.seconds:>6.1f}  {file}{wrong}"


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
    print(f"{'family':<26}{'span':<74}{'numbers':>8} {'way':<7}differs     back     s  .pt2")
    for how, family in itertools.product(WAYS if arguments.ways else ("auto",), chosen):
        print(row(family, how), flush=True)
    if not arguments.names:
        print(hostile.summary())


if __name__ == "__main__":
    main()
