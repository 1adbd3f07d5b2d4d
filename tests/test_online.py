"""Watching a network in training: the example's claim, on seeds that it does not print."""

from pathlib import Path

import pytest
from online import Checkpoint, picture, table, watched


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_closed_forms_that_forget_stay_within_1_5_of_a_fresh_fit_at_every_checkpoint(
    seed: int,
) -> None:
    told: list[Checkpoint] = []
    found = watched(seed, 40, ("DMD", "EDMD"), told.append)
    assert told == found
    assert len(found) == 10
    assert found[-1].accuracy > 0.9, "an ordinary training"
    for each in found:
        for kind in each.fvu:
            assert each.ratio(kind) <= 1.5, (each.epoch, kind, each.fvu[kind])
    forgetless = [each.ratio("EDMD", "no halflife") for each in found]
    assert min(forgetless) > 1.5, "without a halflife the present network is lost in the past"


def test_the_table_and_the_picture_show_every_checkpoint(tmp_path: Path) -> None:
    found = [
        Checkpoint(epoch, 0.5, {"DMD": {"fresh": 0.1, "halflife": 0.12, "no halflife": 0.4}})
        for epoch in (1, 2, 3)
    ]
    text = table(found, ["DMD"])
    assert text.count("(1.20)") == 3
    assert text.endswith("largest ratio: DMD 1.20; without a halflife DMD 4.00")
    pytest.importorskip("matplotlib")
    picture(found, tmp_path / "online.png")
    assert (tmp_path / "online.png").stat().st_size > 10_000
