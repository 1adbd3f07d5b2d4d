"""Layers of more features than there are rows: `rank=` decides what is fitted, and what is left."""

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import draw
from torchkoopman.fitting.calibration import Calibration
from torchkoopman.koopman.coordinates import CoordinateOptions, Coordinates
from torchkoopman.koopman.principal import layer_coordinates
from torchkoopman.observe.few_rows import FewRows
from torchkoopman.observe.moments import Moments
from torchkoopman.observe.pairs import layer_pairs
from torchkoopman.observe.trajectory import Trajectory

ROWS, WIDTH, KEPT = 90, 200, 6


def wide(rows: int = ROWS, width: int = WIDTH, noise: float = 0.01, seed: int = 0) -> Tensor:
    """Six directions of descending size, and a little noise in all others."""
    inner = draw(rows, KEPT, seed=seed) * torch.linspace(3, 1, KEPT, dtype=torch.float64)
    return inner @ draw(KEPT, width, seed=7) + noise * draw(rows, width, seed=seed + 1) + 5


def path(rows: int = ROWS, seed: int = 0, widths: tuple[int, int] = (WIDTH, WIDTH)) -> Trajectory:
    """A wide layer and a function of it."""
    start = wide(rows, widths[0], seed=seed)
    turned = torch.linalg.qr(draw(widths[0], widths[0], seed=3))[0][:, : widths[1]]
    return Trajectory.of(start, (start - 5) @ turned + 1)


def projector(frame: Coordinates) -> Tensor:
    """Onto the directions that a frame keeps, which is the same for any basis of them."""
    return frame.inverse_weight @ frame.weight


@pytest.mark.parametrize("widths", [(WIDTH, WIDTH), (WIDTH, 120)], ids=["shared", "aligned"])
@pytest.mark.parametrize("rank", [4, -1, 0, 0.9])
@pytest.mark.parametrize("massive", [1000.0, 10.0])
def test_axes_of_few_rows_are_those_of_the_covariance(
    widths: tuple[int, int], rank: int | float, massive: float
) -> None:
    states = path(widths=widths).rows()
    first = next(iter(states))
    states[first][:, 3] *= 500  # one massive feature
    layers, options = list(states), CoordinateOptions(rank, massive=massive)
    moments = Moments(layer_pairs(layers, "ends")).update(states)
    exact = layer_coordinates(moments, layers, options)
    found = layer_coordinates(FewRows([states]), layers, options)
    for ours, theirs in zip(found, exact, strict=True):
        assert ours.size == theirs.size
        torch.testing.assert_close(ours.mean, theirs.mean)
        assert (projector(ours) - projector(theirs)).norm() < 1e-4 * ours.size**0.5
        identity = torch.eye(ours.size).to(ours.weight)
        torch.testing.assert_close(ours.weight @ ours.inverse_weight, identity)
    # Both layers' coordinates stand to each other as they did: K does not change.
    k, exactly = (
        frames[1].weight
        @ (states[layers[1]] - states[layers[1]].mean(0)).T
        @ (states[first] - states[first].mean(0))
        @ frames[0].weight.T
        for frames in (found, exact)
    )
    sizes, expected = torch.linalg.svdvals(k), torch.linalg.svdvals(exactly)
    torch.testing.assert_close(sizes, expected, rtol=1e-6, atol=1e-6 * expected.max().item())


@pytest.mark.parametrize("method", ["edmd", "autoencoder"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_wide_layers_are_fitted_at_the_rank_asked_for(method: str, dtype: torch.dtype) -> None:
    fitter: tk.EDMDFitter | tk.AutoencoderFitter
    if method == "edmd":
        fitter = tk.EDMDFitter(tk.RandomFeatures(20), rank=KEPT, frames="aligned")
    else:
        fitter = tk.AutoencoderFitter(
            12, hidden=[16], rank=KEPT, frames="aligned", steps_per_update=300
        )
    rows = {layer: state.to(dtype) for layer, state in path().states.items()}
    fitter.update(Trajectory(rows))
    surrogate = fitter.surrogate
    assert [frame.size for frame in surrogate.frames()] == [KEPT, KEPT]
    states = {layer: state.to(dtype) for layer, state in path(500, seed=20).states.items()}
    start, end = (states[layer].double() for layer in surrogate.layers)
    out = surrogate(start.to(next(surrogate.parameters()).dtype)).double()
    left = (out - end).square().mean() / (end - end.mean(0)).square().mean()
    assert left < (0.01 if method == "edmd" else 0.1)
    assert set(surrogate.record.outside) == set(surrogate.layers)
    assert all(0 < share < 2e-3 for share in surrogate.record.outside.values())


def test_a_rank_that_the_rows_do_not_reach_is_refused_and_the_advice_works() -> None:
    for rank in (ROWS, 150, -1):
        fitter = tk.EDMDFitter(tk.RandomFeatures(5), rank=rank).update(path())
        with pytest.raises(ValueError, match=r"rank=9\), or choose narrower") as refused:
            fitter.surrogate  # noqa: B018
        assert str(150 if rank == 150 else WIDTH if rank == -1 else ROWS) in str(refused.value)
    found = tk.EDMDFitter(tk.RandomFeatures(5), rank=9).update(path()).surrogate
    assert found.frames()[0].size == 9


@pytest.mark.parametrize("rank", [0, 0.99])
def test_a_share_of_the_variance_counts_the_directions_it_takes(rank: float) -> None:
    found = tk.EDMDFitter(tk.RandomFeatures(5), rank=rank).update(path()).surrogate
    assert found.frames()[0].size <= 20


def test_a_wide_layer_that_is_constant_is_refused_by_name() -> None:
    state = next(iter(path().states.values()))
    still = Trajectory({"x": state, "y": torch.ones_like(state)})
    with pytest.raises(ValueError, match="layer 'y' is constant over the 200 features"):
        tk.EDMDFitter(rank=4, frames="aligned").update(still).surrogate  # noqa: B018


def test_very_wide_layers_wait_for_ten_rows_of_each_direction_and_no_more() -> None:
    calibration = Calibration(CoordinateOptions(300), None)
    part = Trajectory.of(draw(1500, 1100).float(), draw(1500, 1100, seed=1).float())
    assert not calibration.add(part)
    assert calibration.add(part)
    assert not Calibration(CoordinateOptions(0.9), None).add(part)


def test_of_very_many_rows_evenly_many_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchkoopman.fitting.calibration._COLUMNS", 80)
    rows = {"x": wide(), "y": wide(seed=40)}
    exact = Calibration(CoordinateOptions(KEPT, frames="aligned"), None)
    thinned = Calibration(CoordinateOptions(KEPT), None)
    frames = []
    for calibration in (exact, thinned, thinned):
        calibration.add(Trajectory({layer: each[:, None] for layer, each in rows.items()}))
        frames.append(calibration.finish()[0][0])
    assert torch.equal(frames[1].weight, frames[2].weight)
    assert (projector(frames[0]) - projector(frames[1])).norm() < 0.05


def test_a_wide_fit_goes_on_from_its_state_bit_by_bit() -> None:
    first, second = path(60), path(50, seed=30)
    through = tk.EDMDFitter(tk.RandomFeatures(5), rank=4).update(first)
    state = through.state_dict()
    resumed = tk.EDMDFitter(tk.RandomFeatures(5), rank=4)
    resumed.load_state_dict(state)
    whole, again = (fitter.update(second).surrogate for fitter in (through, resumed))
    assert whole.record == again.record
    assert torch.equal(whole.operator.matrix(), again.operator.matrix())


def test_what_later_rows_have_outside_the_axes_is_said() -> None:
    fitter = tk.EDMDFitter(tk.RandomFeatures(5), rank=KEPT, frames="aligned").update(path())
    before = fitter.surrogate.record.outside
    other = path(seed=30)
    for state in other.states.values():
        state += 8 * draw(ROWS, 1, 1, seed=9) * draw(WIDTH, seed=11)  # a direction that is new
    after = fitter.update(other).surrogate.record.outside
    assert all(after[layer] > 0.3 > 100 * before[layer] for layer in before)


def test_fit_compares_the_autoencoder_with_a_closed_form_of_the_same_rank() -> None:
    model = nn.Sequential(nn.Linear(10, 1100), nn.Tanh(), nn.Linear(1100, 5))
    loader = list(draw(700, 10).float().split(100))
    layers = {"steps": 5, "layout": None, "progress": False, "rank": 8, "latent": 9}
    found = tk.fit(model, loader, ["0", "1"], **layers)  # type: ignore[arg-type]
    assert {"EDMD", "skip", "ridge map", "PCA + linear"} <= set(found.record.baselines)
    assert set(found.record.outside) == {"0", "1"}
    assert "8 directions leave out" in repr(found)
