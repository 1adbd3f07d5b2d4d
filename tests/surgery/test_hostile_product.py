"""The whole product of the hostile suite by command: resumable, and it fails on a wrong swap."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.hostile import product as hostile_product
from benchmarks.hostile.suite import CASES, Verdict

Judge = Callable[..., Verdict]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Judge], int]:
    """The command on two networks by eager with two modules, judged by a function."""
    monkeypatch.setattr(hostile_product, "RUNS", tmp_path)
    monkeypatch.setattr(hostile_product, "CASES", CASES[:2])
    monkeypatch.setattr(hostile_product.logging, "disable", lambda level: None)
    monkeypatch.setattr(hostile_product.torch, "set_num_threads", lambda count: None)

    def ran(judge: Judge) -> int:
        monkeypatch.setattr(hostile_product, "judge", judge)
        return hostile_product.main(["--ways", "eager", "--kinds", "map", "identity"])

    return ran


def test_every_swap_is_judged_once_and_counted(run: Any, capsys: pytest.CaptureFixture) -> None:
    judged = []

    def judge(*swap: Any) -> Verdict:
        judged.append(swap)
        return "exact", "eager"

    assert run(judge) == run(judge) == 0  # the second time all is known
    cases = CASES[:2]
    assert judged == [
        (case, "eager", prior, kind)
        for kind in ("map", "identity")
        for case in cases
        for prior in (False, True)
    ]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["eager", "identity", "4", "4", "0", "0", "0", "0"] in rows
    assert ["all", "8", "8", "0", "0", "0", "0"] in rows


def test_an_interrupted_run_goes_on(run: Any, tmp_path: Path) -> None:
    judged = []

    def judge(*swap: Any) -> Verdict:
        judged.append(swap)
        if len(judged) == 4:
            raise KeyboardInterrupt
        return "refused", "why"

    with pytest.raises(KeyboardInterrupt):
        run(judge)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text() + '["eager", "map')  # cut off within a line
    assert run(judge) == 0
    assert len(judged) == 4 + 5
    assert len(hostile_product.known(path)) == 8


@pytest.mark.parametrize("verdict", ["silent", "gradients"])
def test_a_wrong_swap_is_told_and_fails(
    run: Any, verdict: str, capsys: pytest.CaptureFixture
) -> None:
    assert run(lambda case, way, prior, kind: (verdict if prior else "loud", "off by 1")) == 1
    told = f"{verdict}: {CASES[0].name!r} by eager, map, run before: off by 1"
    assert told in capsys.readouterr().out


def test_other_code_starts_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = hostile_product.fingerprint()
    assert now == hostile_product.fingerprint()
    monkeypatch.setattr(hostile_product, "ROOT", tmp_path)
    assert hostile_product.fingerprint() != now


def test_a_share_is_always_the_same_part_in_the_same_order() -> None:
    every = hostile_product.jobs(CASES[:5], ["fx", "eager"], ["map"])
    part = hostile_product.share(every, 0.3)
    assert len(part) == 6
    assert list(part) == [job for job in every if job in part]
    assert part == hostile_product.share(every, 0.3)
    assert hostile_product.share(every, 1.0) == every
