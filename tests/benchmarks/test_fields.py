"""The bench of latent fields: what is counted, and goals that are missed are said."""

from typing import Any

import torch

from benchmarks.parts import fields, fields_memory, fields_scores


def test_attractors_in_one_direction_are_one_by_cosine() -> None:
    points = torch.tensor([[1.0, 0.0], [300.0, 1.0], [0.0, 2.0], [-1.0, 0.0]])
    assert fields_memory.count_by_cosine(points) == 3
    assert fields_memory.count_by_cosine(points[:0]) == 0


def test_images_are_turned_by_a_right_angle() -> None:
    image = torch.arange(9.0)
    turned = fields_scores.turned(image[None], 3)[0]
    assert turned.tolist() == [2, 5, 8, 1, 4, 7, 0, 3, 6]


def remembered(recovered: int, attractors: int = 10, error: float = 0.1) -> dict[str, Any]:
    from_starts = {"converged": 0.98, "recovered": recovered, "attractors": attractors}
    from_starts |= {"coefficient": 1.0, "null": 0.9, "rank": 3, "by cosine": 2, "rated": 0}
    run: dict[str, Any] = {"size": 10, "width": 16, "noise": 0.1, "error": error}
    return run | {f"from {start}": from_starts for start in ("train", "noise")}


def test_goals_of_memory_are_said_to_be_met_or_missed() -> None:
    met = {"size-10-0": remembered(10), "size-10-1": remembered(9)}
    assert "9.5 are: met." in fields.table(met)
    assert "9.0 are: MISSED." in fields.table({"size-10-1": met["size-10-1"]})
    full = {"size-10-0": remembered(10), "size-1258-0": remembered(0)}
    assert "0.0 in the mean, with 98.0% of the starts converged: met." in fields.table(full)
    one = {**full, "size-1258-1": remembered(1)}
    assert "0.5 in the mean, with 98.0% of the starts converged: MISSED." in fields.table(one)


def test_noise_must_change_the_field_and_not_the_error() -> None:
    full = {"size-10-0": remembered(10), "size-1258-0": remembered(0, 10, 0.1)}
    for attractors, error, said in ((5, 0.1, "met"), (6, 0.1, "MISSED"), (5, 0.12, "MISSED")):
        both = {**full, "plain-1258-0": remembered(0, attractors, error)}
        line = next(each for each in fields.table(both).splitlines() if "changes the field" in each)
        assert line.endswith(f"{said}.")


def test_scores_that_are_equally_good_win_together() -> None:
    told = {"kNN": [1.0, 0.0], "path": [1.0, 0.0], "orbit": [0.4, 1.0]}
    run = {"data": "MNIST", "5 to 9": told, "noise": told, "turned": {**told, "path": [0.9, 0.2]}}
    text = fields.table({"size-10-0": remembered(10), "novelty-mnist-0": run})
    assert "5 to 9: kNN 1, path 1; noise: kNN 1, path 1; turned: kNN 1." in text
