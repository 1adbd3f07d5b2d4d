"""The online autoencoder on a small nonlinear system: what it learns, and what it promises."""

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.fitting.autoencoders import (
    FAMILIES,
    polar,
    r2,
    ridge_r2,
    small,
    stream,
)
from tests.systems import normal, seeded
from torchkoopman.fitting.autoencoder import Family
from torchkoopman.fitting.dynamics import Dynamics
from torchkoopman.fitting.quality import Unexplained, explained
from torchkoopman.koopman.operators import Dense
from torchkoopman.observe.trajectory import Trajectory


@pytest.mark.slow
def test_a_nonlinear_system_is_learnt_far_better_than_by_the_ridge_map() -> None:
    seen, fresh = polar(2000), polar(1000, seed=7)
    surrogate = stream(small(), seen).train(250).surrogate
    assert ridge_r2(seen, fresh) < 0.7
    assert 1 - r2(surrogate, fresh) < 0.2 * (1 - ridge_r2(seen, fresh))


@pytest.mark.slow
def test_every_layer_is_predicted_at_its_depth_time_and_inner_spans_too() -> None:
    fresh = polar(1000, 4, seed=7)
    fitter = stream(small(weights=tk.LossWeights(inner=1.0)), polar(2000, 4))
    surrogate = fitter.train(250).surrogate
    assert surrogate.span.times == pytest.approx((0, 1 / 3, 2 / 3, 1))
    scores = explained(surrogate, Trajectory.of(*fresh))
    assert set(scores) == {"1", "2", "3"}
    assert min(scores.values()) > 0.8
    inner = surrogate.predict(fresh[1][:, None], "1", "2")[:, 0]
    assert Unexplained().update(inner, fresh[2]).value < 0.2


@pytest.mark.slow
def test_training_on_the_reservoir_improves_what_the_stream_gave() -> None:
    fresh = polar(1000, seed=7)
    fitter = stream(small(steps_per_update=1), polar(2000))
    before = r2(fitter.surrogate, fresh)
    assert r2(fitter.train(150).surrogate, fresh) > before


@pytest.mark.parametrize("dynamics", ["step", "span"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_its_guarantee_through_training(
    family: Family, dynamics: Dynamics
) -> None:
    fitter = small(operator=family, operator_rank=3, dynamics=dynamics)
    surrogate = stream(fitter, polar(400)).train(60).surrogate
    assert type(surrogate.operator).__name__ == family
    assert all(value > -0.5 for value in surrogate.record.r2.values())
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
    assert set(surrogate.record.r2) == {"2"}
    assert surrogate.record.r2["2"] > 0.5


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


def test_a_dense_operator_starts_from_the_closed_form() -> None:
    """On a linear system the first prediction, before any step, is already good."""
    x = normal(600, 3)
    matrix = torch.linalg.qr(normal(3, 3, seed=2))[0] * 0.9
    states = [x, x @ matrix, x @ matrix @ matrix]
    fitter = stream(small(steps_per_update=0, latent=40), states)
    assert fitter.steps == 0
    assert min(fitter.surrogate.record.r2.values()) > 0.9


def test_layers_of_different_widths_are_learnt() -> None:
    x = normal(500, 6)
    states = [x, torch.tanh(x @ normal(6, 3, seed=1)), torch.tanh(x @ normal(6, 4, seed=2))]
    surrogate = stream(small(), states).surrogate
    assert [frame.features for frame in surrogate.frames()] == [6, 3, 4]
    assert surrogate(x[:5, None]).shape == (5, 1, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_states_of_other_precisions_are_learnt(dtype: torch.dtype) -> None:
    surrogate = stream(small(), [state.to(dtype) for state in polar(400)]).surrogate
    assert surrogate.record.r2["2"] > 0


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
