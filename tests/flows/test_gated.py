"""Gated cells, equal to each other where the algebra says so; flip-flops hold the latest pulse."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from torchkoopman.flows import Flow, GatedODECell, flip_flops

if TYPE_CHECKING:
    from torch import Tensor


def gaussians(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cell(**options: object) -> GatedODECell:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return GatedODECell(2, 4, **options)


def test_without_a_gate_and_with_alpha_one_it_is_torchs_rnn_cell() -> None:
    own, theirs = cell(gate=False), nn.RNNCell(2, 4)
    linear = own.target[0]
    with torch.no_grad():
        theirs.weight_ih.copy_(linear.weight[:, :2])
        theirs.weight_hh.copy_(linear.weight[:, 2:])
        theirs.bias_ih.copy_(linear.bias)
        theirs.bias_hh.zero_()
    x, h = gaussians(7, 2), gaussians(7, 4, seed=1)
    torch.testing.assert_close(own(x, h), theirs(x, h))


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_with_a_gate_it_is_the_minimal_gated_unit_slowed_by_alpha(alpha: float) -> None:
    own = cell(alpha=alpha)
    x, h = gaussians(7, 2), gaussians(7, 4, seed=1)
    both = torch.cat([x, h], 1)
    drawn = torch.tanh(both @ own.target[0].weight.T + own.target[0].bias)
    gate = alpha * torch.sigmoid(both @ own.gate.weight.T + own.gate.bias)
    torch.testing.assert_close(own(x, h), (1 - gate) * h + gate * drawn)


def test_a_gate_that_is_open_makes_a_gated_neural_ode_a_neural_ode() -> None:
    gated, plain = cell(widths=[8, 8], alpha=0.2), cell(widths=[8, 8], alpha=0.2, gate=False)
    plain.target.load_state_dict(gated.target.state_dict())
    with torch.no_grad():
        gated.gate.weight.zero_()
        gated.gate.bias.fill_(50)
    x = gaussians(20, 7, 2)
    torch.testing.assert_close(gated.run(x), plain.run(x))


def test_euler_and_runge_kutta_converge_to_one_solution_at_their_orders() -> None:
    def end(method: str, steps: int) -> Tensor:
        own = cell(widths=[], alpha=2 / steps, method=method).double()
        return own.run(torch.zeros(steps, 1, 2).double(), torch.ones(1, 4).double())[-1]

    exact = end("rk4", 1280)
    errors = {m: [(end(m, n) - exact).norm().item() for n in (10, 20)] for m in ("euler", "rk4")}
    assert math.log2(errors["euler"][0] / errors["euler"][1]) == pytest.approx(1, abs=0.2)
    assert math.log2(errors["rk4"][0] / errors["rk4"][1]) == pytest.approx(4, abs=0.4)


@pytest.mark.parametrize("widths", [[], [32], [32, 32]])
@pytest.mark.parametrize("gate", [True, False])
def test_critical_means_that_small_states_neither_grow_nor_die(
    widths: list[int], gate: bool
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        own = GatedODECell(2, 16, widths=widths, gate=gate, alpha=0.1).critical_()
    states = 1e-3 * gaussians(64, 16)
    multipliers = Flow.of_cell(own.eval(), torch.zeros(2)).multipliers(states)
    slowest = 0.5 if gate else 1.0  # the gate is ½ where nothing comes in
    rates = (multipliers.real.amax(1) - 1) / (0.1 * slowest)
    assert rates.mean().abs() < 0.15
    assert own.run(torch.zeros(1, 1, 2)).abs().max() == 0


def test_a_run_is_its_steps_and_goes_on_from_a_state() -> None:
    own, x = cell(widths=[8], alpha=0.5), gaussians(10, 3, 2)
    whole = own.run(x)
    first = own.run(x[:4])
    torch.testing.assert_close(own.run(x[4:], first[-1]), whole[4:])


@pytest.mark.slow
def test_two_continuous_bits_fit_into_two_states_where_two_of_a_gru_do_not_hold_them() -> None:
    trials = flip_flops(100, generator=torch.Generator().manual_seed(1))
    unseen = flip_flops(100, generator=torch.Generator().manual_seed(2))

    def error_of(core: nn.Module, run: object) -> float:
        readout = nn.Linear(2, 2)
        parameters = [*core.parameters(), *readout.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=5e-3)
        for _ in range(150):
            optimizer.zero_grad()
            (readout(run(trials.inputs)) - trials.targets).square().mean().backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        with torch.no_grad():
            return (readout(run(unseen.inputs)) - unseen.targets).square().mean().item()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        own, gru = GatedODECell(2, 2, widths=[64, 64]), nn.GRU(2, 2)
        errors = error_of(own, own.run), error_of(gru, lambda x: gru(x)[0])
    assert errors[0] < errors[1]


@pytest.mark.parametrize("shape", ["fixed", "square", "rectangle", "disk", "ring", "points"])
def test_targets_are_the_latest_pulse_of_each_input(shape: str) -> None:
    trials = flip_flops(50, shape=shape, width=2)
    inputs, targets = trials.inputs, trials.targets
    held = torch.zeros_like(targets[0])
    for given, wanted in zip(inputs, targets, strict=True):
        held = torch.where(given != 0, given, held)
        torch.testing.assert_close(wanted, held, rtol=0, atol=0)
    assert 5 < (inputs[1:] != inputs[:-1]).sum() / 50 / 2 / 2 < 13


def test_amplitudes_fill_their_shapes() -> None:
    def amplitudes(shape: str) -> Tensor:
        rows = flip_flops(400, shape=shape).inputs.flatten(0, 1)
        return rows[(rows != 0).all(1)]

    radii = amplitudes("ring").norm(dim=1)
    assert 0.5 <= radii.min() < 0.55
    assert 0.95 < radii.max() <= 1
    disk = amplitudes("disk").norm(dim=1)
    assert disk.square().mean() == pytest.approx(0.5, abs=0.05)  # uniform by area
    assert amplitudes("rectangle")[:, 1].abs().max() <= 0.5
    assert len(amplitudes("points").unique(dim=0)) == 4


def test_one_seed_gives_the_same_trials_and_global_random_state_stays() -> None:
    before = torch.get_rng_state()
    one, two = flip_flops(20), flip_flops(20)
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GatedODECell(-1, 4), "inputs=-1, states=4"),
        (lambda: GatedODECell(2, 4, widths=[8, 0]), r"widths=\[8, 0\]"),
        (lambda: GatedODECell(2, 4, alpha=1.5), "alpha=1.5.*overshoots"),
        (lambda: GatedODECell(2, 4, alpha=0), "alpha=0"),
        (lambda: GatedODECell(2, 4, method="heun"), "method='heun' is unknown"),
        (lambda: cell()(gaussians(3, 3), gaussians(3, 4)), r"takes inputs \(…, 2\)"),
        (lambda: cell().run(gaussians(3, 2)), r"\(times, batch, inputs\)"),
        (lambda: cell().run(gaussians(0, 3, 2)), "one time or more"),
        (lambda: cell().run(gaussians(5, 3, 2), gaussians(2, 4)), r"batch of 3, \(3, 4\); got \(2"),
        (lambda: cell().solve(gaussians(5, 3, 2), gaussians(4)), r"batch of 3, \(3, 4\); got \(4,"),
        (lambda: flip_flops(3, pulses=math.inf), "pulses=inf; give"),
        (lambda: flip_flops(3, shape="star"), "shape='star' is unknown"),
        (lambda: flip_flops(3, shape="disk", bits=3), "bits=3; give bits=2"),
        (lambda: flip_flops(0), "trials=0"),
    ],
)
def test_what_cannot_be_made_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("widths", [100, "100"])
def test_widths_are_a_sequence(widths: object) -> None:
    with pytest.raises(TypeError, match=r"got widths=.*as widths=\[100\]"):
        GatedODECell(2, 4, widths=widths)


@pytest.mark.parametrize("options", [{}, {"gate": False}, {"widths": [8]}])
def test_a_cell_gives_the_same_in_another_thread_and_a_second_time(
    options: dict[str, object],
) -> None:
    own, x = cell(**options), gaussians(10, 3, 2)
    wanted, found = own.run(x), []
    other = threading.Thread(target=lambda: found.extend([own.run(x), own.run(x)]))
    other.start()
    other.join()
    assert all(torch.equal(each, wanted) for each in found)
    assert len(found) == 2
    torch.testing.assert_close(own.double().run(x.double()).float(), wanted)


def test_counts_that_are_no_whole_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"times=2\.5; give a whole number"):
        flip_flops(3, times=2.5)
