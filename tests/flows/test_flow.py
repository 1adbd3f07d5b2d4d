"""Flows: maps whose orbits, fixed points and multipliers are known, and what is refused."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import torchkoopman as tk
from torchkoopman.flows import Flow

if TYPE_CHECKING:
    from torch import Tensor

DOUBLE = torch.float64
LINE = torch.linspace(0.05, 0.95, 19, dtype=DOUBLE)[:, None]


def gaussians(rows: int, width: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(3), dtype=dtype)


@pytest.mark.parametrize("rate", [0.5, 1.7, 2.5, 2.95])
def test_the_logistic_maps_fixed_point_has_the_multiplier_two_minus_the_rate(rate: float) -> None:
    found = Flow(lambda x: rate * x * (1 - x)).fixed_points(LINE, steps=5000)
    point, multiplier = (0.0, rate) if rate < 1 else (1 - 1 / rate, 2 - rate)
    assert found.points.item() == pytest.approx(point, abs=1e-9)
    assert found.multipliers.item() == pytest.approx(multiplier, abs=1e-6)
    assert found.stable.all()
    assert found.share_converged == 1


def test_both_fixed_points_of_a_cycling_logistic_map_repel_and_no_orbit_ends_there() -> None:
    flow = Flow(lambda x: 3.2 * x * (1 - x))
    cycling = flow.fixed_points(LINE)
    assert len(cycling.points) == 0
    assert cycling.settled.undecided.all()
    found = flow.fixed_points(LINE, search="newton")
    known = {0.0: 3.2, 1 - 1 / 3.2: 2 - 3.2}
    for point, value in zip(found.points.flatten(), found.multipliers.flatten(), strict=True):
        expected = min(known, key=lambda each: abs(each - point.item()))
        assert point.item() == pytest.approx(expected, abs=1e-7)
        assert value.item() == pytest.approx(known[expected], abs=1e-6)
    assert len(found.points) == 2
    assert not found.stable.any()


def test_a_two_cycle_is_two_fixed_points_of_two_steps_with_the_product_as_multiplier() -> None:
    rate = 3.2
    twice = Flow(lambda x: rate * (y := rate * x * (1 - x)) * (1 - y))
    found = twice.fixed_points(LINE)
    assert found.stable.sum() == 2
    both = found.multipliers[found.stable].real.flatten()
    torch.testing.assert_close(both, torch.full((2,), 4 + 2 * rate - rate**2, dtype=DOUBLE))


def test_a_linear_maps_multipliers_are_its_eigenvalues() -> None:
    A = gaussians(6, 6) / 6
    flow = Flow(lambda x: x @ A.T)
    found = flow.fixed_points(gaussians(40, 6), steps=5000)
    expected = torch.linalg.eigvals(A)
    assert found.points.abs().max() < 1e-6
    assert found.radii.item() == pytest.approx(expected.abs().max().item(), abs=1e-9)
    assert found.norms.item() == pytest.approx(torch.linalg.matrix_norm(A, 2).item(), abs=1e-9)
    distances = (found.multipliers[0][:, None] - expected).abs().amin(1)
    assert distances.max() < 1e-9


def hopf(growth: float) -> Flow:
    def velocity(x: Tensor) -> Tensor:
        turned = torch.stack([-x[..., 1], x[..., 0]], -1)
        return growth * x + 2 * turned - x.square().sum(-1, keepdim=True) * x

    return Flow.of_field(velocity, dt=0.05)


def test_the_hopf_normal_forms_focus_has_the_multipliers_of_its_growth_and_frequency() -> None:
    found = hopf(-0.3).fixed_points(gaussians(30, 2), steps=4000)
    exact = torch.exp(torch.tensor([complex(-0.3, 2), complex(-0.3, -2)]) * 0.05)
    assert found.stable.all()
    assert len(found.points) == 1
    distances = (found.multipliers[0][:, None] - exact).abs().amin(1)
    assert distances.max() < 1e-6


def test_orbits_on_a_limit_cycle_are_undecided_and_its_centre_is_found_by_newton_alone() -> None:
    flow = hopf(0.5)
    assert flow.fixed_points(gaussians(20, 2)).settled.undecided.all()
    radius = flow.orbit(gaussians(20, 2), 4000)[-1].norm(dim=1)
    torch.testing.assert_close(radius, torch.full_like(radius, math.sqrt(0.5)), atol=1e-5, rtol=0)
    found = flow.fixed_points(gaussians(20, 2), search="newton")
    assert len(found.points) == 1
    assert not found.stable.any()


def test_where_no_fixed_point_is_left_the_slowest_point_is_said() -> None:
    found = Flow(lambda x: x + x * x + 0.01).fixed_points(LINE - 0.5, search="newton", steps=200)
    assert len(found.points) == 0
    assert found.slow.item() == pytest.approx(0, abs=1e-2)
    assert "1 slow points" in str(found)


def test_starts_that_diverge_are_no_fixed_points() -> None:
    starts = torch.tensor([[0.5], [-0.9], [1.5], [-3.0]])
    found = Flow(lambda x: x * x).fixed_points(starts)
    assert found.basins.tolist() == [0, 0, -1, -1]
    assert found.settled.diverged.tolist() == [False, False, True, True]
    assert found.points.item() == pytest.approx(0, abs=1e-9)


def test_a_slow_drift_is_no_fixed_point_though_its_speed_is_below_the_tolerance() -> None:
    found = Flow(lambda x: x + 1e-7).fixed_points(gaussians(9, 1))
    assert len(found.points) == 0
    assert "9 at rest where Newton finds no fixed point" in str(found)


def test_basins_are_where_orbits_end() -> None:
    flow = Flow(lambda x: torch.tanh(2 * x))
    starts = gaussians(50, 1)
    found = flow.fixed_points(starts)
    ends = found.points[found.basins].flatten()
    assert (ends.sign() == starts.flatten().sign()).all()


def test_two_runs_give_the_same_bits() -> None:
    flow = Flow.of_cell(nn.GRUCell(2, 4).eval(), torch.zeros(2))
    starts = gaussians(30, 4, torch.float32)
    one, two = flow.fixed_points(starts), flow.fixed_points(starts)
    assert torch.equal(one.points, two.points)
    assert torch.equal(one.basins, two.basins)


def test_the_norm_can_exceed_one_where_a_point_attracts_and_then_it_gives_no_rate() -> None:
    J = torch.tensor([[0.5, 5.0], [0.0, 0.5]], dtype=DOUBLE)
    found = Flow(lambda x: x @ J.T).fixed_points(gaussians(10, 2))
    assert found.stable.all()
    assert found.norms.item() > 5
    assert found.rates("norm").isnan().all()
    assert found.rates().item() == pytest.approx(1 / math.log(2))
    assert found.non_normality(0).peak[1] > 5


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_jacobian_is_that_of_each_state_alone(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 3)).to(dtype)
    flow, states = Flow(net.eval()), gaussians(5, 3, dtype)
    for state, J in zip(states, flow.jacobian(states), strict=True):
        expected = torch.autograd.functional.jacobian(lambda x: net(x[None])[0], state)
        torch.testing.assert_close(J, expected)


def test_a_map_that_writes_in_place_is_differentiated_all_the_same() -> None:
    def step(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        for k in range(x.shape[1]):
            out[:, k] = x[:, k] ** 2
        return out

    states = gaussians(4, 3)
    torch.testing.assert_close(Flow(step).jacobian(states), torch.diag_embed(2 * states))


def test_a_transformers_layer_is_differentiated_many_states_at_a_time_without_a_warning() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    states = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = Flow(layer).jacobian(states)  # torch's fused attention would warn, an error here
    alone = [
        torch.autograd.functional.jacobian(layer, state[None]).view(40, 40) for state in states
    ]
    torch.testing.assert_close(found, torch.stack(alone))
    assert torch.backends.cuda.flash_sdp_enabled()  # as it was


def test_states_keep_their_shape() -> None:
    block = nn.Conv2d(2, 2, 3, padding=1).eval()
    with torch.no_grad():
        block.weight.mul_(0.1)
    flow = Flow(block)
    starts = gaussians(6, 2 * 4 * 4, torch.float32).view(6, 2, 4, 4)
    found = flow.fixed_points(starts)
    assert found.points.shape == (1, 2, 4, 4)
    assert found.jacobians.shape == (1, 32, 32)
    torch.testing.assert_close(block(found.points), found.points, atol=1e-5, rtol=0)


def test_a_surrogates_flow_is_its_prediction_again_and_again() -> None:
    x = gaussians(500, 3, torch.float32)
    A = torch.diag(torch.tensor([0.9, 0.5, 0.2]))
    surrogate = tk.DMDFitter().update(tk.Trajectory.of(x, x @ A)).surrogate
    flow = Flow.of_surrogate(surrogate)
    once = surrogate(x[:5, None])
    torch.testing.assert_close(flow.orbit(x[:5], 2)[2], surrogate(once)[:, 0])
    assert flow.multipliers(x[:1]).real.flatten().tolist() == pytest.approx(
        [0.9, 0.5, 0.2], abs=1e-4
    )


def test_an_orbit_keeps_one_of_so_many_states() -> None:
    flow = Flow(lambda x: 2 * x)
    assert flow.orbit(torch.ones(1, 1), 7, every=3).flatten().tolist() == [1, 8, 64]


def test_global_random_state_is_as_it_was() -> None:
    flow = Flow(lambda x: 0.5 * x + 0.1 * torch.rand(1), seed=4)
    before = torch.get_rng_state()
    flow.fixed_points(gaussians(5, 2, torch.float32))
    flow.orbit(gaussians(5, 2, torch.float32), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_fixes_what_a_map_draws_and_without_one_it_is_refused() -> None:
    def step(x: Tensor) -> Tensor:
        return 0.5 * x + torch.rand(1)

    starts = gaussians(5, 2, torch.float32)
    with pytest.raises(ValueError, match=r"draws random numbers. Give Flow\(…, seed=0\)"):
        Flow(step).settle(starts)
    fixed = Flow(step, seed=0).fixed_points(starts)
    expected = 2 * torch.rand(1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fixed.points, expected.expand(1, 2))
    torch.testing.assert_close(fixed.jacobians[0], 0.5 * torch.eye(2, dtype=DOUBLE))


def test_a_module_in_training_mode_is_refused_also_behind_a_method() -> None:
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_latent, self.to_input = nn.Linear(4, 2), nn.Linear(2, 4)
            self.drop = nn.Dropout()

        def encode(self, x: Tensor) -> Tensor:
            return self.to_latent(x)

        def decode(self, z: Tensor) -> Tensor:
            return self.to_input(self.drop(z))

    model = Autoencoder().eval()
    model.drop.train()
    flow = Flow.of_autoencoder(model.encode, model.decode)
    with pytest.raises(ValueError, match=r"Autoencoder of this flow is in training mode \(drop\)"):
        flow.orbit(torch.zeros(1, 2), 3)
    model.eval()
    assert flow.orbit(torch.zeros(1, 2), 3).shape == (4, 1, 2)


ZEROS = torch.zeros(3, 2)


@pytest.mark.parametrize(
    ("step", "starts", "kind", "message"),
    [
        (lambda x: x, ZEROS.half(), TypeError, "float32 or float64.*got torch.float16"),
        (lambda x: x, [[1.0]], TypeError, "got list"),
        (lambda x: x, ZEROS[:0], ValueError, r"one state or more.*\(0, 2\)"),
        (lambda x: x, torch.zeros(3), ValueError, r"got shape \(3,\)"),
        (lambda x: x, torch.tensor([[0.0], [math.nan]]), ValueError, "1 of 2 starts.*number 1"),
        (lambda x: (x, x), ZEROS, TypeError, "gives a tuple.*picks it out"),
        (lambda x: x[:, :1], ZEROS, ValueError, r"shape \(2, 2\).*gives \(2, 1\).*fit each other"),
        (lambda x: x.double(), ZEROS, ValueError, "gives .* torch.float64"),
    ],
)
def test_what_cannot_be_iterated_is_refused_by_name(
    step: object, starts: object, kind: type[Exception], message: str
) -> None:
    flow = Flow(step)
    for call in (flow.velocity, flow.settle, flow.fixed_points, flow.jacobian):
        with pytest.raises(kind, match=message):
            call(starts)
    with pytest.raises(kind, match=message):
        flow.orbit(starts, 3)


def test_arguments_out_of_range_are_refused() -> None:
    flow = Flow(lambda x: 0.5 * x)
    with pytest.raises(TypeError, match="a flow needs a module or a function"):
        Flow(3)
    with pytest.raises(ValueError, match="steps=-1 and every=1"):
        flow.orbit(ZEROS, -1)
    with pytest.raises(ValueError, match="tolerance=0"):
        flow.settle(ZEROS, tolerance=0)
    with pytest.raises(ValueError, match="search='guess' is unknown"):
        flow.fixed_points(ZEROS, search="guess")
    with pytest.raises(ValueError, match="dt=-1"):
        Flow.of_field(lambda x: x, dt=-1)
    with pytest.raises(ValueError, match="method='heun' is unknown"):
        Flow.of_field(lambda x: x, dt=1, method="heun")
    with pytest.raises(ValueError, match="by='speed' is unknown"):
        flow.fixed_points(ZEROS).rates("speed")
    with pytest.raises(TypeError, match="the decoder gives a tuple"):
        Flow.of_autoencoder(lambda x: x, lambda z: (z, z)).velocity(ZEROS)


def test_a_surrogate_between_widths_has_no_orbits() -> None:
    x = gaussians(300, 3, torch.float32)
    surrogate = tk.DMDFitter().update(tk.Trajectory.of(x, x[:, :2])).surrogate
    with pytest.raises(ValueError, match="has 3 features"):
        Flow.of_surrogate(surrogate)


def test_the_spectrum_of_orbits_near_a_fixed_point_is_the_lattice_of_its_multipliers() -> None:
    A = torch.tensor([[0.8, 0.1], [0.0, 0.64]], dtype=DOUBLE)
    flow = Flow(lambda x: x @ A.T + 0.05 * x[:, :1] * x)
    starts = 0.02 * gaussians(400, 2)
    first, second = flow.multipliers(torch.zeros(1, 2, dtype=DOUBLE))[0].real.tolist()
    fitter = tk.EDMDFitter([tk.Monomials(3)], ridge=0.0)
    values = fitter.update(tk.flows.pairs(flow, starts, 3)).surrogate.spectrum().eigenvalues
    lattice = [first**a * second**b for a in range(4) for b in range(4 - a) if a + b]
    for expected in lattice:
        assert (values - expected).abs().min() < 5e-3, expected


def test_pairs_of_an_orbit_that_diverges_are_refused() -> None:
    flow = Flow(lambda x: x**3)
    starts = torch.tensor([[0.5], [9.0]], dtype=torch.float32)
    with pytest.raises(ValueError, match="1 of 2 orbits are not finite after 9 steps"):
        tk.flows.pairs(flow, starts, 9)
    with pytest.raises(ValueError, match="steps=0"):
        tk.flows.pairs(flow, starts, 0)


def test_modules_that_a_function_names_are_held_to_evaluation_mode_too() -> None:
    net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    before = net[1].running_mean.clone()
    for flow in (Flow(lambda x: net(x)), Flow(partial(torch.func.functional_call, net, {}))):
        with pytest.raises(ValueError, match="Sequential of this flow is in training mode"):
            flow.fixed_points(gaussians(5, 2, torch.float32))
    assert torch.equal(net[1].running_mean, before)


def test_a_map_that_mixes_the_states_of_a_batch_is_refused() -> None:
    flow = Flow(lambda x: x - 0.5 * x.mean(0))
    for call in (flow.velocity, flow.settle, flow.fixed_points, flow.jacobian):
        with pytest.raises(ValueError, match="mixes the states of a batch"):
            call(gaussians(5, 2))


def test_states_that_rest_beside_one_another_are_polished_as_each_would_be_alone() -> None:
    """Slow in one direction, so that orbits rest on both sides of a point and apart from it."""
    flow = Flow(lambda x: torch.stack([torch.tanh(1.02 * x[:, 0]), 0.5 * x[:, 1] + x[:, 0]], 1))
    starts = gaussians(300, 2)
    starts[:, 0] += 0.2 * starts[:, 0].sign()  # at 0 it is slow, too, but repels
    together = flow.fixed_points(starts, 3000, tolerance=1e-4)
    assert together.share_converged == 1
    assert len(together.points) == 2
    assert together.residuals.max() < 1e-9
    ends, unit = together.settled.ends, together.settled.spread
    points = together.points[together.basins]
    assert (ends - points).norm(dim=1).max() > 2e-3 * unit  # further than points that are one
    assert (points[:, 0].sign() == starts[:, 0].sign()).all()
    for k in range(0, 300, 23):
        alone = flow.fixed_points(starts[k : k + 1], 3000, tolerance=1e-4)
        torch.testing.assert_close(alone.points[0], points[k], atol=1e-6, rtol=0)


def test_where_a_map_has_no_derivative_a_fixed_point_is_not_said_to_attract() -> None:
    flow = Flow(lambda x: 0.5 * torch.sqrt(x * x))
    found = flow.fixed_points(torch.zeros(3, 1, dtype=DOUBLE))
    assert found.share_converged == 1
    assert found.radii.isnan().all()
    assert not found.stable.any()
