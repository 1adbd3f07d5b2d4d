"""The bench of latent fields: what is counted, and goals that are missed are said."""

from typing import Any

import pytest
import torch
from torch import nn

import torchkoopman as tk
from benchmarks.parts import fields, fields_memory, fields_scores, fields_tables


def test_attractors_in_one_direction_are_one_by_cosine() -> None:
    points = torch.tensor([[1.0, 0.0], [300.0, 1.0], [0.0, 2.0], [-1.0, 0.0]])
    assert fields_memory.count_by_cosine(points) == 3
    assert fields_memory.count_by_cosine(points[:0]) == 0


def test_images_are_turned_by_a_right_angle() -> None:
    image = torch.arange(9.0)
    turned = fields_scores.turned(image[None], 3)[0]
    assert turned.tolist() == [2, 5, 8, 1, 4, 7, 0, 3, 6]


def remembered(
    recovered: int,
    attractors: int = 10,
    error: float = 0.1,
    *,
    size: int = 10,
    data: str = "digits",
) -> dict[str, Any]:
    from_starts = {"converged": 0.98, "recovered": recovered, "attractors": attractors}
    from_starts |= {"coefficient": 1.0, "null": 0.9, "rank": 3, "by cosine": 2, "rated": 0}
    from_starts |= {"recovered of unseen": 3, "unseen like a training sample": 0.25}
    run: dict[str, Any] = {"data": data, "size": size, "width": 16, "noise": 0.1, "error": error}
    return run | {"unseen": 600} | {f"from {start}": from_starts for start in ("train", "noise")}


def test_goals_of_memory_are_said_to_be_met_or_missed() -> None:
    met = {"size-10-0": remembered(10), "size-10-1": remembered(9)}
    assert "9.5 are: met." in fields.table(met)
    assert "9.0 are: MISSED." in fields.table({"size-10-1": met["size-10-1"]})
    full = {"size-10-0": remembered(10), "size-1258-0": remembered(0)}
    assert "0.0 in the mean (0.000%), with 98.0% of the starts converged: met." in fields.table(
        full
    )
    one = {**full, "size-1258-1": remembered(1)}
    assert "0.5 in the mean (0.040%), with 98.0% of the starts converged: MISSED." in fields.table(
        one
    )


def test_recovered_training_and_unseen_samples_stand_beside_each_other_with_their_shares() -> None:
    text = fields.table({"size-1258-0": remembered(1, size=1258)})
    row = next(line for line in text.splitlines() if line.startswith("| 1258 of digits"))
    assert [cell.strip() for cell in row.split("|")][8:10] == ["1.0 (0.079%)", "3.0 (0.500%)"]
    assert "3.0 of 600 unseen samples are attractors (0.500%); in all 1 training and 3" in text
    assert ". 25.0% of unseen samples are as like a training sample." in text


def test_chance_is_the_binomial_tail_of_the_sets_sizes() -> None:
    runs = [{"recovered": 2, "recovered of unseen": 0}, {"recovered": 1, "recovered of unseen": 1}]
    exact = 4 * 0.75**3 * 0.25 + 0.75**4
    assert fields_tables.by_chance(runs, 3, 1).endswith(f"probability {exact:.2f}")
    assert "in all 3 training and 1 unseen samples" in fields_tables.by_chance(runs, 3, 1)
    assert not fields_tables.by_chance([{"recovered": 0, "recovered of unseen": 0}], 3, 1)


def test_mnist_has_rows_and_goals_of_its_own() -> None:
    few = remembered(9, data="MNIST")
    full = remembered(0, size=60_000, data="MNIST")
    text = fields.table({"size-10-0": remembered(10), "size-mnist-10-0": few})
    assert "| 10 of MNIST" in text
    assert "| 10 of digits" in text
    assert "Goal, digits, mean over seeds: of 10 samples 9.5 are recovered" in text
    assert "9.0 are: MISSED." in text
    text = fields.table({"size-mnist-60000-0": full})
    assert "Goal, MNIST, each seed: of 60000 none is; 0.0 in the mean" in text


def test_noise_must_change_the_field_and_not_the_error() -> None:
    full = {"size-10-0": remembered(10), "size-1258-0": remembered(0, 10, 0.1)}
    for attractors, error, said in ((5, 0.1, "met"), (6, 0.1, "MISSED"), (5, 0.12, "MISSED")):
        both = {**full, "plain-1258-0": remembered(0, attractors, error)}
        line = next(each for each in fields.table(both).splitlines() if "changes the field" in each)
        assert line.endswith(f"{said}.")


def test_errors_are_split_at_the_attractors_and_stand_beside_the_mean_sample() -> None:
    run = fields_memory.split(10, 100, 700)
    own, other = run["trained"], run["unseen"]
    assert own["prototype"] < 0.1 * own["mean sample"]
    assert other["prototype"] > 5 * own["prototype"]
    nothing = dict.fromkeys(own, None) | {"attracted": 0.0}
    text = fields.table({"split-10-0": run, "split-10-1": {**run, "unseen": nothing}})
    rows = [line for line in text.splitlines() if line.startswith("| 10 8 × 8 digits")]
    assert ["trained ones" in rows[0], "unseen ones" in rows[1]] == [True, True]
    only = fields.table({"split-10-1": {**run, "unseen": nothing}})
    assert "| –" in only.splitlines()[-1]


def test_scores_that_are_equally_good_win_together() -> None:
    told = {"kNN": [1.0, 0.0], "path": [1.0, 0.0], "orbit": [0.4, 1.0]}
    run = {"data": "MNIST", "5 to 9": told, "noise": told, "turned": {**told, "path": [0.9, 0.2]}}
    text = fields.table({"size-10-0": remembered(10), "novelty-mnist-0": run})
    assert "5 to 9: kNN 1, path 1; noise: kNN 1, path 1; turned: kNN 1." in text


def test_memory_on_mnist_is_measured_where_its_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHKOOPMAN_SEEDS", "3")
    monkeypatch.setenv("TORCHKOOPMAN_DATA", "somewhere")
    both = {"size-mnist-10-3", "size-mnist-60000-3"}
    assert both <= set(fields.jobs(quick=False))
    monkeypatch.delenv("TORCHKOOPMAN_DATA")
    assert not both & set(fields.jobs(quick=False))


@pytest.mark.slow
def test_ten_digits_are_recovered_and_unseen_ones_are_counted_by_the_same_rule() -> None:
    found = fields_memory.memory(10, 16, 0.1, seed=100, steps=1500)
    own = found["from train"]
    assert own["recovered"] >= 9
    assert own["recovered of unseen"] <= 1
    assert (found["data"], found["unseen"]) == ("8 × 8 digits", 539)
    assert found["train error"] < found["error"]


def test_each_seed_draws_its_own_images_of_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def untrained(inputs: torch.Tensor, width: int, *rest: object) -> tuple[nn.Module, nn.Module]:
        drawn.append(inputs)
        return nn.Linear(64, width).eval(), nn.Linear(width, 64).eval()

    monkeypatch.setattr(fields_memory, "autoencoder", untrained)
    monkeypatch.setattr(tk.datasets, "mnist", lambda: tk.datasets.digits(seed=0))
    for seed in (100, 101, 100):
        torch.manual_seed(0)
        found = fields_memory.memory(10, 2, 0.1, seed, 0, mnist=True)
        assert found["data"] == "MNIST"
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[1])
