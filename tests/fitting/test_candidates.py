"""Candidates are judged on paths held out, and a training gone astray does not pass unnoticed."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import normal
from torchkoopman.fitting.candidates import (
    Candidate,
    Score,
    best,
    closed_form,
    judged,
    much_worse,
)
from torchkoopman.fitting.identity import sample_ids
from torchkoopman.fitting.quality import Unexplained
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.operators import Dense
from torchkoopman.observe.trajectory import Trajectory


def halving(rows: int = 200) -> Tensor:
    """Three layers, each half of the one before."""
    x = normal(rows, 2)
    return torch.stack([x, 0.5 * x, 0.25 * x], 1)


def linear(factor: float, steps: int = 2) -> Candidate:
    """Multiplies the state by ``factor`` in each step."""
    dictionary = Dictionary().build(2)
    operator = Dense(3, steps, constant=True)
    operator.start_from(torch.diag(torch.tensor([1.0, factor, factor])))
    return Candidate(dictionary, operator.requires_grad_(False))


def test_scores_are_errors_layer_by_layer_and_the_divergence_of_what_the_tail_says() -> None:
    paths, tail = halving(), nn.Linear(2, 3).requires_grad_(False)
    tail.weight.copy_(normal(3, 2, seed=8))
    score = judged(linear(0.4), paths, tail)
    for layer, found in zip((1, 2), score.unexplained, strict=True):
        prediction = 0.4**layer * paths[:, 0]
        assert found == pytest.approx(Unexplained().update(prediction, paths[:, layer]).value)
    p, q = (tail(x).log_softmax(-1) for x in (paths[:, 2], 0.16 * paths[:, 0]))
    assert score.divergence == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-4)
    assert score.error == score.divergence
    assert judged(linear(0.5), paths, tail).error == pytest.approx(0, abs=1e-6)


def test_an_operator_across_the_span_is_judged_at_the_last_layer_alone() -> None:
    score = judged(linear(0.25, steps=1), halving(), None)
    assert score.unexplained == (pytest.approx(0, abs=1e-12),)
    assert score.divergence is None
    assert score.error == score.unexplained[-1]


def test_without_a_tail_the_best_explains_all_layers_and_with_one_what_it_says_decides() -> None:
    assert best([Score((0.5, 0.1), None), Score((0.1, 0.2), None)]) == 1
    assert best([Score((0.1, 0.1), 0.02), Score((0.12, 0.12), 0.01)]) == 1


def test_what_the_tail_says_does_not_excuse_states_that_are_far_off() -> None:
    assert best([Score((0.1, 0.1), 0.02), Score((0.9, 0.3), 0.01)]) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_the_worst(bad: float) -> None:
    assert best([Score((bad,), None), Score((0.5,), None)]) == 1
    assert best([Score((0.5,), bad), Score((0.5,), 3.0)]) == 1
    assert much_worse(Score((bad,), None), Score((0.1,), None))
    assert much_worse(Score((0.1,), bad), Score((0.1,), 0.1))


def test_the_closed_form_is_the_fitter_of_that_name_in_the_same_coordinates() -> None:
    x = normal(3000, 2)
    paths = torch.stack([x, torch.tanh(x), torch.tanh(2 * x)], 1)
    known = closed_form(paths)
    assert known is not None
    assert judged(known, paths, None).error < 0.01
    assert known.operator.steps == 1
    assert closed_form(paths[:400]) is None, "500 features need more rows than that"


def system(rows: int, seed: int = 0) -> list[Tensor]:
    x = normal(rows, 3, seed=seed)
    y = torch.tanh(x.roll(1, 1) + 0.5 * x)
    return [x, y, torch.tanh(2 * y)]


def fitted(states: list[Tensor], train: int = 20, **options: Any) -> tk.AutoencoderFitter:
    defaults = {"latent": 12, "hidden": (16,), "calibration": 200, "steps_per_update": 1}
    fitter = tk.AutoencoderFitter(**{**defaults, **options})
    for parts in zip(*(state.split(500) for state in states), strict=True):
        fitter.update(Trajectory.of(*parts))
    return fitter.train(train) if train else fitter


ASTRAY = {"weights": tk.LossWeights(reconstruction=0, state=0, latent=0, isometry=1.0)}
"""Nothing that is learnt serves the prediction."""


def test_the_closed_form_takes_the_place_of_a_training_gone_astray_and_says_so() -> None:
    fresh = system(1000, seed=5)
    surrogate = fitted(system(3000), **ASTRAY, learning_rate=0.3, train=500).surrogate
    assert surrogate.record.method == "edmd"
    assert surrogate.record.dynamics == "span"
    assert isinstance(surrogate.observables, Dictionary)
    assert any("it stands in its place" in note for note in surrogate.record.notes)
    assert Unexplained().update(surrogate(fresh[0][:, None])[:, 0], fresh[2]).value < 0.05
    assert surrogate.record.losses == {}


def test_a_step_asked_for_is_kept_and_the_record_says_what_it_costs() -> None:
    options: dict[str, Any] = {**ASTRAY, "learning_rate": 0.3, "dynamics": "step"}
    surrogate = fitted(system(3000), train=500, **options).surrogate
    assert isinstance(surrogate.observables, LearntObservables)
    assert surrogate.record.method == "autoencoder"
    assert surrogate.record.dynamics == "step"
    assert any("take dynamics='auto'" in note for note in surrogate.record.notes)


def test_a_good_training_is_left_alone() -> None:
    fitter = fitted(system(3000), train=600, hidden=(64,))
    surrogate = fitter.surrogate
    assert surrogate.record.method == "autoencoder"
    assert surrogate.record.notes == ()
    assert fitter.steps == 6 + 600
    assert surrogate.operator.steps == 2


def test_nothing_is_decided_after_few_steps_or_on_few_paths() -> None:
    options: dict[str, Any] = {**ASTRAY, "learning_rate": 0.3}
    assert fitted(system(3000), train=490, **options).surrogate.record.method == "autoencoder"
    few = fitted(system(490), train=500, **options).surrogate
    assert few.record.method == "autoencoder"


def test_rows_that_come_after_the_comparison_are_learnt_from_again() -> None:
    fitter = fitted(system(3000), **ASTRAY, learning_rate=0.3, train=500)
    assert fitter.surrogate.record.method == "edmd"
    fitter.update(Trajectory.of(*system(100, seed=3)))
    surrogate = fitter.surrogate
    assert surrogate.record.method == "autoencoder"
    assert surrogate.record.notes == ()


def test_families_with_a_guarantee_are_never_replaced() -> None:
    surrogate = fitted(
        system(3000), **ASTRAY, learning_rate=0.3, operator="Orthogonal", train=500
    ).surrogate
    moduli = surrogate.spectrum().moduli
    torch.testing.assert_close(moduli, torch.ones_like(moduli), rtol=0, atol=1e-4)


def test_a_second_training_is_without_the_tail_and_kept_if_better() -> None:
    """A tail that asks for the impossible ruins the first training, not the second."""
    tail = nn.Linear(3, 4)
    tail.weight.data.copy_(normal(4, 3, seed=8))
    weights = tk.LossWeights(behaviour=-3e3)
    fitter = fitted(system(3000), train=500, hidden=(64,), tail=tail, weights=weights)
    surrogate = fitter.surrogate
    assert any("without the tail" in note for note in surrogate.record.notes)
    assert "behaviour" not in surrogate.record.losses
    fresh = system(1000, seed=5)
    assert Unexplained().update(surrogate(fresh[0][:, None])[:, 0], fresh[2]).value < 0.1


def test_the_choice_between_the_operators_is_made_on_paths_held_out() -> None:
    """The surrogate's operator predicts them no worse than the one learnt, but for 2 %."""
    for seed in range(3):
        fitter = fitted(system(600, seed=seed), train=5 + 20 * seed, dynamics="step")
        assert fitter._trainer is not None
        paths = fitter._intake.reservoir.held_out(10_000)
        observables, operator = fitter._trainer.averaged()
        chosen = Candidate(observables, fitter.surrogate.operator)
        learnt = judged(Candidate(observables, operator), paths, None)
        assert sum(judged(chosen, paths, None).unexplained) <= 1.021 * sum(learnt.unexplained)


def test_eigenpairs_are_judged_by_every_fifth_sample_streamed() -> None:
    states = system(1000)
    surrogate = fitted(states, train=0).surrogate
    evidence = surrogate.evidence
    assert evidence is not None
    assert not evidence.fitted
    ids = sample_ids(Trajectory.of(*states))
    held = ids.argsort()[ids.sort().values % 5 == 4]
    assert 150 < len(held) < 250
    assert evidence.samples is not None
    assert torch.equal(evidence.samples, ids[held])
    for found, state, layer in ((evidence.start, states[0], "0"), (evidence.end, states[2], "2")):
        torch.testing.assert_close(found, surrogate.encode(state[held][:, None], layer)[:, 0])


def test_without_paths_held_out_there_is_no_evidence() -> None:
    few = tk.AutoencoderFitter(4, hidden=(), calibration=4, rank=1, steps_per_update=0)
    few.update(Trajectory.of(*(state[:4, :1] for state in system(4))))
    assert few.surrogate.evidence is None
