"""DMD of wide layers: rows held back are as good as moments of all features; then directions."""

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from tests.fitting.test_wide import ROWS, WIDTH, path, projector
from tests.systems import draw
from torchkoopman.observe.trajectory import Trajectory


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of more than 50 features are wide, and 36 directions are kept for four."""
    for module in ("dmd_wide", "calibration"):
        monkeypatch.setattr(f"torchkoopman.fitting.{module}.WIDE", 50)
    monkeypatch.setattr("torchkoopman.fitting.dmd_wide._MORE", 20)


def exact(monkeypatch: pytest.MonkeyPatch, fitter: tk.DMDFitter, *seen: Trajectory) -> tk.Surrogate:
    """By the moments of all features."""
    with monkeypatch.context() as patched:
        patched.setattr("torchkoopman.fitting.dmd_wide.WIDE", 10**6)
        for each in seen:
            fitter.update(each)
        return fitter.surrogate


def streamed(*seen: Trajectory, rank: int | float = 4, **options: object) -> tk.DMDFitter:
    fitter = tk.DMDFitter(rank, **options)  # type: ignore[arg-type]
    for each in seen:
        fitter.update(each)
    return fitter


def assert_alike(one: tk.Surrogate, other: tk.Surrogate, tolerance: float = 1e-7) -> None:
    """The same directions, and the same map of states; bases of coordinates may differ."""
    for ours, theirs in zip(one.frames(), other.frames(), strict=True):
        assert ours.size == theirs.size
        assert (projector(ours) - projector(theirs)).norm() < tolerance * ours.size**0.5
    state = next(iter(path(50, seed=60).states.values()))[..., : one.frames()[0].features]
    found, expected = one(state), other(state)
    assert (found - expected).norm() < tolerance * (expected - expected.mean(0)).norm()


@pytest.mark.parametrize("rank", [4, 0.99])
@pytest.mark.parametrize("widths", [(WIDTH, WIDTH), (WIDTH, 120)], ids=["shared", "aligned"])
def test_rows_held_back_give_what_moments_of_all_features_give(
    rank: int | float, widths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = path(60, widths=widths), path(35, seed=30, widths=widths)
    fitter = streamed(first, rank=rank)
    for _ in range(2):  # reading changes nothing
        assert_alike(fitter.surrogate, exact(monkeypatch, tk.DMDFitter(rank), first))
    assert fitter.holding() == 60
    fitter.update(second)
    whole = exact(monkeypatch, tk.DMDFitter(rank), first, second)
    assert_alike(fitter.surrogate, whole)
    assert fitter.surrogate.record.rows == 95
    assert_alike(fitter.between(*fitter.surrogate.layers), whole)
    torch.testing.assert_close(
        torch.linalg.eigvals(fitter.surrogate.operator.matrix()).abs().sort().values,
        torch.linalg.eigvals(whole.operator.matrix()).abs().sort().values,
        rtol=1e-6,
        atol=1e-8,
    )


def test_a_rank_of_all_directions_goes_over_to_moments_when_rows_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = path(90), path(300, seed=30)
    fitter = streamed(*seen, rank=-1)
    assert fitter.holding() == 0
    assert_alike(fitter.surrogate, exact(monkeypatch, tk.DMDFitter(), *seen), 1e-5)


def turned(rows: int, seed: int, size: float, grown: int) -> Trajectory:
    """Rows whose direction number ``grown`` is larger."""
    states = path(rows, seed=seed).states
    axis = torch.linalg.qr(draw(WIDTH, WIDTH, seed=77))[0][:, grown]
    more = size * draw(rows, 1, 1, seed=seed + 5) * axis
    return Trajectory({layer: state + more for layer, state in states.items()})


def test_many_rows_stream_in_directions_and_the_fit_follows_scales_that_drift(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A direction is small in the first rows and the largest of all later on."""
    seen = [turned(1000, 10, 1.0, 3), turned(1000, 20, 1.0, 3), turned(3000, 30, 60.0, 3)]
    fitter = streamed(*seen)
    assert fitter.holding() == 0
    found, whole = fitter.surrogate, exact(monkeypatch, tk.DMDFitter(4), *seen)
    assert "36 directions" in str(found.record.notes)
    rows = seen[2].rows()
    for ours, theirs, layer in zip(found.frames(), whole.frames(), found.layers, strict=True):
        centred = rows[layer] - rows[layer].mean(0)
        kept, best = ((centred @ projector(f).T).square().sum().item() for f in (ours, theirs))
        assert kept > 0.9999 * best
    for layer, share in found.record.outside.items():
        assert share == pytest.approx(whole.record.outside[layer], abs=1e-3)
    for layer, r2 in found.record.r2.items():
        assert r2 == pytest.approx(whole.record.r2[layer], abs=1e-3)


def test_what_lies_outside_the_directions_of_the_first_rows_is_said() -> None:
    """Of the latest rows in the record, and in a note of all rows."""
    first, wild, last = path(2000), draw(1000, WIDTH, seed=91) * 30, path(20, seed=50)
    fitter = streamed(first, Trajectory.of(wild, wild.roll(1, 1)))
    assert all(share > 0.5 for share in fitter.surrogate.record.outside.values())
    found = fitter.update(last).surrogate
    (note,) = (each for each in found.record.notes if "36 directions" in each)
    (frame, *_), layer = fitter._frames, found.layers[0]
    rows = torch.cat([first.rows()[layer], wild, last.rows()[layer]]).double()
    left = (rows - frame.inverse(frame(rows))).square().sum()
    share = (left / (rows - rows.mean(0)).square().sum()).item()
    assert share > 0.5
    assert f"{share:.2%} of {layer}" in note


@pytest.mark.parametrize("rows", [ROWS, 2100])
def test_a_resumed_fit_is_the_same_bit_by_bit(rows: int) -> None:
    first, second = path(rows), path(50, seed=30)
    through = streamed(first)
    resumed = tk.DMDFitter(4)
    resumed.load_state_dict(through.state_dict())
    one, other = (fitter.update(second).surrogate for fitter in (through, resumed))
    assert one.record == other.record
    assert ("directions" in str(one.record.notes)) == (rows > 2000)
    assert torch.equal(one.operator.matrix(), other.operator.matrix())
    assert torch.equal(one.frames()[0].weight, other.frames()[0].weight)


@pytest.mark.parametrize("sizes", [(40, 40), (2100, 40), (40, 2100)])
def test_merged_fits_are_one(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    parts = path(sizes[0]), path(sizes[1], seed=30)
    one, other = (streamed(part) for part in parts)
    before = other.surrogate.record.rows
    assert_alike(one.merge(other).surrogate, exact(monkeypatch, tk.DMDFitter(4), *parts), 1e-2)
    assert other.surrogate.record.rows == before
    if max(sizes) > 2000:
        assert next(iter(one._outside.values())).rows == sum(sizes)
    assert one.surrogate.record.rows == sum(sizes)


def test_fits_in_other_directions_are_not_merged() -> None:
    one, other = streamed(path(2100)), streamed(path(2100, seed=30))
    with pytest.raises(ValueError, match="same coordinates"):
        one.merge(other)
    assert one.surrogate.record.rows == 2100


def test_refusals_are_those_of_narrow_layers() -> None:
    with pytest.raises(ValueError, match=r"90 rows were streamed.*lower rank"):
        streamed(path(), rank=150).surrogate  # noqa: B018
    state: Tensor = next(iter(path().states.values()))
    still = Trajectory({"x": state, "y": torch.ones_like(state)})
    with pytest.raises(ValueError, match="layer 'y' is constant over the 200 features"):
        streamed(still, frames="aligned").surrogate  # noqa: B018


def test_labels_and_half_precision_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {layer: state.half() for layer, state in path().states.items()}
    labels = torch.arange(ROWS) % 3
    found = streamed(Trajectory(states, labels)).surrogate
    assert found.statistics is not None
    assert found.statistics.classes == (0, 1, 2)
    whole = exact(monkeypatch, tk.DMDFitter(4), Trajectory(states, labels))
    for layer, r2 in whole.record.r2.items():
        assert found.record.r2[layer] == pytest.approx(r2, abs=1e-4)
    assert whole.statistics is not None
    for label in (0, 1, 2):
        spreads = [
            each.statistics.by_class[label].cov("start", "start").trace()  # type: ignore[union-attr]
            for each in (found, whole)
        ]
        torch.testing.assert_close(*spreads, rtol=1e-4, atol=0)


def test_a_halflife_keeps_moments_of_all_features(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = path(60), path(35, seed=30)
    fitter = streamed(*seen, halflife=50)
    assert fitter.holding() == 0
    assert_alike(fitter.surrogate, exact(monkeypatch, tk.DMDFitter(4, halflife=50), *seen))
