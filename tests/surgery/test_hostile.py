"""Swaps in hostile networks: exact, refused or loud, and never silently something else."""

import pytest
import torch

from benchmarks.hostile import suite as hostile
from benchmarks.hostile.case import Case
from benchmarks.hostile.suite import CASES, FINE, KINDS, WAYS

TWINS = [case.harmless() for case in CASES if case.twin]
FRIENDLY = [case for case in CASES if case.cause == "friendly"]


AUTO = [(case, bool(index % 2)) for index, case in enumerate(CASES)]
"""Every network by the first way that fits, every second after a run."""
HARMLESS = [
    *((case, bool(index % 4)) for index, case in enumerate(TWINS) if index % 2 == 0),
    *((case, prior) for case in FRIENDLY for prior in (False, True)),
]
"""Every second twin, and what ordinary networks do, with and without a run before."""
SHARE = [
    (case, how, bool(index % 4), KINDS[(index // 6 + turn) % len(KINDS)])
    for index, case in enumerate(CASES)
    if index % 6 == 0
    for turn, how in enumerate(WAYS)
    if how != "export" or index % 18 == 0  # a second or more each
]
"""Every sixth network by every way, export for fewer; ``make hostile FULL=1`` runs them all."""


def name(value: object) -> str:
    return value.name if isinstance(value, Case) else str(value)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "prior"), AUTO, ids=name)
def test_no_swap_is_silently_wrong(case: Case, prior: bool) -> None:
    verdict, detail = hostile.judge(case, "auto", prior)
    assert verdict in FINE, f"{verdict}: {detail}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is loud
@pytest.mark.parametrize(("case", "how", "prior", "kind"), SHARE, ids=name)
def test_no_way_is_silently_wrong(case: Case, how: str, prior: bool, kind: str) -> None:
    verdict, detail = hostile.judge(case, how, prior, kind)
    assert verdict in FINE, f"{verdict}: {detail}"


@pytest.mark.slow
@pytest.mark.parametrize(("case", "prior"), HARMLESS, ids=name)
def test_a_harmless_network_is_swapped_exactly(case: Case, prior: bool) -> None:
    verdict, detail = hostile.judge(case, "auto", prior)
    assert verdict == "exact", f"{verdict}: {detail}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", [*CASES, *TWINS], ids=name)
def test_the_reference_agrees_with_itself_and_runs_on_most_inputs(case: Case) -> None:
    runs = []
    with hostile.restored(), case.around():
        for _ in range(2):
            model, uses = hostile.reference(case, True, "map", case.fresh())
            runs.append((hostile.contents(model), uses))
    (first, uses), (again, others) = runs
    assert sum(not use.error for use in uses) >= 3
    assert not hostile.first_difference(first, again)
    for use, other in zip(uses, others, strict=True):
        assert (use.error, use.backward_error) == (other.error, other.backward_error)
        assert not hostile.first_difference(use.values, other.values)
        assert not hostile.first_difference(use.gradients, other.gradients)


def test_the_comparison_tells_another_module_from_the_one_put_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = next(case for case in CASES if case.name == "plain")
    assert hostile.judge(case)[0] == "exact"
    swap = hostile.tk.swap
    monkeypatch.setattr(
        hostile.tk, "swap", lambda model, new, *ends, **more: swap(model, other(new), *ends, **more)
    )
    assert hostile.judge(case)[0] == "silent"


def other(module: torch.nn.Module) -> torch.nn.Module:
    """Slightly."""
    with torch.no_grad():
        next(module.parameters()).mul_(1.001)
    return module


def test_a_verdict_leaves_the_random_states_alone() -> None:
    before = hostile.random_state()
    hostile.judge(CASES[0])
    assert hostile.random_state() == before


def test_there_are_enough_networks_and_twins() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 80
    assert len(TWINS) >= 60
