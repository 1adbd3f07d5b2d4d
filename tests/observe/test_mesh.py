"""Four processes, two that share layers times two that share rows: as one process, or refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.processes import results

RIGHT = [
    "blocks",
    "blocks of FSDP",
    "with gradients",
    "gathered",
    "gathered DTensors",
    "gathered sequence",
    "fit",
    "fit of gathered columns",
]
REFUSED = {
    "columns": r"layer 'blocks.0.up' gives .*Shard\(dim=-1\) over 2.*layer is 'blocks.0.down'",
    "behind columns": "layer 'blocks.1.act' lies behind 'blocks.1.up'.*is 'blocks.1.down'",
}


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    worker = Path(__file__).with_name("mesh_worker.py")
    return results(worker, tmp_path_factory.mktemp("mesh"), processes=4)


@pytest.mark.slow
@pytest.mark.parametrize("case", RIGHT)
def test_what_four_processes_learn_is_what_one_learns(
    processes: list[dict[str, str]], case: str
) -> None:
    assert [each[case] for each in processes] == [""] * 4


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_parts_are_refused_by_name(processes: list[dict[str, str]], case: str) -> None:
    assert all(re.search(REFUSED[case], each[case]) for each in processes)
    assert set(processes[0]) == {*RIGHT, *REFUSED}
