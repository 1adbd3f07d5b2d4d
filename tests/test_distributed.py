"""Two processes with uneven shards hold, after ``sync``, what one process with all rows holds."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.processes import results

WORKER = Path(__file__).with_name("distributed_worker.py")


def worker() -> Any:
    spec = importlib.util.spec_from_file_location("distributed_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EMPTY = ("dmd:empty", "edmd:empty")
SHARDED = ("moments", "labelled", "moments:empty", "labelled:empty", "dmd", "edmd", "different")


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """One start of two processes for all cases that sync without an error."""
    return results(WORKER, tmp_path_factory.mktemp("sharded"), *SHARDED, *EMPTY)


def alone(case: str) -> dict[str, Tensor]:
    """The same case in one process that holds all rows; sync does nothing there."""
    module = worker()
    result: dict[str, Tensor] = module.CASES[case](torch.arange(400), 0)
    return result


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        scale = max(tensor.abs().max().item(), 1e-300)
        assert (found[name] - tensor).abs().max().item() <= tolerance * scale, name


@pytest.mark.slow
@pytest.mark.parametrize("case", ["moments", "labelled", "moments:empty", "labelled:empty"])
def test_synced_moments_equal_those_of_one_process_to_1e_12(
    processes: list[dict[str, dict[str, Tensor]]], case: str
) -> None:
    """Uneven shards, a class that one process never sees, and (``empty``) one without any row."""
    for each in processes:
        assert_equal(each[case], alone(case.partition(":")[0]), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in SHARDED if case != "different"])
def test_both_processes_hold_the_same_bits(
    processes: list[dict[str, dict[str, Tensor]]], case: str
) -> None:
    first, second = (each[case] for each in processes)
    assert set(first) == set(second)
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dmd", "edmd"])
def test_a_synced_fit_is_that_of_one_process(
    processes: list[dict[str, dict[str, Tensor]]], case: str
) -> None:
    expected = alone(case)
    for each in processes:
        assert_equal(each[case], expected, 1e-4)


@pytest.mark.slow
def test_moments_of_different_observables_are_refused(
    processes: list[dict[str, dict[str, Tensor]]],
) -> None:
    """Summed, they would be moments of nothing, and nobody would notice."""
    assert [bool(each["different"]["refused"]) for each in processes] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("case", EMPTY)
def test_a_process_without_any_row_ends_with_the_same_surrogate(
    processes: list[dict[str, dict[str, Tensor]]], case: str
) -> None:
    first, second = (each[case] for each in processes)
    assert_equal(first, alone(case.partition(":")[0]), 1e-4)
    assert_equal(second, first, 0)


def test_sync_without_a_process_group_changes_nothing() -> None:
    module = worker()
    fitter = module.tk.DMDFitter().update(module.trajectory(torch.arange(400)))
    before = module.tensors(fitter.surrogate)
    assert_equal(module.tensors(fitter.sync().surrogate), before, 0)
