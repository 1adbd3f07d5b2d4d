"""The report on held-out rows: its numbers against their definition, and what it says of them."""

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from tests.systems import draw
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.running.baselines import Baselines
from torchkoopman.running.evaluation import Evaluator


def path(rows: int, seed: int = 0) -> Trajectory:
    x = draw(rows, 3, seed=seed)
    return Trajectory.of(x, (x @ draw(3, 3, seed=8)).sin(), (2 * x).cos())


def definition(prediction: Tensor, truth: Tensor) -> float:
    spread = (truth - truth.mean(0)).square().sum()
    return 1 - ((prediction.double() - truth).square().sum() / spread).item()


def evaluate(surrogate: tk.Surrogate, trajectory: Trajectory, size: int) -> tk.results.Evaluation:
    baselines = Baselines().update(path(300)).maps(2)
    single = Trajectory.of(*(state.float() for state in path(300).states.values()))
    rival = tk.EDMDFitter(tk.RandomFeatures(30)).update(single).surrogate
    evaluator = Evaluator(surrogate, baselines, {"EDMD": rival})
    for rows in torch.arange(trajectory.batch).split(size):
        evaluator.update(trajectory.select(rows))
    return evaluator.result()


def test_every_number_is_the_r2_on_all_held_out_rows_whatever_the_batches() -> None:
    surrogate, fresh = tk.DMDFitter().update(path(300)).surrogate, path(200, seed=5)
    states = [state[:, 0] for state in fresh.states.values()]
    for size in (200, 17):
        found = evaluate(surrogate, fresh, size)
        assert found.rows == 200
        for layer in ("1", "2"):
            ahead = surrogate.predict(states[0][:, None].float(), "0", layer)[:, 0]
            expected = definition(ahead, states[int(layer)])
            assert found.layers[layer] == pytest.approx(expected, rel=1e-6)
        assert found.baselines["skip"] == pytest.approx(definition(states[0], states[2]))
        weight, bias = Baselines().update(path(300)).maps(2)["ridge map"]
        ridge = definition(states[0] @ weight.T + bias, states[2])
        assert found.baselines["ridge map"] == pytest.approx(ridge)
        assert set(found.baselines) == {"skip", "ridge map", "PCA + linear", "EDMD"}
        assert found.r2 == found.layers["2"]


def test_masked_rows_are_not_evaluated() -> None:
    surrogate, fresh = tk.DMDFitter().update(path(300)).surrogate, path(90, seed=5)
    mask = (torch.arange(90) % 3 > 0)[:, None]
    states = {k: torch.where(mask[..., None], s, s + 1e6) for k, s in fresh.states.items()}
    masked = evaluate(surrogate, Trajectory(states, mask=mask), 30)
    plain = evaluate(surrogate, fresh.select(mask[:, 0]), 30)
    assert masked.rows == plain.rows == 60
    assert masked.layers == pytest.approx(plain.layers, rel=1e-5)


def test_layers_between_the_steps_of_the_operator_are_left_out() -> None:
    surrogate = tk.DMDFitter(dynamics="span").update(path(300)).surrogate
    assert set(evaluate(surrogate, path(50, seed=5), 50).layers) == {"2"}


def test_baselines_that_do_at_least_as_well_are_named() -> None:
    result = tk.results.Evaluation(
        "dmd", 10, {"a": 0.1, "b": 0.8}, {"skip": 0.5, "EDMD": 0.8, "x": 0.9}
    )
    assert result.beaten_by() == ["EDMD", "x"]
    assert "the dmd does not beat: EDMD, x" in str(result)
    better = tk.results.Evaluation("dmd", 10, {"b": 0.95}, {"skip": 0.5, "EDMD": 0.8})
    assert better.beaten_by() == []
    assert "does not beat" not in str(better)


def test_the_report_shows_every_baseline_every_layer_and_the_rows() -> None:
    text = str(tk.results.Evaluation("edmd", 123, {"mid": 0.1234, "end": 0.25}, {"ridge map": 0.5}))
    for part in ("123", "'end'", "ridge map", "0.5000", "edmd", "0.2500", "mid 0.1234"):
        assert part in text, part


def test_an_evaluation_without_rows_says_so() -> None:
    surrogate = tk.DMDFitter().update(path(300)).surrogate
    with pytest.raises(ValueError, match="no held-out rows"):
        Evaluator(surrogate).result()
