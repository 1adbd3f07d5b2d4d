"""The study of a network that generalises late: its data, its rule, and a short run of it."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.training import grokking
from benchmarks.training.grokking import EVERY
from benchmarks.training.grokking_table import (
    CONTROLS,
    NAMES,
    PRIME,
    RIVALS,
    SETTLED,
    STAYS,
    SUMS,
    Checkpoint,
    Run,
    table,
    tells,
)


def run(kind: str, values: list[float], accuracy: float = 0.0, seed: int = 0) -> Run:
    """A run whose quantities all take these values from step ``SETTLED`` on."""
    names = dict.fromkeys((*NAMES, *RIVALS))
    points = [
        Checkpoint(
            SETTLED + k * EVERY, {**dict.fromkeys(names, value), "test accuracy": k * accuracy}
        )
        for k, value in enumerate(values)
    ]
    early = Checkpoint(SETTLED - EVERY, {**dict.fromkeys(names, 1e6), "test accuracy": 0.0})
    return Run(kind, seed, [early, *points])


@pytest.mark.parametrize("kind", [SUMS, *CONTROLS])
def test_no_pair_is_in_both_parts_in_either_order(kind: str) -> None:
    (train, labels), (test, unseen) = grokking.pairs(kind, 0)
    seen = {frozenset(pair) for pair in train.tolist()}
    assert len(seen) == len(train)
    assert not seen & {frozenset(pair) for pair in test.tolist()}
    every, answers = torch.cat([train, test]), torch.cat([labels, unseen])
    right = (every.sum(1) % PRIME == answers).double().mean()
    assert right < 0.1 if kind == "drawn labels" else right == 1


def test_a_quantity_tells_once_it_has_stayed_outside_of_the_controls() -> None:
    control = run("drawn labels", [1.0, 2.0] * 8)
    there = run(SUMS, [1.5, 3.0, 1.5, *[3.0] * STAYS, 1.5])
    assert tells(there, NAMES[0], [control]) == SETTLED + (2 + STAYS) * EVERY
    for never in ([1.5] * 10, [3.0] * (STAYS - 1), [*[3.0] * (STAYS - 1), 2.0] * 3):
        assert tells(run(SUMS, never), NAMES[0], [control]) is None
    assert tells(run(SUMS, [0.0] * STAYS), NAMES[0], [control]) is not None


def test_the_table_has_the_lead_and_the_false_alarms() -> None:
    learner = run(SUMS, [1.5, *[3.0] * 11], accuracy=0.06)  # tells after 4, half right after 9
    alike, odd = run("drawn labels", [1.0, 2.0] * 6), run("drawn labels", [9.0] * 12, seed=1)
    line = table([learner, alike]).splitlines()[2]
    assert f"{(9 - STAYS) * EVERY:+d}" in line
    assert "0 of 1" in line, "beside nothing, nothing is unusual"
    text = table([learner, alike, odd])
    assert "2 of 2" in text.splitlines()[2], "each control lies outside of the other's values"
    assert f"at step {SETTLED + 9 * EVERY}" in text


@pytest.mark.slow
def test_a_run_is_watched_kept_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grokking, "EVERY", 60)
    found = grokking.trained(SUMS, 7, 120, tmp_path)
    assert [each.step for each in found.checkpoints] == [60, 120]
    assert set(found.checkpoints[0].values) == {*NAMES, *RIVALS}
    assert (
        found.checkpoints[1].values["training loss"] < found.checkpoints[0].values["training loss"]
    )
    assert list((tmp_path / "events").glob("*/events.*"))
    path = next(tmp_path.glob("*.json"))
    kept = json.loads(path.read_text())
    kept["checkpoints"][0]["values"]["weight norm"] = -1.0
    path.write_text(json.dumps(kept))
    assert grokking.trained(SUMS, 7, 120, tmp_path).checkpoints[0].values["weight norm"] == -1.0
    longer = grokking.trained(SUMS, 7, 180, tmp_path).checkpoints
    assert [each.step for each in longer] == [60, 120, 180], "not the shorter run again"
