"""DMD of a stream against linear systems that are known, and against least squares on the rows."""

import cmath
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import draw, least_squares
from torchkoopman.observe.trajectory import Trajectory

ANGLE, SHRINK = 0.4, 0.9
STEP = torch.zeros(4, 4, dtype=torch.float64)
STEP[:2, :2] = SHRINK * torch.tensor(
    [[math.cos(ANGLE), -math.sin(ANGLE)], [math.sin(ANGLE), math.cos(ANGLE)]], dtype=torch.float64
)
STEP[2, 2], STEP[3, 3] = 0.8, 0.5
"""Rotation with decay, and two decaying modes."""
EIGENVALUES = [cmath.rect(SHRINK, ANGLE), cmath.rect(SHRINK, -ANGLE), 0.8, 0.5]
OFFSET = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)


def basis(features: int = 4) -> Tensor:
    """A well-conditioned but not orthogonal change of basis."""
    return torch.linalg.qr(draw(features, features, seed=9))[0] * torch.linspace(1, 2, features)


def linear_path(rows: int, layers: int, seed: int = 0) -> list[Tensor]:
    """x ↦ P STEP P⁻¹ x + OFFSET, row by row, ``layers`` states of shape ``(rows, 4)``."""
    matrix = basis() @ STEP @ torch.linalg.inv(basis())
    states = [draw(rows, 4, seed=seed)]
    for _ in range(layers - 1):
        states.append(states[-1] @ matrix.T + OFFSET)
    return states


def noisy_path(rows: int, layers: int, seed: int = 0) -> list[Tensor]:
    states = linear_path(rows, layers, seed)
    return [s + 0.3 * draw(*s.shape, seed=seed + 50 + k) for k, s in enumerate(states)]


def stream(fitter: tk.DMDFitter, states: list[Tensor], size: int) -> tk.DMDFitter:
    for parts in zip(*(state.split(size) for state in states), strict=True):
        fitter.update(Trajectory.of(*parts))
    return fitter


def assert_spectrum(surrogate: tk.Surrogate, expected: list[complex], tolerance: float) -> None:
    """Every expected eigenvalue is one of K's, and the rest of K's is the constant's 1."""
    found = surrogate.spectrum().eigenvalues
    assert len(found) == len(expected) + 1
    for value in [1.0, *expected]:
        assert (found - value).abs().min() < tolerance, (value, found)


def affine_map(surrogate: tk.Surrogate, features: int = 4) -> tuple[Tensor, Tensor]:
    """The map a DMD surrogate makes of states, read off by feeding zero and the unit vectors."""
    eye = torch.eye(features, dtype=next(surrogate.parameters()).dtype)[:, None]
    bias = surrogate(torch.zeros_like(eye[:1]))[0, 0]
    return (surrogate(eye)[:, 0] - bias).T.double(), bias.double()


def test_a_linear_system_with_offset_is_recovered_to_its_eigenvalues_to_1e_6() -> None:
    surrogate = stream(tk.DMDFitter(), linear_path(500, 4), 70).surrogate
    assert_spectrum(surrogate, [value**3 for value in EIGENVALUES], 1e-6)
    assert set(surrogate.record.r2) == {"1", "2", "3"}
    assert min(surrogate.record.r2.values()) > 1 - 1e-9


def test_every_layer_of_a_linear_system_is_predicted_from_every_earlier_one() -> None:
    states = linear_path(300, 5)
    surrogate = stream(tk.DMDFitter(), states, 100).surrogate
    for i in range(5):
        for j in range(i + 1, 5):
            ahead = surrogate.predict(states[i][:, None].float(), str(i), str(j))[:, 0]
            torch.testing.assert_close(ahead.double(), states[j], rtol=1e-4, atol=1e-4)


def test_step_dynamics_without_ridge_is_least_squares_on_all_stacked_pairs() -> None:
    states = noisy_path(400, 4)
    surrogate = stream(tk.DMDFitter(dynamics="step", ridge=0.0), states, 64).surrogate
    start, end = torch.cat(states[:-1]), torch.cat(states[1:])
    weight, bias = least_squares(start, end)
    found, offset = affine_map(surrogate.float())
    power = torch.linalg.matrix_power(weight, 3)
    shift = (torch.eye(4, dtype=torch.float64) + weight + weight @ weight) @ bias
    torch.testing.assert_close(found, power, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(offset, shift, rtol=1e-4, atol=1e-4)


def test_span_dynamics_without_ridge_is_least_squares_of_the_last_layer_on_the_first() -> None:
    states = noisy_path(400, 4)
    surrogate = stream(tk.DMDFitter(dynamics="span", ridge=0.0), states, 64).surrogate
    for found, expected in zip(
        affine_map(surrogate), least_squares(states[0], states[-1]), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert set(surrogate.record.r2) == {"3"}, "a span fit says nothing of the layers between"


def test_span_dynamics_predicts_the_last_layer_at_least_as_well_as_steps() -> None:
    states = noisy_path(400, 4)
    states[-1] = states[-1].tanh()
    span = tk.DMDFitter(dynamics="span").update(Trajectory.of(*states)).surrogate
    step = tk.DMDFitter(dynamics="step").update(Trajectory.of(*states)).surrogate
    assert span.record.r2["3"] > step.record.r2["3"]


def test_the_order_of_batches_changes_nothing_so_rows_of_different_samples_are_never_paired() -> (
    None
):
    states = noisy_path(350, 3)
    order = torch.randperm(350, generator=torch.Generator().manual_seed(1))
    here = stream(tk.DMDFitter(), states, 50).surrogate
    there = stream(tk.DMDFitter(), [state[order] for state in states], 35).surrogate
    probe = draw(20, 1, 4, seed=3).float()
    torch.testing.assert_close(here(probe), there(probe), rtol=1e-4, atol=1e-4)
    assert here.record.rows == there.record.rows == 350


def test_a_scalar_recurrence_of_second_order_needs_exactly_one_delay() -> None:
    """s' = a s - b s⁻: roots of λ² - aλ + b, which no single state knows."""
    a, b = 2 * 0.95 * math.cos(0.5), 0.95**2
    states = [draw(200, 1), draw(200, 1, seed=1)]
    for _ in range(4):
        states.append(a * states[-1] - b * states[-2])
    surrogate = stream(tk.DMDFitter(delays=1), states, 64).surrogate
    assert surrogate.layers == ("1", "2", "3", "4", "5")
    assert min(surrogate.record.r2.values()) > 1 - 1e-9
    roots = [cmath.rect(0.95, 0.5) ** 4, cmath.rect(0.95, -0.5) ** 4]
    assert_spectrum(surrogate, roots, 1e-5)
    blind = stream(tk.DMDFitter(delays=0), states, 64).surrogate
    assert blind.record.r2["5"] < 0.9


def test_more_delays_than_layers_allow_are_refused_with_numbers() -> None:
    with pytest.raises(ValueError, match="delays=2 over 3 layers"):
        tk.DMDFitter(delays=2).update(Trajectory.of(*linear_path(50, 3)))


def test_layers_of_different_widths_are_predicted_from_the_first() -> None:
    """A rank-3 system seen through an injective map of another width in each layer."""
    hidden = [draw(400, 3)]
    for _ in range(2):
        hidden.append(hidden[-1] @ (STEP[:3, :3] + 0.05).T)
    views = [draw(width, 3, seed=width) for width in (3, 7, 5)]
    states = [h @ view.T + 2 for h, view in zip(hidden, views, strict=True)]
    surrogate = stream(tk.DMDFitter(dynamics="span"), states, 90).surrogate
    assert [frame.features for frame in surrogate.frames()] == [3, 7, 5]
    assert surrogate.record.r2["2"] > 1 - 1e-9
    assert surrogate(states[0][:5, None].float()).shape == (5, 1, 5)


def test_shared_coordinates_over_layers_of_different_widths_are_refused() -> None:
    fitter = tk.DMDFitter(frames="shared").update(Trajectory.of(draw(50, 3), draw(50, 4)))
    with pytest.raises(ValueError, match="one width"):
        _ = fitter.surrogate


@pytest.mark.parametrize(
    ("rank", "kept"), [(-1, 4), (2, 2), (3, 3), (100, 4), (0.5, 1), (0.999, 2)]
)
def test_rank_is_all_or_a_number_or_a_share_of_the_variance(rank: float, kept: int) -> None:
    """Two directions carry all but 2e-4 of the variance, one of them 80 %."""
    states = [draw(4000, 4, seed=k) * torch.tensor([2.0, 1.0, 0.02, 0.02]) for k in range(2)]
    surrogate = tk.DMDFitter(rank).update(Trajectory.of(*states)).surrogate
    assert surrogate.latent == kept + 1


def test_rank_zero_cuts_noise_off_by_the_threshold_of_gavish_and_donoho() -> None:
    signal = draw(2000, 3) @ draw(3, 20, seed=1)
    states = [signal + 0.01 * draw(2000, 20, seed=2), 0.5 * signal]
    surrogate = (
        tk.DMDFitter(0, frames="aligned").update(Trajectory.of(states[0], states[0])).surrogate
    )
    assert surrogate.latent == 3 + 1


@pytest.mark.parametrize("rank", [-2, 1.5, -0.5])
def test_a_rank_of_no_meaning_is_refused_at_once(rank: float) -> None:
    with pytest.raises(ValueError, match=f"rank={rank}"):
        tk.DMDFitter(rank)


def test_any_span_can_be_had_from_one_pass_when_all_pairs_are_kept() -> None:
    states = noisy_path(300, 4)
    fitter = stream(tk.DMDFitter(pairs="all", ridge=0.0), states, 64)
    for i in range(4):
        for j in range(i + 1, 4):
            surrogate = fitter.between(str(i), str(j))
            assert surrogate.layers == (str(i), str(j))
            weight, bias = least_squares(states[i], states[j])
            found, offset = affine_map(surrogate)
            torch.testing.assert_close(found, weight, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(offset, bias, rtol=1e-4, atol=1e-4)


def test_a_span_whose_moments_were_not_kept_is_refused_by_name() -> None:
    fitter = stream(tk.DMDFitter(dynamics="span"), linear_path(100, 5), 50)
    with pytest.raises(ValueError, match=r"'1' and '3' were not kept.*pairs='all'"):
        fitter.between("1", "3")
    with pytest.raises(ValueError, match="the earlier one first"):
        fitter.between("3", "1")


def test_a_span_of_a_layer_that_was_not_streamed_is_refused_by_name() -> None:
    fitter = stream(tk.DMDFitter(pairs="all"), linear_path(100, 3), 50)
    with pytest.raises(ValueError, match="'7'"):
        fitter.between("0", "7")


def test_masked_rows_do_not_count() -> None:
    states = noisy_path(120, 3)
    mask = torch.rand(120, 1, generator=torch.Generator().manual_seed(2)) < 0.7
    clean = Trajectory.of(*(state[mask[:, 0]] for state in states))
    spoilt = {
        layer: torch.where(mask[:, :, None], state[:, None], torch.full((), 1e6).double())
        for layer, state in zip("012", states, strict=True)
    }
    here = tk.DMDFitter().update(Trajectory(spoilt, mask=mask)).surrogate
    there = tk.DMDFitter().update(clean).surrogate
    probe = draw(9, 1, 4, seed=3).float()
    torch.testing.assert_close(here(probe), there(probe))
    assert here.record.rows == int(mask.sum())
    assert here.record.r2 == pytest.approx(there.record.r2, rel=1e-6)


def test_class_statistics_sum_to_the_total() -> None:
    states = noisy_path(300, 3)
    labels = torch.arange(300) % 3
    fitter = tk.DMDFitter()
    for start in range(0, 300, 60):
        rows = slice(start, start + 60)
        fitter.update(Trajectory.of(*(s[rows] for s in states), labels=labels[rows]))
    surrogate = fitter.surrogate
    statistics = surrogate.statistics
    assert statistics is not None
    assert statistics.classes == (0, 1, 2)
    assert [statistics.by_class[c].count for c in range(3)] == [100, 100, 100]
    total = statistics.total()
    latent = surrogate.double().encode(states[0][:, None], "0")[:, 0]
    torch.testing.assert_close(total.mean("start"), latent.mean(0), rtol=1e-5, atol=1e-5)
    weighted = sum(100 * statistics.by_class[c].mean("start") for c in range(3)) / 300
    torch.testing.assert_close(weighted, total.mean("start"), rtol=1e-9, atol=1e-9)
    one = latent[labels == 1]
    torch.testing.assert_close(
        statistics.by_class[1].cov("start", "start"), one.T.cov(correction=0), rtol=1e-4, atol=1e-5
    )


def test_labels_do_not_change_the_fit() -> None:
    states = noisy_path(200, 3)
    plain = tk.DMDFitter().update(Trajectory.of(*states)).surrogate
    labelled = tk.DMDFitter().update(Trajectory.of(*states, labels=torch.arange(200) % 4)).surrogate
    probe = draw(9, 1, 4, seed=3).float()
    torch.testing.assert_close(plain(probe), labelled(probe))


def test_no_more_rows_than_features_are_refused_with_both_numbers() -> None:
    fitter = tk.DMDFitter().update(Trajectory.of(draw(5, 8), draw(5, 8, seed=1)))
    with pytest.raises(ValueError, match=r"\b5 rows"):
        _ = fitter.surrogate


def test_a_surrogate_before_any_data_is_refused_with_the_way_to_stream() -> None:
    with pytest.raises(ValueError, match="no data yet"):
        _ = tk.DMDFitter().surrogate
    with pytest.raises(ValueError, match="stream_to"):
        tk.DMDFitter().between("0", "1")


def test_other_layers_than_the_first_ones_are_refused_with_both_lists() -> None:
    states = linear_path(20, 3)
    fitter = tk.DMDFitter().update(Trajectory.of(*states))
    with pytest.raises(ValueError, match=r"\('0', '1', '2'\).*\('0', '1'\)"):
        fitter.update(Trajectory.of(*states[:2]))


def test_unknown_dynamics_are_refused() -> None:
    with pytest.raises(ValueError, match="'auto', 'step' or 'span'"):
        tk.DMDFitter(dynamics="both")  # type: ignore[arg-type]


def test_unknown_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="'ends', 'chain', 'adjacent' or 'all'"):
        tk.DMDFitter(pairs="some").update(Trajectory.of(*linear_path(9, 2)))  # type: ignore[arg-type]


def test_rows_that_are_not_finite_are_not_in_the_fit() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    x = draw(100, 4).float()
    bad = x.clone()
    bad[::10, 1] = torch.nan
    with tk.attach(model, "*") as probe:
        spoilt, clean = tk.DMDFitter(), tk.DMDFitter()
        probe.stream_to(spoilt)
        model(bad)
    with tk.attach(model, "*") as probe:
        probe.stream_to(clean)
        model(x[torch.arange(100) % 10 != 0])
    assert spoilt.surrogate.record.rows == 90
    inputs = model[0](x)[:, None]
    torch.testing.assert_close(
        spoilt.surrogate(inputs), clean.surrogate(inputs), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_input_precision_decides_how_exact_the_fit_is(dtype: torch.dtype) -> None:
    states = [state.to(dtype) for state in linear_path(500, 4)]
    surrogate = stream(tk.DMDFitter(), states, 100).surrogate
    tolerance = 1e-6 if dtype == torch.float64 else 1e-5
    assert_spectrum(surrogate, [value**3 for value in EIGENVALUES], tolerance)


def test_bfloat16_states_are_fitted() -> None:
    states = [state.bfloat16() for state in linear_path(500, 3)]
    surrogate = stream(tk.DMDFitter(), states, 100).surrogate
    assert min(surrogate.record.r2.values()) > 1 - 1e-3


def test_small_and_large_amplitudes_are_both_fitted() -> None:
    """Five orders of magnitude between features, where float32 sums would lose the small one."""
    states = linear_path(1000, 3)
    scale = torch.tensor([1e-2, 1.0, 1.0, 1e3], dtype=torch.float64)
    surrogate = stream(tk.DMDFitter(ridge=0.0), [state * scale for state in states], 100).surrogate
    assert_spectrum(surrogate, [value**2 for value in EIGENVALUES], 1e-5)


def test_memory_does_not_grow_with_the_stream() -> None:
    fitter = tk.DMDFitter()
    states = linear_path(64, 3)
    fitter.update(Trajectory.of(*states))
    assert fitter._moments is not None
    before = fitter._moments.nbytes
    for _ in range(50):
        fitter.update(Trajectory.of(*states))
    assert fitter._moments.nbytes == before
    assert before == 8 * (3 * 4 + (3 + 3) * 16), (
        "three means; three own and three cross covariances"
    )
    assert fitter.surrogate.record.rows == 51 * 64


@pytest.mark.parametrize("labelled", [False, True])
def test_a_surrogate_is_a_value_that_later_updates_do_not_touch(labelled: bool) -> None:
    states = noisy_path(100, 3)
    labels = torch.arange(100) % 2 if labelled else None
    fitter = tk.DMDFitter().update(Trajectory.of(*states, labels=labels))
    surrogate = fitter.surrogate
    statistics = surrogate.statistics
    assert statistics is not None
    before, kept = (
        {name: tensor.clone() for name, tensor in tensors.items()}
        for tensors in (surrogate.state_dict(), statistics.tensors())
    )
    fitter.update(Trajectory.of(*(5 * state for state in states)))
    for name, tensor in surrogate.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in statistics.tensors().items())
    assert fitter.surrogate.record.rows == 200


def test_update_returns_the_fitter() -> None:
    fitter = tk.DMDFitter()
    assert fitter.update(Trajectory.of(*linear_path(9, 2))) is fitter


def test_positions_are_rows_of_their_own() -> None:
    states = noisy_path(240, 3)
    flat = tk.DMDFitter().update(Trajectory.of(*states)).surrogate
    tokens = tk.DMDFitter().update(Trajectory.of(*(s.view(40, 6, 4) for s in states))).surrogate
    probe = draw(9, 1, 4, seed=3).float()
    torch.testing.assert_close(flat(probe), tokens(probe))


def test_a_ridge_means_the_same_at_any_scale() -> None:
    states = noisy_path(200, 3)
    fits = [
        tk.DMDFitter(ridge=0.1).update(Trajectory.of(*(scale * s for s in states))).surrogate
        for scale in (1.0, 1000.0)
    ]
    moduli = [fit.spectrum().moduli for fit in fits]
    torch.testing.assert_close(*moduli, rtol=1e-5, atol=1e-6)


def test_consecutive_layers_are_paired_and_no_others() -> None:
    """A slow loop over samples and layers builds the same normal equations."""
    states = noisy_path(60, 4)
    gram = torch.zeros(5, 5, dtype=torch.float64)
    cross = torch.zeros(5, 4, dtype=torch.float64)
    for row in range(60):
        for start, end in pairwise(states):
            one = torch.cat([start[row], torch.ones(1, dtype=torch.float64)])
            gram += torch.outer(one, one)
            cross += torch.outer(one, end[row])
    solution = torch.linalg.solve(gram, cross)
    surrogate = stream(tk.DMDFitter(ridge=0.0), states, 17).surrogate
    ahead = surrogate.predict(states[0][:, None].float(), "0", "1")[:, 0].double()
    torch.testing.assert_close(
        ahead, states[0] @ solution[:-1] + solution[-1], rtol=1e-4, atol=1e-4
    )
