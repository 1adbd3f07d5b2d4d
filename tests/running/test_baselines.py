"""The trivial baselines against the same maps computed from all rows at once."""

import pytest
import torch
from torch import Tensor

from tests.systems import draw, least_squares
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.running.baselines import Baselines


def rows(count: int = 300, width: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    scales = torch.linspace(3, 0.5, 6, dtype=torch.float64)
    start = draw(count, 6) * scales + 5
    end = start.sin() @ draw(6, width, seed=1) + 2
    return start, draw(count, 4, seed=2), end


def streamed(states: tuple[Tensor, ...], size: int = 70) -> Baselines:
    baselines = Baselines()
    for parts in zip(*(state.split(size) for state in states), strict=True):
        baselines.update(Trajectory.of(*parts))
    return baselines


def test_the_ridge_map_is_least_squares_with_an_intercept() -> None:
    start, inner, end = rows()
    weight, bias = streamed((start, inner, end)).maps(latent=3)["ridge map"]
    for found, expected in zip((weight, bias), least_squares(start, end), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_skip_is_the_identity_where_widths_agree_and_absent_where_they_do_not() -> None:
    weight, bias = streamed(rows()).maps(latent=3)["skip"]
    torch.testing.assert_close(weight, torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close(bias, torch.zeros(6, dtype=torch.float64))
    assert set(streamed(rows(width=5)).maps(latent=3)) == {"ridge map", "PCA + linear"}


@pytest.mark.parametrize("latent", [1, 3])
def test_pca_and_linear_is_least_squares_on_the_leading_components(latent: int) -> None:
    start, inner, end = rows()
    weight, bias = streamed((start, inner, end)).maps(latent)["PCA + linear"]
    axes = torch.linalg.svd(start - start.mean(0))[2][:latent]
    expected, offset = least_squares(start @ axes.T, end)
    torch.testing.assert_close(weight, expected @ axes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias, offset, rtol=1e-4, atol=1e-5)
    assert torch.linalg.matrix_rank(weight) <= latent


def test_pca_of_all_components_is_the_ridge_map() -> None:
    maps = streamed(rows()).maps(latent=100)
    for found, expected in zip(maps["PCA + linear"], maps["ridge map"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_components_that_do_not_vary_are_not_inverted() -> None:
    start, inner, end = rows()
    flat = torch.cat([start, start[:, :2]], 1)
    for weight, bias in streamed((flat, inner, end)).maps(latent=8).values():
        assert weight.isfinite().all()
        assert bias.isfinite().all()


def test_masked_rows_do_not_count() -> None:
    start, _, end = rows()
    mask = (torch.arange(300) % 3 > 0)[:, None]
    spoilt = torch.where(mask, start, torch.full_like(start, 1e5))
    masked = Trajectory({"a": spoilt[:, None], "b": end[:, None]}, mask=mask)
    weight, bias = Baselines().update(masked).maps(2)["ridge map"]
    expected = least_squares(start[mask[:, 0]], end[mask[:, 0]])
    torch.testing.assert_close(weight, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias, expected[1], rtol=1e-4, atol=1e-5)


def test_baselines_without_data_say_so() -> None:
    with pytest.raises(ValueError, match="no data"):
        Baselines().maps(3)


def test_maps_of_few_wide_rows_are_those_of_their_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    states = draw(40, 60), draw(40, 4, seed=2), draw(40, 60, seed=5)
    states[2][:] += states[0].roll(1, 1)
    expected = streamed(states, size=15).maps(latent=3)
    monkeypatch.setattr("torchkoopman.running.baselines._WIDE", 20)
    few = streamed(states, size=15)
    resumed = Baselines().load_state_dict(few.state_dict())
    for found in (few.maps(latent=3), few.maps(latent=3), resumed.maps(latent=3)):
        for name, pair in expected.items():
            for ours, theirs in zip(found[name], pair, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    more = draw(30, 60, seed=8), draw(30, 4), draw(30, 60, seed=9)  # more rows than features
    after = few.update(Trajectory.of(*more)).maps(latent=3)
    monkeypatch.setattr("torchkoopman.running.baselines._WIDE", 1024)
    whole = streamed(tuple(torch.cat(pair) for pair in zip(states, more, strict=True)))
    for name, pair in whole.maps(latent=3).items():
        torch.testing.assert_close(after[name], pair, rtol=1e-6, atol=1e-8)


def test_states_from_before_rows_were_kept_are_read() -> None:
    states = rows()
    state = streamed(states).state_dict()
    del state["few"]
    found, expected = (
        each.maps(3) for each in (Baselines().load_state_dict(state), streamed(states))
    )
    for name, pair in expected.items():
        assert all(torch.equal(a, b) for a, b in zip(found[name], pair, strict=True))
