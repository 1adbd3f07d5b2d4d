"""Hostile networks: ``tk.swap`` must be exact, refuse, or fail at run time, never silently differ.

``make hostile`` prints a row per case and a line of totals. The reference is a second model, made
alike, in which a forward hook on the span's last layer returns what the module put in makes of the
recorded output of the first.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import importlib
import io
import logging
import sys
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import torchkoopman as tk
from benchmarks.hostile.compare import (
    contents,
    described,
    everything,
    first_difference,
    flat,
    holds_proxies,
    is_state,
    only,
    under,
    with_state,
)
from benchmarks.hostile.play import Use, call, play, random_state, restored, seed

if TYPE_CHECKING:
    from benchmarks.hostile.case import Case, Inputs

FAMILIES = (
    "upstream",
    "random",
    "stale",
    "shared",
    "conditioning",
    "branches",
    "escapes",
    "writes",
    "gradients",
    "checkpoints",
    "modes",
    "attributes",
    "arguments",
    "outputs",
    "structures",
    "ambient",
    "names",
    "world",
    "rare",
    "overrides",
    "kinds",
    "friendly",
)
CASES: list[Case] = [
    one
    for family in FAMILIES
    for one in importlib.import_module(f"benchmarks.hostile.{family}").CASES
]
WAYS = ("fx", "export", "eager", "auto")
KINDS = ("map", "identity", "dropout")
"""The modules put in, see ``put_in``."""
FINE = ("exact", "refused", "loud")
"""The verdicts that are no mistake; the others are "silent" and "gradients"."""
Verdict = tuple[str, str]
"""One of ``FINE``, "silent" or "gradients" (outputs equal, gradients not), and a line of detail."""


def put_in(kind: str) -> nn.Module:
    """A module to swap in, by its name in ``KINDS``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = {"map": lambda: nn.Linear(8, 8), "identity": nn.Identity, "dropout": nn.Dropout}
        return made[kind]()


def judge(case: Case, how: str = "auto", prior: bool = False, kind: str = "map") -> Verdict:
    """Swap in one case and compare.

    Args:
        case: the network.
        how: as in ``tk.swap``.
        prior: whether the model was run on the example before the swap.
        kind: the module put in, see ``put_in``.
    """
    quiet = contextlib.redirect_stderr(io.StringIO())  # graphs print their code when they fail
    with warnings.catch_warnings(), restored(), case.around(), quiet:
        warnings.simplefilter("ignore")
        return _judge(case, how, prior, kind, case.fresh())


def _judge(case: Case, how: str, prior: bool, kind: str, inputs: list[Inputs]) -> Verdict:
    truth, uses = reference(case, prior, kind, inputs)
    if any(use.error for use in uses):  # not defined there; again, for the failed call left traces
        inputs = [given for given, use in zip(inputs, uses, strict=True) if not use.error]
        assert inputs, f"{case.name}: the reference fails on every input: {uses[0].error}"
        truth, uses = reference(case, prior, kind, inputs)
    end_state = contents(truth)
    model, refusal = ready(case, prior), ""
    before = everything(model), random_state()
    edited = model
    try:
        edited = tk.swap(
            model, put_in(kind), case.start, case.end, how=how, example_inputs=case.example()
        )
    except Exception as error:  # of any kind: what matters here is that it says something
        refusal = described(error)
    if told := first_difference(everything(model), before[0]):
        return "silent", f"the swap changes the given model: {told}"
    if random_state() != before[1]:
        return "silent", "the swap changes the global random state"
    if holds_proxies(case.shared):
        return "silent", "the swap leaves proxies in the user's container"
    if refusal:
        return "refused", refusal
    gradients = ""
    found = play(case, edited, inputs, edited.get_submodule(tk.swap_history(edited)[-1].module))
    for number, (mine, use) in enumerate(zip(found, uses, strict=True)):
        if error := mine.error or (not use.backward_error and mine.backward_error):
            # the two have parted; are they equal without this input?
            rest = inputs[:number] + inputs[number + 1 :]
            other = _judge(case, how, prior, kind, rest) if rest else ("loud", "")
            return other if other[0] == "silent" else ("loud", error)
        if told := first_difference(mine.values, use.values):
            return "silent", f"call {number}: {told}"
        both = mine.gradients.keys() & use.gradients.keys() - gone(case, edited, use.gradients)
        told = first_difference(only(mine.gradients, both), only(use.gradients, both))
        gradients = gradients or (told and f"call {number}: {told}")
    left = contents(edited)
    both = left.keys() & end_state.keys() - gone(case, edited, end_state)
    if told := first_difference(only(left, both), only(end_state, both)):
        return "silent", f"after the calls: {told}"
    if told := first_difference(everything(model), before[0]):
        return "silent", f"calls of the edited model change the given one: {told}"
    return ("gradients", gradients) if gradients else ("exact", tk.swap_history(edited)[-1].how)


def reference(
    case: Case, prior: bool, kind: str, inputs: list[Inputs]
) -> tuple[nn.Module, list[Use]]:
    """The model with the output of the span's last layer overridden by hooks, and what it gives."""
    model, new = ready(case, prior), put_in(kind)
    above = model.get_submodule(case.end.partition("#")[0].rpartition(".")[0])
    kept: list[Tensor] = []
    counts: Counter[str] = Counter()

    def begin() -> None:
        kept.clear()
        counts.clear()

    def called(layer: str, output: Any) -> Any:
        _, _, number = layer.partition("#")
        counts[layer] += 1
        if number and counts[layer] - 1 != int(number):
            return None
        if layer == case.end:
            new.to(next(model.parameters()).dtype)  # a model may be moved after the swap
            new.train(above.training)  # and switched, in whole or in part
            return with_state(output, new(again(kept[-1])))[0]
        kept.append(again(next(filter(is_state, flat(output).values()))))
        return None

    for layer in (case.start, case.end):
        model.get_submodule(layer.partition("#")[0]).register_forward_hook(
            lambda module, given, output, layer=layer: called(layer, output)
        )
    return model, play(case, model, inputs, new, begin)


def again(state: Tensor) -> Tensor:
    """A copy with the history of a state, as an identity hands it on under torch.no_grad too."""
    with torch.set_grad_enabled(torch.is_grad_enabled() or state.requires_grad):
        return state.clone()


def ready(case: Case, prior: bool) -> nn.Module:
    """A new model in its mode, with its history."""
    seed(99)
    model = case.make().train(case.train)
    if prior:
        with torch.no_grad():
            call(model, copy.deepcopy(case.example()))
    seed(98)
    return model


def gone(case: Case, edited: nn.Module, names: dict[str, Any]) -> set[str]:
    """Of some names those in layers that were replaced, whose contents are their own affair."""
    record = tk.swap_history(edited)[-1]
    return under(names, (case.end, record.module, *record.layers))


@functools.cache
def verdicts(case: Case, how: str) -> Verdict:
    """The worst over both histories."""
    order = ("silent", "gradients", "loud", "exact", "refused")
    found = [judge(case, how, prior) for prior in (False, True)]
    return min(found, key=lambda verdict: order.index(verdict[0]))


def totals(cases: list[Case], how: str = "auto") -> str:
    """One line: how many of the networks came out how, and of their twins exact."""
    counts = Counter(verdicts(case, how)[0] for case in cases)
    twins = [case.harmless() for case in cases if case.twin]
    exact = sum(verdicts(twin, how)[0] == "exact" for twin in twins)
    told = ", ".join(f"{counts[kind]} {kind}" for kind in (*FINE, "silent", "gradients"))
    return (
        f"{len(cases)} hostile networks, how={how!r}: {told}; twins exact: {exact} of {len(twins)}"
    )


def summary() -> str:
    """The line of totals for all networks, with ``how="auto"``."""
    return totals(CASES)


def main() -> int:
    """Parse arguments, print the table; 1 if a swap was silently wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names or causes (default: all)")
    parser.add_argument("--ways", action="store_true", help="each backend, not only 'auto'")
    parser.add_argument("--twins", action="store_true", help="a row for each harmless twin, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    words = [name.lower() for name in arguments.names] or [""]
    chosen = [one for one in CASES if any(word in f"{one.name} {one.cause}" for word in words)]
    ways = WAYS if arguments.ways else ("auto",)
    print(f"{'network':<40}{'cause':<32}" + "".join(f"{way:<11}" for way in ways))
    for one in chosen:
        twins = [one.harmless()] if arguments.twins and one.twin else []
        for row in (one, *twins):
            found = [verdicts(row, way) for way in ways]
            cells = "".join(f"{verdict:<11}" for verdict, _ in found)
            print(f"{row.name[:39]:<40}{row.cause:<32}{cells}{found[-1][1]}", flush=True)
    for way in ways:
        print(totals(chosen, way), flush=True)
    found = {verdicts(one, way)[0] for one in chosen for way in ways}
    return 0 if found <= set(FINE) else 1


if __name__ == "__main__":
    sys.exit(main())
