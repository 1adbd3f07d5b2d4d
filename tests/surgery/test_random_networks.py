"""Networks wired by chance, with all that networks do: no swap is silently wrong.

A swap is exact, refused (``tk.swap`` raises) or loud (the edited model raises). Which cuts are
feasible, and so should mostly be swapped, is said in ``flow.py``, from the wiring alone.
"""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.surgery.flow import Flow
from tests.surgery.overriding import INPUTS, Map, on_state, verdict
from tests.surgery.random_networks import Network, Step, Wiring, wirings

LEAST = 0.6
"""Share of the feasible cuts that ``how="auto"`` must swap."""
TALLY: Counter[tuple[str, bool, str]] = Counter()
"""(way, whether the cut is feasible, verdict) → how often."""
COMMON: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow],
}
QUICK = (Phase.explicit, Phase.generate)
"""Without shrinking, where an example takes long."""


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Wiring, str, str, bool]:
    """A network, the ends of a span in it, and whether the cut is feasible; about half are."""
    wiring = draw(wirings())
    flow = Flow(wiring)
    found = flow.cuts()
    kinds = [[cut for cut in found if flow.feasible(*cut) is can] for can in (False, True)]
    can = draw(st.booleans())
    assume(kinds[can])
    return wiring, *draw(st.sampled_from(kinds[can])), can


def judged(cut: tuple[Wiring, str, str, bool], new: str, before: bool, how: str) -> tuple[str, str]:
    """The verdict on one cut, and why; it is counted."""
    wiring, start, end, feasible = cut
    module = nn.Identity() if new == "identity" else Map()
    found = verdict(Network(wiring), Network(wiring), module, start, end, how, before)
    TALLY[how, feasible, found[0]] += 1
    event(f"{how}, {'feasible' if feasible else 'infeasible'}: {found[0]}")
    return found


NEW = st.sampled_from(["map"] * 5 + ["identity"])


@settings(max_examples=800, **COMMON)
@given(cuts(), NEW, st.booleans())
def test_no_swap_by_the_first_way_that_fits_is_silently_wrong(
    cut: tuple[Wiring, str, str, bool], new: str, before: bool
) -> None:
    found, why = judged(cut, new, before, "auto")
    assert found != "silent", f"{why}\n{cut}, {new}, ran before: {before}"


@settings(max_examples=240, **COMMON)
@given(cuts(), NEW, st.booleans())
def test_no_swap_by_tracing_is_silently_wrong(
    cut: tuple[Wiring, str, str, bool], new: str, before: bool
) -> None:
    found, why = judged(cut, new, before, "fx")
    assert found != "silent", f"{why}\n{cut}, {new}, ran before: {before}"


@settings(max_examples=240, **COMMON)
@given(cuts(), NEW, st.booleans())
def test_no_swap_by_replacing_layers_is_silently_wrong(
    cut: tuple[Wiring, str, str, bool], new: str, before: bool
) -> None:
    found, why = judged(cut, new, before, "eager")
    assert found != "silent", f"{why}\n{cut}, {new}, ran before: {before}"


@pytest.mark.slow
@settings(max_examples=80, phases=QUICK, **COMMON)
@given(cuts(), NEW, st.booleans())
def test_no_swap_by_exporting_is_silently_wrong(
    cut: tuple[Wiring, str, str, bool], new: str, before: bool
) -> None:
    found, why = judged(cut, new, before, "export")
    assert found != "silent", f"{why}\n{cut}, {new}, ran before: {before}"


@settings(max_examples=100, **COMMON)
@given(cuts().filter(lambda cut: cut[-1]))
@torch.no_grad()
def test_the_end_of_a_feasible_cut_follows_from_its_start(
    cut: tuple[Wiring, str, str, bool],
) -> None:
    wiring, start, end, _ = cut
    model, states = Network(wiring), list[torch.Tensor]()
    for x in INPUTS[:3]:
        with (
            on_state(model, start, lambda state: torch.linspace(-1, 1, 12).view(3, 4).to(state)),
            on_state(model, end, lambda state: states.append(state.clone())),
        ):
            model(x.clone())
    assert all(torch.equal(state, states[0]) for state in states)


def test_a_cut_is_feasible_if_nothing_else_meets_the_span() -> None:
    chain = Flow(Wiring((Step(),) * 4, last=3))
    assert chain.feasible("layers.0", "layers.2")
    assert not Flow(Wiring((Step(),) * 4, last=1)).feasible("layers.0", "layers.2")
    asking = Flow(Wiring((Step(), Step(), Step("extra", right=0, asked=0), Step()), last=3))
    assert asking.feasible("layers.0", "layers.2")
    assert not asking.feasible("layers.1", "layers.2")
    kept = Flow(Wiring((Step(), Step(), Step("keep", right=1), Step()), last=3))
    assert not kept.feasible("layers.0", "layers.2")
    second = Flow(Wiring((Step(), Step(layer="tuple", reads="second"), Step()), last=2))
    assert second.feasible("layers.1", "layers.2") is False


def test_most_feasible_cuts_are_swapped() -> None:
    exact = TALLY["auto", True, "exact"]
    feasible = sum(count for (how, can, _), count in TALLY.items() if how == "auto" and can)
    if feasible < 100:
        pytest.skip("the tests above have not run")
    assert exact >= LEAST * feasible, TALLY
