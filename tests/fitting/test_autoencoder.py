"""The online autoencoder on a small nonlinear system: what it learns, and what it promises."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.fitting.autoencoder import Family
from torchkoopman.fitting.baselines import Baselines
from torchkoopman.fitting.dynamics import Dynamics
from torchkoopman.fitting.quality import Unexplained, unexplained
from torchkoopman.koopman.operators import Dense
from torchkoopman.observe.trajectory import Trajectory

FAMILIES: list[Family] = ["Dense", "LowRank", "Orthogonal", "Stable", "BlockDiagonal"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def polar(rows: int, layers: int = 3, seed: int = 0) -> list[Tensor]:
    """(a, b) ↦ (0.9 a, 0.6 b + 0.8 a²): nonlinear, but linear in (a, b, a²)."""
    a, b = normal(rows, seed=seed), normal(rows, seed=seed + 1000)
    states = [torch.stack([a, b], 1)]
    for _ in range(layers - 1):
        a, b = 0.9 * a, 0.6 * b + 0.8 * a.square()
        states.append(torch.stack([a, b], 1))
    return states


def small(**options: Any) -> tk.AutoencoderFitter:
    defaults: dict[str, Any] = {
        "latent": 8,
        "hidden": (24,),
        "calibration": 200,
        "steps_per_update": 4,
        "batch": 64,
    }
    return tk.AutoencoderFitter(**{**defaults, **options})


def stream(
    fitter: tk.AutoencoderFitter, states: list[Tensor], size: int = 100, labelled: bool = False
) -> tk.AutoencoderFitter:
    for parts in zip(*(state.split(size) for state in states), strict=True):
        labels = torch.arange(len(parts[0])) % 3 if labelled else None
        fitter.update(Trajectory.of(*parts, labels=labels))
    return fitter


def fvu(surrogate: tk.Surrogate, states: list[Tensor]) -> float:
    return Unexplained().update(surrogate(states[0][:, None])[:, 0], states[-1]).value


def ridge_fvu(seen: list[Tensor], fresh: list[Tensor]) -> float:
    weight, bias = Baselines().update(Trajectory.of(*seen)).maps(2)["ridge map"]
    return Unexplained().update(fresh[0].double() @ weight.T + bias, fresh[-1]).value


@pytest.mark.slow
def test_a_nonlinear_system_is_learnt_far_better_than_by_the_ridge_map() -> None:
    seen, fresh = polar(2000), polar(1000, seed=7)
    surrogate = stream(small(), seen).train(250).surrogate
    assert ridge_fvu(seen, fresh) > 0.3
    assert fvu(surrogate, fresh) < 0.2 * ridge_fvu(seen, fresh)


@pytest.mark.slow
def test_every_layer_is_predicted_at_its_depth_time_and_inner_spans_too() -> None:
    fresh = polar(1000, 4, seed=7)
    fitter = stream(small(weights=tk.LossWeights(inner=1.0)), polar(2000, 4))
    surrogate = fitter.train(250).surrogate
    assert surrogate.span.times == pytest.approx((0, 1 / 3, 2 / 3, 1))
    scores = unexplained(surrogate, Trajectory.of(*fresh))
    assert set(scores) == {"1", "2", "3"}
    assert max(scores.values()) < 0.2
    inner = surrogate.predict(fresh[1][:, None], "1", "2")[:, 0]
    assert Unexplained().update(inner, fresh[2]).value < 0.2


@pytest.mark.slow
def test_training_on_the_reservoir_improves_what_the_stream_gave() -> None:
    fresh = polar(1000, seed=7)
    fitter = stream(small(steps_per_update=1), polar(2000))
    before = fvu(fitter.surrogate, fresh)
    assert fvu(fitter.train(150).surrogate, fresh) < before


@pytest.mark.parametrize("dynamics", ["step", "span"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_its_guarantee_through_training(
    family: Family, dynamics: Dynamics
) -> None:
    fitter = small(operator=family, operator_rank=3, dynamics=dynamics)
    surrogate = stream(fitter, polar(400)).train(20).surrogate
    assert type(surrogate.operator).__name__ == family
    assert all(value < 1.5 for value in surrogate.record.fvu.values())
    K = surrogate.operator.matrix(1.0).double()
    moduli = surrogate.spectrum().moduli
    match family:
        case "Dense":
            torch.testing.assert_close(K[0], torch.eye(8, dtype=torch.float64)[0])
        case "LowRank":
            assert torch.linalg.matrix_rank(K, rtol=1e-5) <= 3
        case "Orthogonal":
            torch.testing.assert_close(moduli, torch.ones_like(moduli), rtol=0, atol=1e-4)
        case "Stable":
            assert torch.linalg.matrix_norm(K, 2) <= 1 + 1e-5
        case "BlockDiagonal":
            torch.testing.assert_close(K @ K.T, K.T @ K, rtol=0, atol=1e-5)


def test_a_latent_space_of_the_constant_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="latent=1 is too small"):
        tk.AutoencoderFitter(1)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"steps_per_update": -1}])
def test_counts_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        tk.AutoencoderFitter(8, **wrong)


def test_without_hidden_layers_the_autoencoder_is_linear() -> None:
    surrogate = stream(small(hidden=()), polar(600)).surrogate
    a, b = normal(1, 1, 2, seed=8), normal(1, 1, 2, seed=9)
    middle = surrogate((a + b) / 2)
    torch.testing.assert_close(middle, (surrogate(a) + surrogate(b)) / 2, rtol=1e-4, atol=1e-5)


def test_an_unknown_family_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"'Magic'.*Dense"):
        small(operator="Magic")


def test_dynamics_over_the_span_fit_the_ends_alone_and_say_nothing_of_inner_layers() -> None:
    states = polar(600)
    spoilt = [states[0], normal(600, 2, seed=3), states[2]]
    fitter = small(dynamics="span")
    surrogate = stream(fitter, spoilt).train(60).surrogate
    assert surrogate.operator.steps == 1
    assert set(surrogate.record.fvu) == {"2"}
    assert surrogate.record.fvu["2"] < 0.5


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    def run(seed: int) -> dict[str, Tensor]:
        return stream(small(generator=seeded(seed)), polar(400)).train(10).surrogate.state_dict()

    first, second, other = run(1), run(1), run(2)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_global_seed_is_neither_read_nor_touched() -> None:
    results = []
    with torch.random.fork_rng():
        for seed in (0, 1):
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            results.append(stream(small(), polar(400)).train(5).surrogate.state_dict())
            assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_fitter_learns_from_hooks_in_every_gradient_mode(mode: type) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
    fitter = small()
    with tk.attach(model, ["1", "3"]) as probe:
        probe.stream_to(fitter)
        for x in normal(500, 3).split(100):
            with mode(), probe.labels(torch.arange(100) % 2):
                model(x)
    assert fitter.steps == 5 * 4
    surrogate = fitter.surrogate
    assert not any(p.requires_grad for p in surrogate.parameters())
    assert surrogate.record.fvu["3"] < 1
    assert all(p.grad is None for p in model.parameters())
    surrogate(torch.zeros(1, 1, 4))


def test_states_that_still_require_gradients_are_taken_as_values() -> None:
    layer = nn.Linear(2, 2)
    fitter = small()
    for x in normal(500, 2).split(100):
        fitter.update(Trajectory.of(x, layer(x)))
    fitter.train(3)
    assert layer.weight.grad is None


def test_a_step_inside_the_forward_pass_does_not_reach_the_watched_model() -> None:
    """The model's own backward pass works and gets its own gradients, fitter or not."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))
    x = normal(300, 3)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    with tk.attach(model, "*") as probe:
        probe.stream_to(small())
        model(x).square().sum().backward()
    for found, true in zip(model.parameters(), expected, strict=True):
        assert found.grad is not None
        torch.testing.assert_close(found.grad, true, rtol=0, atol=0)


def test_a_dense_operator_starts_from_the_closed_form() -> None:
    """On a linear system the first prediction, before any step, is already good."""
    x = normal(600, 3)
    matrix = torch.linalg.qr(normal(3, 3, seed=2))[0] * 0.9
    states = [x, x @ matrix, x @ matrix @ matrix]
    fitter = stream(small(steps_per_update=0, latent=40), states)
    assert fitter.steps == 0
    assert max(fitter.surrogate.record.fvu.values()) < 0.1


def test_updates_go_on_after_training() -> None:
    fitter = stream(small(), polar(400)).train(10)
    done, rows = fitter.steps, fitter.surrogate.record.rows
    stream(fitter, polar(300, seed=3))
    assert fitter.steps == done + 3 * 4
    assert fitter.surrogate.record.rows == rows + 300
    fitter.train(5)
    assert fitter.steps == done + 12 + 5


def test_steps_owed_during_calibration_are_taken_when_it_ends() -> None:
    fitter = small(calibration=350)
    taken = [fitter.update(Trajectory.of(*polar(100, seed=k))).steps for k in range(5)]
    assert taken == [0, 0, 0, 16, 20]


def test_data_shorter_than_the_calibration_are_fitted_when_the_surrogate_is_asked_for() -> None:
    fitter = stream(small(calibration=100_000), polar(300))
    assert fitter.steps == 0
    surrogate = fitter.surrogate
    assert surrogate.record.rows == 300
    assert fitter.steps == 12
    assert fvu(surrogate, polar(300, seed=4)) < 1


def test_train_before_the_calibration_is_complete_takes_the_steps_asked_for_besides() -> None:
    fitter = stream(small(calibration=100_000), polar(300)).train(7)
    assert fitter.steps == 12 + 7


def test_a_surrogate_asked_for_too_early_costs_no_rows() -> None:
    fitter = small().update(Trajectory.of(*polar(2)))
    with pytest.raises(ValueError, match="2 rows"):
        _ = fitter.surrogate
    assert stream(fitter, polar(300)).surrogate.record.rows == 302


def test_a_surrogate_before_any_data_is_refused_with_the_way_to_stream() -> None:
    with pytest.raises(ValueError, match=r"no data yet.*stream_to"):
        _ = small().surrogate
    with pytest.raises(ValueError, match="no data yet"):
        small().train(5)


def test_other_layers_than_the_first_ones_are_refused_with_both_lists() -> None:
    states = polar(50)
    fitter = small().update(Trajectory.of(*states))
    with pytest.raises(ValueError, match=r"\('0', '1', '2'\).*\('0', '1'\)"):
        fitter.update(Trajectory.of(*states[:2]))


def test_memory_is_bounded_and_the_count_of_rows_is_not() -> None:
    row = 3 * 2 * 4 + 8  # with the label
    fitter = stream(small(replay_bytes=150 * row, steps_per_update=0), polar(2000))
    kept = fitter._intake.reservoir[:]
    assert sum(tensor.numel() * tensor.element_size() for tensor in kept) == 150 * row
    assert not fitter._intake._calibration.held
    assert fitter.surrogate.record.rows == 2000


def test_statistics_are_those_of_the_final_latent_states_class_by_class() -> None:
    states = polar(600)
    fitter = stream(small(), states, labelled=True)
    surrogate = fitter.surrogate
    statistics = surrogate.statistics
    assert statistics is not None
    assert statistics.classes == (0, 1, 2)
    latent = surrogate.encode(states[0][:, None], "0")[:, 0].double()
    torch.testing.assert_close(
        statistics.total().mean("start"), latent.mean(0), rtol=1e-4, atol=1e-4
    )
    chosen = latent[(torch.arange(600) % 100) % 3 == 1]
    torch.testing.assert_close(
        statistics.by_class[1].mean("start"), chosen.mean(0), rtol=1e-4, atol=1e-4
    )
    end = surrogate.encode(states[-1][:, None], "2")[:, 0].double()
    torch.testing.assert_close(statistics.total().mean("end"), end.mean(0), rtol=1e-4, atol=1e-4)


def test_masked_rows_are_not_learnt_from() -> None:
    states = [state.view(60, 5, 2) for state in polar(300)]
    mask = (torch.arange(300).view(60, 5) % 3) > 0
    spoilt = {
        str(k): torch.where(mask[..., None], s, torch.full_like(s, 1e4))
        for k, s in enumerate(states)
    }
    fitter = small(calibration=100).update(Trajectory(spoilt, mask=mask))
    assert fitter.surrogate.record.rows == int(mask.sum())
    assert fitter._intake.reservoir[:][0].abs().max() < 100


def test_a_first_batch_with_no_counted_row_is_no_error() -> None:
    states = [state[:, None] for state in polar(50)]
    nothing = Trajectory(
        dict(zip("012", states, strict=True)), mask=torch.zeros(50, 1, dtype=torch.bool)
    )
    fitter = stream(small().update(nothing), polar(300))
    assert fitter.surrogate.record.rows == 300


def test_layers_of_different_widths_are_learnt() -> None:
    x = normal(500, 6)
    states = [x, torch.tanh(x @ normal(6, 3, seed=1)), torch.tanh(x @ normal(6, 4, seed=2))]
    surrogate = stream(small(), states).surrogate
    assert [frame.features for frame in surrogate.frames()] == [6, 3, 4]
    assert surrogate(x[:5, None]).shape == (5, 1, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_states_of_other_precisions_are_learnt(dtype: torch.dtype) -> None:
    surrogate = stream(small(), [state.to(dtype) for state in polar(400)]).surrogate
    assert surrogate.record.fvu["2"] < 1


def test_a_surrogate_is_a_value_that_later_steps_do_not_touch() -> None:
    fitter = stream(small(), polar(400))
    surrogate = fitter.surrogate
    before = {name: tensor.clone() for name, tensor in surrogate.state_dict().items()}
    fitter.train(5)
    for name, tensor in surrogate.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_asking_for_a_surrogate_does_not_change_what_is_learnt() -> None:
    def run(look: bool) -> dict[str, Tensor]:
        fitter = stream(small(), polar(300))
        if look:
            _ = fitter.surrogate
        return fitter.train(5).surrogate.state_dict()

    seen, unseen = run(True), run(False)
    assert all(torch.equal(seen[name], unseen[name]) for name in seen)


def test_losses_are_recorded_by_name() -> None:
    losses = stream(small(), polar(300)).surrogate.record.losses
    assert set(losses) == {"reconstruction", "state", "latent", "isometry"}
    assert all(value >= 0 for value in losses.values())


def test_a_tail_is_copied_frozen_and_judges_predictions_in_features() -> None:
    tail = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
    before = tail[0].weight.clone()
    fitter = stream(small(tail=tail), polar(400))
    assert fitter.surrogate.record.losses["behaviour"] > 0
    torch.testing.assert_close(tail[0].weight, before, rtol=0, atol=0)
    assert tail.training
    assert all(p.requires_grad for p in tail.parameters())
    assert all(p.grad is None for p in tail.parameters())


def test_a_tail_is_refused_where_samples_have_several_positions() -> None:
    states = [state.view(60, 5, 2) for state in polar(300)]
    with pytest.raises(ValueError, match="5 positions"):
        small(tail=nn.Linear(2, 3)).update(Trajectory.of(*states))


def test_dense_start_is_exactly_the_constant_for_every_latent_state() -> None:
    surrogate = stream(small(), polar(300)).surrogate
    assert isinstance(surrogate.operator, Dense)
    latent = surrogate.operator(surrogate.encode(polar(9)[0][:, None], "0"))
    torch.testing.assert_close(latent[..., 0], torch.ones(9, 1))


@pytest.mark.parametrize(
    "fitter", [tk.DMDFitter(), tk.EDMDFitter(calibration=600), small(steps_per_update=0)]
)
def test_of_all_that_streams_only_the_latest_trajectory_is_kept(fitter: Any) -> None:
    seen = []
    for seed in range(12):
        trajectory = Trajectory.of(*polar(100, seed=seed))
        seen.append(weakref.ref(next(iter(trajectory.states.values()))))
        fitter.update(trajectory)
        del trajectory
    assert [ref() is None for ref in seen] == [True] * 11 + [False]
