"""Fitters that forget: streams that drift, frames renewed, and fitters begun again."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.systems import seeded
from torchkoopman.fitting.autoencoder import AutoencoderFitter
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.fitting.drift import Renewal, Window
from torchkoopman.fitting.edmd import EDMDFitter
from torchkoopman.fitting.quality import explained
from torchkoopman.koopman.feature_maps import ContextMean, RandomFeatures
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.trajectory import Trajectory

HALFLIFE = 600.0


def trajectory(phase: float, seed: int, rows: int = 200) -> Trajectory:
    """Three layers of a system that turns, grows and moves off with its phase.

    A fifth feature is 0 everywhere at phase 0, so that a frame of that time leaves it out.
    """
    generator = seeded(seed)
    start = torch.randn(rows, 4, generator=generator) * (1 + phase) + 4 * phase
    extra = torch.randn(rows, 1, generator=generator) * 2 * phase
    turn = torch.tensor(1.0 + phase)
    middle = start.roll(1, 1) * turn.cos() + start * turn.sin()
    end = middle + torch.tanh(middle.roll(2, 1) - 4 * phase)
    states = (torch.cat([state, extra + 0.1 * extra * state], 1) for state in (start, middle, end))
    return Trajectory.of(*(state[:, :5] for state in states), labels=torch.arange(rows) % 3)


def drifting(batches: int = 40) -> Iterator[Trajectory]:
    """As many batches at phase 0, as many while the phase rises to 1, as many at phase 1."""
    for step in range(3 * batches):
        yield trajectory(min(1.0, max(0.0, step / batches - 1)), step)


def quality(fitter: Any, phase: float = 1.0) -> float:
    """``1 - R²`` of the last layer on unseen rows of a phase."""
    return 1 - list(explained(fitter.surrogate, trajectory(phase, 10_000, 3000)).values())[-1]


MAKE: dict[str, Callable[..., Any]] = {
    "dmd": lambda **options: DMDFitter(**options),
    "edmd": lambda **options: EDMDFitter(RandomFeatures(60), calibration=500, **options),
    "autoencoder": lambda **options: AutoencoderFitter(
        latent=12, calibration=500, steps_per_update=4, **options
    ),
}
CLOSED = ["dmd", "edmd"]


@pytest.mark.parametrize("kind", CLOSED)
def test_with_a_halflife_the_fit_is_that_of_the_present_system(kind: str) -> None:
    forgetful, faithful, fresh = (MAKE[kind](halflife=h) for h in (HALFLIFE, None, None))
    for part in drifting():
        forgetful.update(part)
        faithful.update(part)
    for seed in range(500, 540):
        fresh.update(trajectory(1.0, seed))
    assert quality(forgetful) <= 1.5 * quality(fresh)
    assert quality(faithful) > 1.4 * quality(forgetful), "the stream drifts enough to matter"


def test_dmd_of_a_forgetful_stream_is_the_one_of_its_weighted_rows() -> None:
    """Two parts whose weights are 1 : 2, and the stream in which the second comes twice."""
    first, second = trajectory(0.0, 1), trajectory(0.4, 2)
    forgetful = DMDFitter(halflife=200).update(first).update(second)
    doubled = DMDFitter().update(first).update(second).update(second)
    torch.testing.assert_close(
        forgetful.surrogate.operator.matrix(1.0), doubled.surrogate.operator.matrix(1.0)
    )
    assert forgetful.surrogate.record.rows == 300, "the sum of the weights"


def test_a_frame_that_the_data_have_left_is_renewed_and_the_record_says_so() -> None:
    fitter = MAKE["edmd"](halflife=HALFLIFE)
    parts = list(drifting())
    for part in parts[:40]:
        fitter.update(part)
    assert not any("drifted" in note for note in fitter.surrogate.record.notes)
    assert fitter.surrogate.coordinates[0].size == 4, "one feature does not vary yet"
    for part in parts[40:]:
        fitter.update(part)
    surrogate = fitter.surrogate
    assert surrogate.coordinates[0].size == 5
    assert any("renewed" in note for note in surrogate.record.notes)


def test_renewed_moments_are_those_of_a_new_fitter_over_the_rows_kept() -> None:
    fitter = MAKE["edmd"](halflife=HALFLIFE, generator=seeded(5))
    held: list[Trajectory] = []
    parts = list(drifting())
    for part in parts:
        before = fitter._renewal.times
        fitter.update(part)
        if fitter._renewal.times > before:
            held = fitter._renewal.window.held
            break
    assert held, "the stream drifts"
    assert held[-1] is part, "the latest rows, the newest included"
    assert sum(each.batch for each in held) <= 3 * HALFLIFE
    anew = EDMDFitter(RandomFeatures(60), calibration=sum(each.batch for each in held))
    anew.halflife = HALFLIFE
    anew._parts, anew._generator = fitter._parts, seeded(5)
    torch.rand(1, generator=anew._generator)
    for each in held:
        anew.update(each)
    assert fitter._moments.count == pytest.approx(anew._moments.count)
    assert fitter._moments.classes == (0, 1, 2)
    for ours, theirs in zip(fitter._frames, anew._frames, strict=True):
        torch.testing.assert_close(ours.weight, theirs.weight)


def test_renewal_is_reproducible() -> None:
    def run() -> Tensor:
        fitter = MAKE["edmd"](halflife=HALFLIFE, generator=seeded(3))
        for part in drifting(20):
            fitter.update(part)
        assert fitter._renewal.times > 0
        matrix: Tensor = fitter.surrogate.operator.matrix(1.0)
        return matrix

    torch.testing.assert_close(run(), run(), rtol=0, atol=0)


def test_a_steady_stream_renews_nothing() -> None:
    fitter = MAKE["edmd"](halflife=HALFLIFE)
    for seed in range(100):
        fitter.update(trajectory(0.5, seed))
    assert fitter._renewal.times == 0


def test_a_frame_that_the_user_fixed_stays_and_the_record_says_when_the_data_left_it() -> None:
    fitter = MAKE["edmd"](halflife=HALFLIFE).calibrate(trajectory(0.0, 77, 1000))
    frames = fitter._frames
    for part in drifting():
        fitter.update(part)
    assert fitter._frames is frames
    assert any("calibrate(sample)" in note for note in fitter.surrogate.record.notes)


def test_rows_too_few_to_renew_from_are_named() -> None:
    fitter = MAKE["edmd"](halflife=HALFLIFE, replay_bytes=1)
    for part in drifting():
        fitter.update(trajectory(0, 0, 20) if part is None else part.select(torch.arange(20)))
    assert any("replay_bytes" in note for note in fitter.surrogate.record.notes)


def test_a_layer_that_becomes_constant_leaves_the_old_frame_in_place() -> None:
    fitter = MAKE["edmd"](halflife=HALFLIFE)
    for part in drifting(10):
        fitter.update(part)
    still = torch.ones(200, 5)
    for _ in range(20):
        fitter.update(Trajectory.of(still, still, still))
    assert fitter._frames
    assert any("constant" in note for note in fitter.surrogate.record.notes)


def test_the_rows_kept_are_the_latest_and_bounded_in_rows_and_bytes() -> None:
    parts = [trajectory(0, seed, 100) for seed in range(30)]
    size = 3 * 100 * 5 * 4
    by_rows, by_bytes = Window(1050, 10**9), Window(10**9, 5 * size)
    for part in parts:
        by_rows.add(part)
        by_bytes.add(part)
    assert all(a is b for a, b in zip(by_rows.held, parts[-10:], strict=True))
    assert all(a is b for a, b in zip(by_bytes.held, parts[-5:], strict=True))
    assert by_bytes.count == 500
    assert [each is part for each, part in zip(by_rows.latest(250), parts[-3:], strict=True)]


def test_samples_of_different_lengths_and_masks_drift_and_are_renewed_too() -> None:
    fitter = EDMDFitter([ContextMean()], calibration=300, halflife=300)
    for step in range(120):
        phase, positions = max(0.0, step / 40 - 1), 3 + step % 3
        generator = seeded(step)
        states = [
            torch.randn(10, positions, 3, generator=generator) * (1 + phase) + 5 * phase
            for _ in range(2)
        ]
        mask = torch.rand(10, positions, generator=generator) < 0.8
        whole = Trajectory.of(*states)
        fitter.update(Trajectory(whole.states, mask=mask))
    assert fitter._renewal is not None
    assert fitter._renewal.times > 0
    assert fitter.surrogate.record.rows == pytest.approx(300 / 0.6931, rel=0.1)


@pytest.mark.parametrize("kind", MAKE)
def test_after_a_reset_a_fitter_is_as_freshly_made(kind: str) -> None:
    used, fresh = MAKE[kind](halflife=HALFLIFE), MAKE[kind](halflife=HALFLIFE)
    for seed in range(5):
        used.update(Trajectory.of(*(torch.randn(200, 6, generator=seeded(seed)) for _ in "ab")))
    assert used.surrogate.layers == ("0", "1")
    assert used.reset() is used
    with pytest.raises(ValueError, match="seen no data"):
        _ = used.surrogate
    for seed in range(5):
        for fitter in (used, fresh):
            fitter.update(trajectory(0.2, seed))
    ours, theirs = used.surrogate, fresh.surrogate
    assert ours.record == theirs.record
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["edmd", "autoencoder"])
def test_a_reset_leaves_the_users_generator_where_it_stands(kind: str) -> None:
    generator = seeded(4)
    fitter = MAKE[kind](generator=generator)
    for seed in range(4):
        fitter.update(trajectory(0.2, seed))
    state = generator.get_state()
    fitter.reset()
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("halflife", [0, -1.0, float("nan")])
def test_a_halflife_that_is_not_positive_is_refused(kind: str, halflife: float) -> None:
    with pytest.raises(ValueError, match="positive number of rows"):
        MAKE[kind](halflife=halflife)


def test_a_halflife_too_short_for_the_observables_says_so() -> None:
    fitter = EDMDFitter(RandomFeatures(60), calibration=500, halflife=20)
    for seed in range(10):
        fitter.update(trajectory(0.3, seed, 10) if seed else trajectory(0.3, seed, 600))
    for seed in range(60):
        fitter.update(trajectory(0.3, seed, 10))
    with pytest.raises(ValueError, match="a longer halflife"):
        _ = fitter.surrogate


def test_the_autoencoder_trains_on_the_rows_of_the_present() -> None:
    fitter = MAKE["autoencoder"](halflife=HALFLIFE)
    for part in drifting(10):
        fitter.update(part)
    assert len(fitter._intake.reservoir) <= HALFLIFE / 0.6931 + 1
    assert fitter.surrogate.record.rows == 6000


def test_the_held_out_rows_of_a_forgetful_fit_weigh_in_it_what_they_weigh_in_the_moments() -> None:
    """Whatever sample is taken out, what is left are the moments of the other rows."""
    fitter = DMDFitter(halflife=HALFLIFE)
    parts = [trajectory(step / 30, step) for step in range(15)]
    for part in parts:
        fitter.update(part)
    total = fitter._moments.total()
    found = fitter._sample.read([total.features(layer) for layer in total.names])
    rows, weights = dict(zip(total.names, found.columns, strict=True)), found.weights
    assert weights is not None
    sample = {layer: values[::3] for layer, values in rows.items()}
    rest = total.minus(Moments(total.pairs).update(sample, weights[::3]))
    taken = {tuple(row) for row in sample["0"].tolist()}
    direct = Moments(total.pairs)
    for age, part in enumerate(reversed(parts)):
        kept = torch.tensor([tuple(row) not in taken for row in part.rows()["0"].tolist()])
        weight = torch.full((int(kept.sum()),), 2 ** (-200 * age / HALFLIFE)).double()
        direct.update({layer: values[kept] for layer, values in part.rows().items()}, weight)
    assert rest.count == pytest.approx(direct.count)
    for pair in total.pairs:
        torch.testing.assert_close(rest.cov(*pair), direct.cov(*pair), rtol=1e-9, atol=1e-9)


def test_a_drifted_autoencoder_is_renewed_and_goes_on_with_what_it_learnt() -> None:
    fitter = MAKE["autoencoder"](halflife=HALFLIFE)
    parts = list(drifting())
    for part in parts[:60]:
        fitter.update(part)
    assert fitter._intake.frames[0].size == 5, "the direction that came alive is followed"
    steps, times = fitter.steps, renewals(fitter)
    for part in parts[60:]:
        fitter.update(part)
    assert renewals(fitter) > times > 0
    assert fitter.steps == steps + 4 * 60 + 100 * (renewals(fitter) - times)
    assert fitter.surrogate.record.rows == 200 * 120
    assert any("renewed" in note for note in fitter.surrogate.record.notes)
    old = MAKE["autoencoder"]()
    for part in parts:
        old.update(part)
    assert quality(old) > 1.5 * quality(fitter)


def renewals(fitter: Any) -> int:
    """How often its coordinates were renewed."""
    times: int = fitter._intake._renewal.times
    return times


def test_an_autoencoder_that_is_to_take_no_steps_takes_none_where_data_drift() -> None:
    fitter = AutoencoderFitter(latent=6, calibration=500, steps_per_update=0, halflife=HALFLIFE)
    for part in list(drifting())[:80]:
        fitter.update(part)
    assert renewals(fitter) > 0
    assert fitter.steps == 0


def test_looking_at_an_autoencoder_that_goes_on_changes_nothing_of_what_comes() -> None:
    watched, alone = MAKE["autoencoder"](halflife=HALFLIFE), MAKE["autoencoder"](halflife=HALFLIFE)
    for step, part in enumerate(list(drifting())[:60]):
        for fitter in (watched, alone):
            fitter.update(part)
        if step % 20 == 9:
            watched.surrogate  # noqa: B018, a copy settles
    assert watched.steps == alone.steps > 0
    state = trajectory(0.5, 77).states["0"]
    torch.testing.assert_close(watched.surrogate(state), alone.surrogate(state), rtol=0, atol=0)
    torch.testing.assert_close(watched.surrogate(state), watched.surrogate(state), rtol=0, atol=0)


def test_the_surrogate_of_an_autoencoder_that_goes_on_has_settled() -> None:
    """As if it had been trained for 100 steps more; once trained it is as it is."""
    fitter = MAKE["autoencoder"](halflife=HALFLIFE)
    for part in list(drifting())[:40]:
        fitter.update(part)
    state, steps = trajectory(0.0, 77).states["0"], fitter.steps
    settled = fitter.surrogate(state)
    assert fitter.steps == steps
    trained = fitter.train(100).surrogate(state)
    torch.testing.assert_close(settled, trained, rtol=0, atol=0)
    torch.testing.assert_close(fitter.surrogate(state), trained, rtol=0, atol=0)
    fitter.update(trajectory(0.0, 78))
    assert not torch.equal(fitter.surrogate(state), trained)


def test_where_the_closed_form_is_much_better_it_stands_in_the_streams_surrogate_and_says_so() -> (
    None
):
    def streamed(**options: Any) -> AutoencoderFitter:
        fitter = AutoencoderFitter(
            6, hidden=(4,), calibration=500, halflife=2000, learning_rate=0.5, **options
        )
        for seed in range(70):
            fitter.update(trajectory(1.0, seed))
        return fitter

    surrogate = streamed().surrogate
    assert surrogate.record.method == "edmd"
    assert any("it stands in its place" in note for note in surrogate.record.notes)
    kept = streamed(dynamics="step").surrogate
    assert kept.record.method == "autoencoder"
    assert any("take dynamics='auto'" in note for note in kept.record.notes)


def test_a_renewal_waits_for_half_a_halflife_of_rows() -> None:
    fitter = MAKE["edmd"]()
    for seed in range(5):
        fitter.update(trajectory(0.0, seed))
    renewal, latent = Renewal(1000, 10**9), fitter._dictionary.latent
    due = [renewal.due(trajectory(0.0, 9), fitter._frames, latent)]
    due += [renewal.due(trajectory(1.0, seed), fitter._frames, latent) for seed in range(5)]
    assert due == [False, False, False, True, False, False]
