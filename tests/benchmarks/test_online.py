"""Watching a network in training: the example's claim, on a seed that it does not print."""

from pathlib import Path

import pytest

from benchmarks.training import online
from benchmarks.training.online import Checkpoint, picture, table, watched


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11])
def test_closed_forms_that_forget_stay_within_1_5_of_a_fresh_fit_at_every_checkpoint(
    seed: int,
) -> None:
    told: list[Checkpoint] = []
    found = watched(seed, 40, ("DMD", "EDMD"), told.append)
    assert told == found
    assert len(found) == 10
    assert found[-1].accuracy > 0.9, "an ordinary training"
    for each in found:
        for kind in each.left:
            assert each.ratio(kind) <= 1.5, (each.epoch, kind, each.left[kind])
    assert found[-1].ratio("EDMD", "no halflife") > 5, "without a halflife the past stays"


@pytest.mark.slow
def test_the_autoencoder_stays_within_1_5_of_a_fresh_one_while_the_states_grow_twentyfold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a short training, where drift is fastest."""
    monkeypatch.setattr(online, "CHECKPOINTS", 3)
    found = watched(11, 9, ("autoencoder",), lambda _: None)
    assert [each.epoch for each in found] == [3, 6, 9]
    for each in found:
        assert each.ratio("autoencoder") <= 1.5, (each.epoch, each.left)
        assert each.ratio("autoencoder", "no halflife") > 2, "without a halflife the past stays"


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
