"""Continuous time: fixed and adaptive steps agree with what is known, and with each other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.func import jacrev, vmap

from torchkoopman.flows import Flow, GatedODECell, solve
from torchkoopman.flows.maps import one_step

if TYPE_CHECKING:
    from torch import Tensor

METHODS = ("rk4", "dopri5")


def gaussians(*shape: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return drawn.double()


def cell(alpha: float = 0.5, **options: object) -> GatedODECell:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return GatedODECell(2, 4, **{"widths": [16], "alpha": alpha, **options}).double().eval()


def turning(x: Tensor) -> Tensor:
    """A decaying rotation, ``exp(t A)`` for A = [[-0.3, -2], [2, -0.3]]."""
    return x @ torch.tensor([[-0.3, 2.0], [-2.0, -0.3]]).to(x)


@pytest.mark.parametrize("method", METHODS)
def test_a_linear_equation_is_solved_by_the_exponential(method: str) -> None:
    times = [0.5, 0.7, 3.0]  # that they do not begin with 0 makes no difference
    found = solve(turning, gaussians(5, 2), times, method=method, dt=0.01, tolerance=1e-9)
    A = torch.tensor([[-0.3, 2.0], [-2.0, -0.3]]).double()
    for state, time in zip(found, times, strict=True):
        exact = gaussians(5, 2) @ torch.linalg.matrix_exp((time - 0.5) * A)
        torch.testing.assert_close(state, exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_adaptive_and_fine_fixed_steps_agree_on_a_gated_equation(gate: bool, alpha: float) -> None:
    own = cell(min(alpha, 1.0), gate=gate)
    own.alpha = alpha  # of continuous time it may be any
    inputs = gaussians(6, 8, 2)
    adaptive = own.solve(inputs, method="dopri5", tolerance=1e-8)
    torch.testing.assert_close(own.solve(inputs, dt=0.002), adaptive, rtol=0, atol=1e-6)


def test_steps_of_euler_approach_the_solution_as_alpha_goes_to_zero() -> None:
    inputs = gaussians(4, 8, 2)

    def apart(divided: int) -> float:
        steps = cell(0.5 / divided).run(inputs.repeat_interleave(divided, 0))[
            divided - 1 :: divided
        ]
        return (steps - cell(0.5).solve(inputs, dt=0.01)).abs().max().item()

    assert apart(100) < 0.6 * apart(50) < 0.4 * apart(20)


def test_one_state_that_moves_among_many_at_rest_is_as_exact_as_alone() -> None:
    def orbiting(x: Tensor) -> Tensor:
        return 20 * turning(x)

    many = torch.zeros(4000, 2).double()
    many[17] = torch.tensor([1.0, 0.0])
    options = {"method": "dopri5", "tolerance": 1e-6}
    alone = solve(orbiting, many[17:18], [0.0, 0.2], **options)
    among = solve(orbiting, many, [0.0, 0.2], **options)[:, 17:18]
    torch.testing.assert_close(among, alone, rtol=0, atol=1e-12)


def test_a_solution_goes_on_from_a_state_and_is_the_same_a_second_time() -> None:
    own, inputs = cell(), gaussians(6, 3, 2)
    for method in METHODS:
        whole = own.solve(inputs, method=method)
        assert torch.equal(own.solve(inputs, method=method), whole)
        rest = own.solve(inputs[2:], whole[1], method=method)
        torch.testing.assert_close(rest, whole[2:])


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_the_solution(method: str) -> None:
    rate = torch.tensor(0.7).double().requires_grad_()
    end = solve(lambda x: -rate * x, torch.ones(1, 1).double(), [0.0, 2.0], method=method)[-1]
    (slope,) = torch.autograd.grad(end.sum(), rate)
    assert slope.item() == pytest.approx(-2 * torch.tensor(-1.4).exp().item(), abs=1e-5)


def test_jacobians_go_through_fixed_steps_and_a_flow_takes_both() -> None:
    own, states = cell(widths=[]), gaussians(5, 4)  # smooth, so that derivatives converge

    def end(method: str) -> object:
        given = torch.zeros(1, 2).double()

        def step(x: Tensor) -> Tensor:
            held = given.expand(len(x), 2)[None]
            return own.solve(held, x, method=method, tolerance=1e-9, dt=0.01)[-1]

        return step

    fixed = Flow(end("rk4"), modules=[own]).jacobian(states)
    torch.testing.assert_close(vmap(jacrev(lambda x: end("rk4")(x[None])[0]))(states), fixed)
    adaptive = Flow(end("dopri5"), modules=[own]).jacobian(states)
    torch.testing.assert_close(adaptive, fixed, rtol=0, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"torch.func.vmap and jacrev.*method='rk4'"):
        vmap(jacrev(lambda x: end("dopri5")(x[None])[0]))(states)
    with pytest.raises(RuntimeError, match=r"torch.func.vmap and jacrev.*method='rk4'"):
        jacrev(end("dopri5"))(states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_keep_their_kind_and_shape(dtype: torch.dtype) -> None:
    for method in METHODS:
        found = solve(torch.neg, torch.ones(3, 2, 2, dtype=dtype), (0, 1), method=method)
        assert found.dtype == dtype
        assert found.shape == (2, 3, 2, 2)


def test_without_torchdiffeq_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r"pip install 'torchkoopman\[ode\]'"):
        solve(torch.neg, torch.ones(1, 1), [0.0, 1.0], method="dopri5")
    assert solve(torch.neg, torch.ones(1, 1), [0.0, 1.0]).shape == (2, 1, 1)


def test_a_solution_that_diverges_is_not_finite_or_refused() -> None:
    start = torch.ones(1, 1).double()  # dx/dt = x² is infinite at t = 1
    assert not solve(torch.square, start, [0.0, 3.0])[-1].isfinite().all()
    with pytest.raises(RuntimeError, match=r"does not get on.*diverges, is stiff"):
        solve(torch.square, start, [0.0, 3.0], method="dopri5")


def test_errors_of_the_velocity_itself_are_its_own() -> None:
    with pytest.raises(RuntimeError, match=r"mat1 and mat2|size mismatch|shapes"):
        solve(lambda x: x @ torch.ones(3, 3), torch.ones(1, 2), [0.0, 1.0], method="dopri5")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": [0.0]}, r"two times or more that increase; got \[0.0\]"),
        ({"times": [0.0, 1.0, 1.0]}, "that increase"),
        ({"times": [0.0, float("nan")]}, "that increase"),
        ({"times": [0.0, float("inf")]}, "that increase"),
        ({"times": 3.0}, "that increase"),
        ({"method": "euler"}, "method='euler'; choose 'rk4' or 'dopri5'"),
        ({"dt": 0.0}, "dt=0.0; give a positive"),
        ({"tolerance": -1.0}, "tolerance=-1.0; give a positive"),
        ({"starts": torch.tensor([[float("nan")]]), "method": "dopri5"}, "1 of 1 starts are not"),
        ({"starts": torch.ones(0, 1)}, "one state or more"),
    ],
)
def test_what_cannot_be_solved_is_refused(options: dict[str, object], message: str) -> None:
    given = {"starts": torch.ones(1, 1), "times": [0.0, 1.0]} | options
    with pytest.raises(ValueError, match=message):
        solve(torch.neg, given.pop("starts"), given.pop("times"), **given)


def test_a_cell_refuses_inputs_of_other_widths_before_it_is_solved() -> None:
    own = cell()
    with pytest.raises(ValueError, match=r"the cell takes inputs \(…, 2\)"):
        own.solve(gaussians(3, 5, 3))
    with pytest.raises(ValueError, match=r"solve\(\) takes inputs \(times, batch, inputs\)"):
        own.solve(gaussians(5, 2))
    with pytest.raises(TypeError, match="float32 or float64"):
        own.half().solve(gaussians(3, 5, 2).half())


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@pytest.mark.parametrize("field", [lambda x: x[:, :1], lambda x: x.sum(), lambda x: (x,)])
def test_a_velocity_that_would_be_broadcast_is_refused(method: Any, field: Any) -> None:
    with pytest.raises(ValueError, match=r"velocity of states \(2, 3\) is"):
        solve(field, torch.ones(2, 3), [0.0, 1.0], method=method)


def test_a_flow_of_a_velocity_that_would_be_broadcast_is_refused() -> None:
    with pytest.raises(ValueError, match=r"velocity of states \(2, 3\) is \(2, 1\)"):
        one_step(lambda x: x[:, :1], 0.1, "euler")(torch.ones(2, 3))
