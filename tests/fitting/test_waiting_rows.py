"""Fits of streams whose rows wait for their products are of all rows."""

from collections.abc import Iterator

import pytest
import torch

import torchkoopman as tk


def trajectories(sizes: list[int]) -> Iterator[tk.Trajectory]:
    generator = torch.Generator().manual_seed(1)
    for rows in sizes:
        x = torch.randn(rows, 4, generator=generator)
        labels = torch.randint(3, (rows,), generator=generator)
        yield tk.Trajectory.of(x, x.tanh() + 0.1 * x.roll(1, 1), labels=labels)


FITTERS = {
    "dmd": lambda: tk.DMDFitter(),
    "edmd": lambda: tk.EDMDFitter(tk.RandomFeatures(20), calibration=60),
    "fading": lambda: tk.DMDFitter(halflife=80.0),
}


@pytest.mark.parametrize("kind", FITTERS)
def test_a_surrogate_is_of_all_rows_that_have_come(kind: str) -> None:
    fitter = FITTERS[kind]()
    for trajectory in trajectories([11] * 12):
        fitter.update(trajectory)
    before = fitter.surrogate
    assert before.record.rows == (132 if kind != "fading" else round(fitter._own.count))
    for trajectory in trajectories([11] * 3):
        fitter.update(trajectory)
    after = fitter.surrogate
    assert after.record.rows > before.record.rows
    assert sum(after.statistics.by_class[c].count for c in range(3)) == pytest.approx(
        after.statistics.count
    )


@pytest.mark.parametrize("kind", ["dmd", "edmd"])
def test_merged_fitters_have_the_rows_that_wait_in_both(kind: str) -> None:
    one, other, whole = (FITTERS[kind]() for _ in range(3))
    if kind == "edmd":  # moments of one frame
        for fitter in (one, other, whole):
            fitter.calibrate(next(trajectories([60])))
    for number, trajectory in enumerate(trajectories([11] * 20)):
        whole.update(trajectory)
        (one if number < 10 else other).update(trajectory)
    merged, expected = one.merge(other).surrogate, whole.surrogate
    assert merged.record.rows == expected.record.rows == 220
    torch.testing.assert_close(
        merged.operator.matrix(), expected.operator.matrix(), rtol=1e-4, atol=1e-4
    )
    assert other.surrogate.record.rows == 110, "the other one stays as it is"


@pytest.mark.parametrize("sizes", [[60] * 4, [600]])
@pytest.mark.parametrize("refused", [5, 600])
@pytest.mark.parametrize("kind", ["dmd", "fading"])
def test_a_batch_of_another_width_is_refused_and_the_fit_is_as_without_it(
    kind: str, refused: int, sizes: list[int]
) -> None:
    fitter, expected = FITTERS[kind](), FITTERS[kind]()
    for trajectory in trajectories(sizes):
        fitter.update(trajectory)
        expected.update(trajectory)
    x = torch.randn(refused, 3, dtype=torch.float64)
    late = torch.full((refused,), 7)
    with pytest.raises(ValueError, match="had 4 features in earlier batches and has 3 now"):
        fitter.update(tk.Trajectory.of(x, x.tanh(), labels=late))
    found, known = fitter.surrogate, expected.surrogate
    assert torch.equal(found.operator.matrix(), known.operator.matrix())
    assert found.record == known.record
    assert found.statistics.classes == known.statistics.classes == (0, 1, 2)


@pytest.mark.parametrize("kind", ["dmd", "edmd"])
@pytest.mark.parametrize("rows", [11, 600])
def test_a_stream_may_change_its_precision(rows: int, kind: str) -> None:
    fitter, expected = FITTERS[kind](), FITTERS[kind]()
    for number, trajectory in enumerate(trajectories([rows] * 12)):
        dtype = (torch.float32, torch.float64, torch.float32)[number % 3]
        states = [state[:, 0].to(dtype) for state in trajectory.states.values()]
        fitter.update(tk.Trajectory.of(*states, labels=trajectory.labels))
        expected.update(trajectory)
    found, known = fitter.surrogate, expected.surrogate
    assert found.record.rows == known.record.rows == 12 * rows
    torch.testing.assert_close(
        found.operator.matrix(), known.operator.matrix(), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        found.spectrum().residuals, known.spectrum().residuals, rtol=1e-4, atol=1e-4
    )


HOLDING = {
    "edmd": FITTERS["edmd"],
    "autoencoder": lambda: tk.AutoencoderFitter(latent=6, hidden=[8], calibration=60),
    "wide": lambda: tk.DMDFitter(3, dynamics="span"),
}


@pytest.mark.parametrize("kind", HOLDING)
def test_rows_held_back_are_not_spoiled_by_a_batch_of_another_width(kind: str) -> None:
    features = 1100 if kind == "wide" else 4
    fitter, expected = HOLDING[kind](), HOLDING[kind]()
    for number in range(6):
        x = torch.randn(20, features, generator=torch.Generator().manual_seed(number))
        for each in (fitter, expected):
            each.update(tk.Trajectory.of(x, x.tanh()))
        if number in (1, 4):  # before the calibration and after it
            narrow = x[:, 1:]
            with pytest.raises(ValueError, match="features in earlier batches and has"):
                fitter.update(tk.Trajectory.of(narrow, narrow.tanh()))
    for each in (fitter, expected):
        if isinstance(each, tk.AutoencoderFitter):
            each.train(3)
    found, known = (each.surrogate.operator.matrix() for each in (fitter, expected))
    assert torch.equal(found, known)
