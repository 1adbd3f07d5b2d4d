"""Fitted surrogates in the zoo: each family with what the library itself fits of its span."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

import torchkoopman as tk
from benchmarks.zoo.comparing import call, difference, gap, reference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from benchmarks.zoo.family import Family

BATCHES, ROWS = 6, 64
"""Batches to fit on, and samples in each: more rows than the observables have numbers."""
FLAT = "b ... -> b 1 (...)"
"""Layout of one position that has all features."""
ERRORS = (TypeError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Fitted:
    """What became of one family with a fitted surrogate."""

    method: str = ""
    """How it was fitted; empty if it could not be."""
    way: str = ""
    """The backend that was taken; empty if the swap was refused."""
    effect: float = math.nan
    """Relative change of the model's output by the swap. Near 0, the difference says nothing."""
    difference: float = math.nan
    """Largest relative difference from the reference, on three samples of two batch sizes."""
    unfitted: str = ""
    """Why there is no surrogate, as the library says."""
    refused: str = ""
    """Why there is no edited model, as the library says."""


@torch.no_grad()
def examine_fitted(family: Family, how: str = "auto") -> Fitted:
    """Fit a surrogate of a family's span, swap it in, and compare."""
    model = family.model()
    try:
        surrogate, method = fit(family, model)
    except ERRORS as error:
        return Fitted(unfitted=f"{type(error).__name__}: {error}")
    samples = [family.sample(0), family.sample(1), family.sample(2, batch=3)]
    try:
        edited = tk.swap(model, surrogate, how=how, example_inputs=samples[0])
    except ERRORS as error:
        return Fitted(method, refused=f"{type(error).__name__}: {error}")
    module = surrogate.replacement(family.start, family.end)
    truth = [reference(family, model, module, inputs) for inputs in samples]
    effect = difference(truth[0], call(model, samples[0]))
    return Fitted(method, tk.swap_history(edited)[-1].how, effect, gap(edited, samples, truth))


def fit(family: Family, model: nn.Module) -> tuple[tk.Surrogate, str]:
    """A surrogate by the first method that can, and its name.

    These are EDMD with eight random features, DMD, and DMD of layers of different resolution, with
    their positions flattened into features.

    Raises:
        TypeError, ValueError, RuntimeError: none can; the reason is that of DMD.
    """
    batches = [family.sample(10 + number, ROWS) for number in range(BATCHES)]
    ends = [family.start, family.end]
    common: dict[str, Any] = {"forward": call, "dynamics": "span", "progress": False}
    options: dict[str, dict[str, Any]] = {
        "dmd": {"method": "dmd"},
        "edmd": {"method": "edmd", "observables": tk.RandomFeatures(8), "calibration": 100},
        "dmd, flat": {"method": "dmd", "layout": FLAT, "rank": 8},
    }
    reasons: dict[str, Exception] = {}
    for name in ("edmd", "dmd", "dmd, flat"):
        try:
            return tk.fit(model, batches, ends, **options[name], **common), name
        except ERRORS as error:
            reasons[name] = error
    raise reasons["dmd"]


def summary(outcomes: Iterable[Fitted]) -> str:
    """One line on all families."""
    outcomes = list(outcomes)
    swapped = [each for each in outcomes if each.way]
    unfitted = sum(bool(each.unfitted) for each in outcomes)
    refused = sum(bool(each.refused) for each in outcomes)
    worst = max((each.difference for each in swapped), default=math.nan)
    return (
        f"fitted surrogates: {len(swapped)} of {len(outcomes)} families swapped, at most "
        f"{worst:.0e} from the reference; {refused} swaps refused, {unfitted} without a surrogate"
    )
