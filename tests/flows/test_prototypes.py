"""Prototype and coverage errors: against cases with a known answer, and the bound they make."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.flows import prototype_errors


def gaussians(rows: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def test_of_a_linear_pair_all_parts_are_known() -> None:
    x = gaussians(40, 3)

    def decode(z: Tensor) -> Tensor:
        return 2 * torch.cat([z, torch.zeros_like(z[:, :1])], 1)

    told = prototype_errors(lambda x: x[:, :2] / 4, decode, x)  # z ↦ z / 2, so all end at 0
    assert told.attracted.all()
    plane = x[:, :2].square().sum(1)
    close = {"atol": 1e-9, "rtol": 1e-9}
    torch.testing.assert_close(told.reconstruction, plane / 4 + x[:, 2].square(), **close)
    torch.testing.assert_close(told.prototype, x.square().sum(1), **close)
    torch.testing.assert_close(told.coverage, 4 * plane / 16, **close)
    torch.testing.assert_close(told.lipschitz, torch.full((40,), 2.0, dtype=torch.float64), **close)


@pytest.mark.parametrize(("points", "slope"), [(5, 3.0), (2, 3.0), (1, 1.0)])
def test_the_constant_is_the_largest_slope_measured_and_at_least_the_secant(
    points: int, slope: float
) -> None:
    x = torch.linspace(-3, 3, 8, dtype=torch.float64)[:, None]  # z = x / 10, D(z) = z + z³
    told = prototype_errors(lambda x: x / 10, lambda z: z + z**3, x, points=points)
    z = x[:, 0] / 10
    # The slope 1 + 3 z² is largest at the state; at the attractor alone it is 1, below the secant.
    torch.testing.assert_close(told.secants, 1 + z**2, atol=1e-6, rtol=0)
    torch.testing.assert_close(told.lipschitz, 1 + slope * z**2, atol=1e-6, rtol=0)


class Pull(nn.Module):
    """A decoder that leads halfway to the nearer of -1 and 1, and away from beyond 9."""

    def forward(self, z: Tensor) -> Tensor:
        near = z + 0.5 * (z.sign() - z)
        return torch.where(z.abs() > 9, 2 * z, near)


def test_each_input_is_held_against_its_own_attractor_and_those_without_one_are_left_out() -> None:
    x = torch.tensor([[3.0], [-2.0], [20.0], [0.5]], dtype=torch.float64)
    told = prototype_errors(lambda x: x, Pull().eval(), x)
    assert told.attracted.tolist() == [True, True, False, True]
    expected = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)
    torch.testing.assert_close(told.prototype, expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(told.coverage, expected / 4, atol=1e-9, rtol=0)
    assert "3 of 4 inputs end at an attractor" in str(told)


class Inner(nn.Module):
    """A decoder that torch.func cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 8))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.net(z)
        return Backward.apply(out)  # type: ignore[no-any-return, no-untyped-call]


class Backward(torch.autograd.Function):
    """The identity, by an older kind of function."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        return g


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_holds_for_every_input_and_norms_are_the_same_without_torch_func(
    seed: int,
) -> None:
    torch.manual_seed(seed)
    encode, inner = nn.Linear(8, 3).eval(), Inner().eval()
    encode.weight.data *= 0.5
    x = torch.randn(60, 8)
    told = prototype_errors(encode, inner.net, x, points=3)
    assert told.attracted.all()
    assert (told.reconstruction <= told.bound * (1 + 1e-5)).all()
    assert (told.lipschitz >= told.secants).all()
    other = prototype_errors(encode, inner, x, points=3)
    torch.testing.assert_close(other.lipschitz, told.lipschitz, atol=1e-5, rtol=1e-5)


def test_without_an_attractor_nothing_is_counted() -> None:
    told = prototype_errors(lambda x: x, lambda z: 2 * z, gaussians(5, 2))
    assert not told.attracted.any()
    assert len(told.bound) == 0
    assert "0 of 5 inputs" in str(told)


def test_random_parts_are_drawn_alike_with_a_seed_and_refused_without() -> None:
    def decode(z: Tensor) -> Tensor:
        return 0.5 * z + torch.randn(1, dtype=z.dtype)

    before = torch.get_rng_state()
    told = prototype_errors(lambda x: x, decode, gaussians(4, 2), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    rest = 2 * torch.randn(1, dtype=torch.float64)
    expected = (gaussians(4, 2) - rest).square().sum(1)
    torch.testing.assert_close(told.prototype, expected, atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="it draws random numbers"):
        prototype_errors(lambda x: x, decode, gaussians(4, 2))


@pytest.mark.parametrize(
    ("inputs", "points"), [(gaussians(0, 2), 5), (gaussians(2, 2) / 0, 5), (gaussians(2, 2), 0)]
)
def test_what_cannot_be_measured_is_refused(inputs: Tensor, points: int) -> None:
    with pytest.raises(ValueError, match=r"prototype_errors\(\) got \d inputs and points="):
        prototype_errors(lambda x: x, lambda z: z / 2, inputs, points=points)


def test_training_mode_is_refused_before_anything_is_encoded() -> None:
    net = nn.BatchNorm1d(2)
    before = net.running_mean.clone()
    with pytest.raises(ValueError, match="training mode"):
        prototype_errors(net, lambda z: z, torch.randn(9, 2))
    assert torch.equal(net.running_mean, before)
