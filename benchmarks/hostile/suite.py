"""Hostile networks: ``tk.swap`` must be exact, refuse, or fail at run time, never silently differ.

``make hostile`` prints a row per case and a line of totals. The reference is a second model, made
alike, in which a forward hook on the span's last layer returns what the module put in makes of the
recorded output of the first.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import logging
import sys
import warnings
from collections import Counter
from typing import TYPE_CHECKING

import torch

import torchkoopman as tk
from benchmarks.hostile.compare import (
    contents,
    described,
    everything,
    first_difference,
    holds_proxies,
    only,
)
from benchmarks.hostile.play import play, random_state, restored
from benchmarks.hostile.reference import gone, put_in, ready, reference

if TYPE_CHECKING:
    from benchmarks.hostile.case import Case, Inputs

FAMILIES = (
    "upstream",
    "random",
    "stale",
    "memories",
    "shared",
    "conditioning",
    "branches",
    "lengths",
    "escapes",
    "hidden",
    "writes",
    "limiters",
    "gradients",
    "checkpoints",
    "modes",
    "attributes",
    "arguments",
    "outputs",
    "structures",
    "ambient",
    "held",
    "names",
    "world",
    "rare",
    "late",
    "overrides",
    "kept",
    "kinds",
    "traits",
    "friendly",
    "computed_weights",
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
        if told := mine.error or ("" if use.backward_error else mine.backward_error):
            # the two have parted; are they equal without this input?
            rest = inputs[:number] + inputs[number + 1 :]
            other = _judge(case, how, prior, kind, rest) if rest else ("loud", "")
            return other if other[0] == "silent" else ("loud", told)
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
    came = {verdicts(one, way)[0] for one in chosen for way in ways}
    return 0 if came <= set(FINE) else 1


if __name__ == "__main__":
    sys.exit(main())
