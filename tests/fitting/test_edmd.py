"""EDMD: maps the dictionary holds exactly, a network against the best affine map, streams."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import normal, seeded
from torchkoopman.fitting.quality import Unexplained
from torchkoopman.koopman.feature_maps import Part
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.running.baselines import Baselines


def network(x: Tensor) -> list[Tensor]:
    """The states of a small tanh network."""
    inner = torch.tanh(0.6 * x @ normal(4, 4, seed=1) + 0.5 * normal(4, seed=2))
    return [x, inner, torch.tanh(1.5 * inner @ normal(4, 4, seed=3))]


def r2(surrogate: tk.Surrogate, states: Sequence[Tensor]) -> float:
    ahead = surrogate(states[0][:, None])[:, 0]
    return Unexplained().update(ahead, states[-1]).r2


def stream(fitter: tk.EDMDFitter, trajectory: Trajectory, size: int) -> tk.EDMDFitter:
    for rows in torch.arange(trajectory.batch).split(size):
        fitter.update(trajectory.select(rows))
    return fitter


def small(**options: object) -> tk.EDMDFitter:
    """A dictionary of 60 random features, calibrated on its first 200 rows."""
    options = {"calibration": 200, "generator": seeded(7), **options}
    return tk.EDMDFitter(tk.RandomFeatures(60), **options)  # type: ignore[arg-type]


def test_a_map_that_the_dictionary_contains_is_fitted_exactly() -> None:
    """The target is a linear function of the fitter's own random features."""
    first = normal(600, 3)
    build = small().update(Trajectory.of(first, first)).surrogate
    features = build.encode(first[:, None], "0")[:, 0]
    target = features @ normal(build.latent, 3, seed=5)
    fitter = small(ridge=1e-12).calibrate(Trajectory.of(first, first))
    surrogate = fitter.update(Trajectory.of(first, target)).surrogate
    assert surrogate.record.r2["1"] > 1 - 1e-7
    # On rows it has not seen too: the calibration fixed the same features.
    other = normal(200, 3, seed=8)
    truth = build.encode(other[:, None], "0")[:, 0] @ normal(build.latent, 3, seed=5)
    ahead = surrogate(other[:, None])
    assert Unexplained().update(ahead[:, 0], truth).value < 1e-3


def test_a_tanh_network_is_fitted_four_times_better_than_by_the_ridge_map_on_fresh_rows() -> None:
    seen, fresh = Trajectory.of(*network(normal(4000, 4))), network(normal(1000, 4, seed=99))
    surrogate = stream(tk.EDMDFitter(tk.RandomFeatures(300)), seen, 500).surrogate
    weight, bias = Baselines().update(seen).maps(4)["ridge map"]
    affine = Unexplained().update(fresh[0].double() @ weight.T + bias, fresh[-1]).r2
    assert affine < 0.9
    assert 1 - r2(surrogate, fresh) < (1 - affine) / 4


def test_step_dynamics_predicts_every_layer_and_span_only_the_last() -> None:
    seen = Trajectory.of(*network(normal(1500, 4)))
    assert set(stream(small(), seen, 300).surrogate.record.r2) == {"2"}
    step = stream(small(dynamics="step", frames="aligned"), seen, 300).surrogate
    assert set(step.record.r2) == {"1", "2"}
    assert min(step.record.r2.values()) > 0.7


def test_streaming_in_small_batches_is_streaming_in_one() -> None:
    """The same rows calibrate both: the frame is fixed by ``calibrate``."""
    seen = Trajectory.of(*network(normal(900, 4)))
    calibration = seen.select(torch.arange(300))
    fits = [stream(small().calibrate(calibration), seen, size).surrogate for size in (900, 128, 7)]
    probe = normal(50, 1, 4, seed=3)
    for fit in fits[1:]:
        torch.testing.assert_close(fit(probe), fits[0](probe), rtol=1e-3, atol=1e-3)
        assert fit.record.rows == 900


def test_rows_held_back_for_calibration_are_in_the_fit() -> None:
    seen = Trajectory.of(*network(normal(900, 4)))
    held = stream(small(), seen, 100)
    assert held.surrogate.record.rows == 900
    fixed = stream(small().calibrate(seen.select(torch.arange(200))), seen, 900).surrogate
    probe = normal(50, 1, 4, seed=3)
    torch.testing.assert_close(held.surrogate(probe), fixed(probe), rtol=1e-3, atol=1e-3)


def test_rows_given_to_calibrate_alone_are_not_in_the_fit() -> None:
    seen = Trajectory.of(*network(normal(500, 4)))
    fitter = small().calibrate(Trajectory.of(*network(normal(300, 4, seed=4)))).update(seen)
    surrogate = fitter.surrogate
    assert surrogate.record.rows == 500
    assert surrogate.statistics is not None
    assert surrogate.statistics.count == 500


def test_a_trajectory_both_streamed_and_given_to_calibrate_counts_once() -> None:
    seen = Trajectory.of(*network(normal(300, 4)))
    fitter = small(calibration=10_000).update(seen)
    assert fitter.calibrate(seen).surrogate.record.rows == 300


def test_calibrating_twice_is_refused() -> None:
    seen = Trajectory.of(*network(normal(300, 4)))
    fitter = small().calibrate(seen)
    with pytest.raises(RuntimeError, match="calibrated already"):
        fitter.calibrate(seen)


def test_calibrating_without_data_is_refused() -> None:
    with pytest.raises(ValueError, match="no data yet"):
        small().calibrate()


def test_a_stream_of_other_layers_than_the_calibration_is_refused_by_name() -> None:
    a, b, c = network(normal(300, 4))
    fitter = small().calibrate(Trajectory.of(a, b, c))
    with pytest.raises(ValueError, match=r"\('0', '1', '2'\)"):
        fitter.update(Trajectory({"p": a[:, None], "q": b[:, None]}))


def test_other_layers_within_the_stream_are_refused_by_name() -> None:
    a, b, c = network(normal(50, 4))
    fitter = small().update(Trajectory.of(a, b, c))
    with pytest.raises(ValueError, match=r"\('0', '1', '2'\).*\('0', '1'\)"):
        fitter.update(Trajectory.of(a, b))


def test_a_surrogate_before_the_calibration_is_complete_comes_from_the_rows_there_are() -> None:
    states = network(normal(400, 4))
    fitter = small(calibration=100_000)
    surrogate = fitter.update(Trajectory.of(*states)).surrogate
    assert surrogate.record.rows == 400
    assert r2(surrogate, states) > 0.8
    again = fitter.update(Trajectory.of(*network(normal(400, 4, seed=5)))).surrogate
    assert again.record.rows == 800, "and the stream goes on"


def test_a_surrogate_asked_for_too_early_costs_no_rows() -> None:
    """Refused for lack of rows, then streamed on: the fit is that of all rows."""
    early, late = (Trajectory.of(*network(normal(n, 4, seed=n))) for n in (3, 400))
    fitter = small().update(early)
    with pytest.raises(ValueError, match="3 rows"):
        _ = fitter.surrogate
    assert fitter.update(late).surrogate.record.rows == 403


def test_a_surrogate_before_any_data_is_refused_with_the_way_to_stream() -> None:
    with pytest.raises(ValueError, match=r"no data yet.*stream_to"):
        _ = small().surrogate


def test_no_more_rows_than_observables_are_refused_with_both_numbers() -> None:
    fitter = small(calibration=20).update(Trajectory.of(*network(normal(40, 4))))
    with pytest.raises(ValueError, match=r"40 rows .* 65 features.*fewer observables"):
        _ = fitter.surrogate


TOKENS = normal(400, 8, 3, seed=11)
PADDED = torch.arange(8) < 4 + torch.arange(400)[:, None] % 5


def of_tokens(target: Tensor, mask: Tensor | None = None) -> Trajectory:
    return Trajectory({"in": TOKENS, "out": target}, mask=mask)


def last_r2(parts: Part | Sequence[Part], trajectory: Trajectory) -> float:
    fitter = tk.EDMDFitter(parts, calibration=200, ridge=1e-10)
    return fitter.update(trajectory).surrogate.record.r2["out"]


def test_neighbours_see_the_token_before_and_random_features_do_not() -> None:
    previous = torch.cat([TOKENS[:, :1], TOKENS[:, :-1]], 1)
    trajectory = of_tokens(TOKENS + 2 * previous)
    assert last_r2(tk.Neighbours((-1,)), trajectory) > 1 - 1e-6
    assert last_r2(tk.Neighbours((1,)), trajectory) < 0.7
    assert last_r2(tk.RandomFeatures(100), trajectory) < 0.7


def test_context_mean_sees_the_mean_token_and_random_features_do_not() -> None:
    trajectory = of_tokens(TOKENS - 3 * TOKENS.mean(1, keepdim=True))
    assert last_r2(tk.ContextMean(), trajectory) > 1 - 1e-6
    assert last_r2(tk.RandomFeatures(100), trajectory) < 0.7


def test_causal_context_mean_sees_only_what_came_before() -> None:
    running = TOKENS.cumsum(1) / torch.arange(1, 9)[:, None]
    trajectory = of_tokens(TOKENS - 3 * running)
    assert last_r2(tk.ContextMean(causal=True), trajectory) > 1 - 1e-6
    assert last_r2(tk.ContextMean(), trajectory) < 0.95


def test_context_of_padded_samples_is_that_of_their_real_tokens() -> None:
    mean = (TOKENS * PADDED[..., None]).sum(1, keepdim=True) / PADDED.sum(1)[:, None, None]
    spoilt = torch.where(PADDED[..., None], TOKENS, torch.full_like(TOKENS, 1e4))
    target = torch.where(PADDED[..., None], TOKENS - 3 * mean, torch.full_like(TOKENS, 1e4))
    trajectory = Trajectory({"in": spoilt, "out": target}, mask=PADDED)
    fitter = tk.EDMDFitter(tk.ContextMean(), calibration=200, ridge=1e-10).update(trajectory)
    surrogate = fitter.surrogate
    assert surrogate.record.rows == int(PADDED.sum())
    assert surrogate.record.r2["out"] > 1 - 1e-6
    ahead = surrogate(spoilt, mask=PADDED)
    torch.testing.assert_close(ahead[PADDED], target[PADDED], rtol=1e-3, atol=1e-3)


def test_several_parts_add_up() -> None:
    previous = torch.cat([TOKENS[:, :1], TOKENS[:, :-1]], 1)
    trajectory = of_tokens(previous - 3 * TOKENS.mean(1, keepdim=True))
    parts = [tk.Neighbours((-1,)), tk.ContextMean()]
    assert last_r2(parts, trajectory) > 1 - 1e-6
    assert max(last_r2(part, trajectory) for part in parts) < 0.99


def test_the_same_generator_gives_the_same_bits_and_another_one_others() -> None:
    seen = Trajectory.of(*network(normal(600, 4)))
    first, second, other = (
        stream(small(generator=seeded(seed)), seen, 100).surrogate.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_global_seed_is_neither_read_nor_touched() -> None:
    seen = Trajectory.of(*network(normal(600, 4)))
    results = []
    with torch.random.fork_rng():
        for seed in (0, 1):
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            results.append(tk.EDMDFitter(tk.RandomFeatures(40)).update(seen).surrogate.state_dict())
            assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_the_users_parts_are_left_as_they_were_and_can_be_used_again() -> None:
    part = tk.RandomFeatures(40)
    seen = Trajectory.of(*network(normal(300, 4)))
    narrow = Trajectory.of(normal(300, 2), normal(300, 2, seed=1))
    for trajectory in (seen, narrow):
        _ = tk.EDMDFitter(part, calibration=100).update(trajectory).surrogate
    assert dict(part.state_dict()) == {}
    assert not hasattr(part, "weight")


def test_a_surrogate_is_a_value_that_later_updates_do_not_touch() -> None:
    fitter = small().update(Trajectory.of(*network(normal(400, 4))))
    surrogate = fitter.surrogate
    before = {name: tensor.clone() for name, tensor in surrogate.state_dict().items()}
    fitter.update(Trajectory.of(*(3 * s for s in network(normal(400, 4, seed=2)))))
    _ = fitter.surrogate
    for name, tensor in surrogate.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_any_span_can_be_had_from_one_pass_when_all_pairs_are_kept() -> None:
    states = network(normal(2000, 4))
    fitter = stream(small(pairs="all"), Trajectory.of(*states), 500)
    late = fitter.between("1", "2")
    assert late.layers == ("1", "2")
    assert r2(late, states[1:]) > 0.98
    early = fitter.between("0", "1")
    assert r2(early, states[:2]) > 0.95


def test_a_span_of_a_layer_that_was_not_streamed_is_refused_by_name() -> None:
    fitter = small().update(Trajectory.of(*network(normal(400, 4))))
    with pytest.raises(ValueError, match="'7'"):
        fitter.between("0", "7")


def test_class_statistics_sum_to_the_total() -> None:
    states = network(normal(400, 4))
    seen = Trajectory.of(*states, labels=torch.arange(400) % 4)
    surrogate = stream(small(), seen, 77).surrogate
    statistics = surrogate.statistics
    assert statistics is not None
    assert {c: statistics.by_class[c].count for c in statistics.classes} == dict.fromkeys(
        range(4), 100
    )
    latent = surrogate.encode(states[0][:, None], "0")[:, 0].double()
    torch.testing.assert_close(
        statistics.total().mean("start"), latent.mean(0), rtol=1e-5, atol=1e-5
    )
    expected = latent[torch.arange(400) % 4 == 2].mean(0)
    torch.testing.assert_close(statistics.by_class[2].mean("start"), expected, rtol=1e-5, atol=1e-5)


def test_rank_keeps_that_many_principal_directions() -> None:
    surrogate = small(rank=2).update(Trajectory.of(*network(normal(500, 4)))).surrogate
    assert surrogate.latent == 1 + 2 + 60


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_states_of_other_precisions_are_fitted(dtype: torch.dtype) -> None:
    states = [state.to(dtype) for state in network(normal(500, 4))]
    surrogate = stream(small(), Trajectory.of(*states), 100).surrogate
    assert surrogate.record.r2["2"] > 0.9


def test_memory_does_not_grow_with_the_stream() -> None:
    seen = Trajectory.of(*network(normal(300, 4)))
    fitter = small().update(seen)
    assert fitter._moments is not None
    before = fitter._moments.nbytes
    for _ in range(10):
        fitter.update(seen)
    assert fitter._moments.nbytes == before
    assert not fitter._calibration.held


def test_a_network_with_relu_in_place_streams_through_hooks() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Tanh())
    fitter = small(calibration=150)
    with tk.attach(model, ["0", "3"]) as probe:
        probe.stream_to(fitter)
        for part in normal(600, 4).split(100):
            model(part)
    x = normal(300, 4, seed=5)
    start = model[0](x).detach().clone()
    assert r2(fitter.surrogate, [start, model(x).detach()]) > 0.9


@pytest.mark.parametrize("wrong", ["tanh", tk.RandomFeatures, [tk.ContextMean(), 3]])
def test_observables_of_another_kind_are_refused_with_the_list(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"RandomFeatures, .*ContextMean, Neighbours.*got"):
        tk.EDMDFitter(wrong)  # type: ignore[arg-type]
