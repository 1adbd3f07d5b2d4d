"""The drift of a read-out, on flows where it is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from torchkoopman.flows import Flow, GatedODECell, readout_drift


def gaussians(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_what_stays_does_not_drift_and_a_decay_drifts_at_its_rate() -> None:
    states = gaussians(50, 3)
    readout = nn.Linear(3, 2).double()
    still = readout_drift(Flow(lambda x: x.clone()), readout, states, 7)
    assert still.tolist() == [0.0] * 8
    decaying = readout_drift(Flow.of_field(lambda x: -x, 0.1), readout, states, 30)
    size = (states @ readout.weight.T).square().sum(1).mean().item()  # the bias does not drift
    wanted = [size * (1 - math.exp(-0.1 * step)) ** 2 for step in range(31)]
    torch.testing.assert_close(decaying, torch.tensor(wanted).double(), rtol=1e-4, atol=0)


def test_what_is_not_read_out_may_move() -> None:
    spin = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).double()
    flow, states = Flow(lambda x: x @ spin.T), gaussians(20, 3)
    assert readout_drift(flow, lambda x: x[:, 2], states, 5).abs().max() == 0
    assert readout_drift(flow, lambda x: x[:, :2], states, 4)[[2, 4]].tolist() == pytest.approx(
        [4 * states[:, :2].square().sum(1).mean().item(), 0], abs=1e-12
    )


def test_a_cell_drifts_as_its_own_run_without_input_does() -> None:
    cell = GatedODECell(2, 4, widths=[8], alpha=0.5).double().eval()
    readout, states = nn.Linear(4, 2).double(), gaussians(10, 4)
    flow = Flow.of_cell(cell, torch.zeros(2).double())
    drift = readout_drift(flow, readout, states, 6)
    run = readout(cell.run(torch.zeros(6, 10, 2).double(), states))
    wanted = (run - readout(states)).square().sum(2).mean(1)
    torch.testing.assert_close(drift[1:], wanted.detach())
    assert drift.dtype == torch.float64
    assert not drift.requires_grad


@pytest.mark.parametrize(
    ("readout", "steps", "message"),
    [
        (lambda x: x, 0, "steps=0"),
        (lambda x: x.mean(), 3, r"read-out of 5 states gives \(\)"),
        (lambda x: x[:2], 3, r"read-out of 5 states gives \(2, 2\)"),
        (lambda x: (x, x), 3, "gives <class 'tuple'>|gives tuple"),
    ],
)
def test_what_cannot_be_read_is_refused(readout: object, steps: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        readout_drift(Flow(lambda x: x.clone()), readout, gaussians(5, 2), steps)


@pytest.mark.parametrize("part", [nn.Dropout(), nn.BatchNorm1d(4)])
def test_a_read_out_in_training_mode_is_refused_for_its_noise_would_be_a_drift(
    part: nn.Module,
) -> None:
    still, states = (
        Flow(lambda x: x),
        torch.randn(20, 4, generator=torch.Generator().manual_seed(0)),
    )
    part.train()
    with torch.random.fork_rng(), pytest.raises(ValueError, match=r"two readings .*\.eval\(\)"):
        readout_drift(still, part, states, steps=3)
    assert readout_drift(still, part.eval(), states, steps=3).max() == 0
    assert readout_drift(still, part, states[:1], steps=3).max() == 0
