"""The optimiser's schedule, the averaged weights, and who is decayed."""

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.fitting.trainer import Trainer
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operators import Dense, Orthogonal

NOTHING = tk.LossWeights(reconstruction=0, state=0, latent=0, isometry=0)
"""Under these weights every gradient is zero."""


def paths(seed: int = 0) -> Tensor:
    return torch.randn(32, 3, 4, generator=torch.Generator().manual_seed(seed))


def trainer(
    weights: tk.LossWeights = tk.LossWeights(),  # noqa: B008, frozen
    rate: float = 1e-2,
    decay: float = 1e-4,
) -> Trainer:
    learnt = LearntObservables(4, 6, (8,))
    learnt.initialise(torch.Generator().manual_seed(0))
    operator = Dense(6, 2, constant=True)
    operator.start_from(torch.eye(6) + 0.1 * torch.ones(6, 6))
    return Trainer(learnt, operator, weights, rate, decay)


def rates(trained: Trainer, steps: int) -> list[float]:
    """The learning rate each of the next steps was taken at."""
    used = []
    for _ in range(steps):
        trained.step(paths())
        (rate,) = {group["lr"] for group in trained._optimiser.param_groups}
        used.append(rate)
    return used


def test_the_learning_rate_rises_linearly_over_a_hundred_steps_and_holds() -> None:
    trained = trainer(rate=0.5e-2)
    assert rates(trained, 5) == pytest.approx([0.5e-2 * (k + 1) / 100 for k in range(5)])
    trained.done = 97
    assert rates(trained, 6) == pytest.approx([0.5e-2 * k for k in (0.98, 0.99, 1, 1, 1, 1)])


def test_the_learning_rate_falls_linearly_to_zero_over_the_steps_asked_for() -> None:
    trained = trainer()
    trained.done = 100
    trained.fall(20)
    used = rates(trained, 20)
    assert used == pytest.approx([1e-2 * (20 - k) / 20 for k in range(20)])
    assert 0 < used[-1] < 1e-3


def test_after_the_fall_the_learning_rate_is_back_for_a_stream_that_goes_on() -> None:
    trained = trainer()
    trained.done = 100
    trained.fall(5)
    rates(trained, 5)
    assert rates(trained, 2) == pytest.approx([1e-2, 1e-2])


def test_a_fall_from_the_first_step_is_a_triangle_and_never_above_the_highest_rate() -> None:
    trained = trainer()
    trained.fall(20)
    used = rates(trained, 20)
    assert used == pytest.approx([1e-2 * (k + 1) / 100 * (20 - k) / 20 for k in range(20)])


def test_without_a_gradient_the_operator_stays_and_the_networks_decay() -> None:
    trained = trainer(NOTHING, decay=0.1)
    before = trained.operator.step().clone()  # type: ignore[operator]
    encoder = trained.observables.encoder.skip.weight.clone()
    for _ in range(20):
        trained.step(paths())
    torch.testing.assert_close(trained.operator.step(), before, rtol=0, atol=0)  # type: ignore[operator]
    # Decoupled decay: each step multiplies by 1 - rate(k) · decay.
    factor = torch.tensor([1 - 1e-2 * (k + 1) / 100 * 0.1 for k in range(20)]).prod()
    torch.testing.assert_close(trained.observables.encoder.skip.weight, factor * encoder)


def test_averaged_weights_are_the_exponential_average_over_the_last_tenth_of_the_steps() -> None:
    trained = trainer()
    slow, now = torch.zeros(0), torch.zeros(0)
    for k in range(30):
        trained.step(paths(k))
        now = torch.cat([p.detach().flatten() for p in trained.observables.parameters()])
        memory = (1 + k) / (10 + k)
        slow = now if k == 0 else memory * slow + (1 - memory) * now
    observables, _ = trained.averaged()
    found = torch.cat([p.flatten() for p in observables.parameters()])
    torch.testing.assert_close(found, slow, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found, now, atol=1e-4)


def test_the_average_is_over_a_hundred_steps_at_most() -> None:
    trained = trainer(rate=0.0)
    trained._average.n_averaged.fill_(100_000)
    before = trained.operator.rows.detach().clone()  # type: ignore[union-attr]
    with torch.no_grad():
        trained.operator.rows.add_(1.0)  # type: ignore[union-attr, operator]
    trained.step(paths())
    found = trained.averaged()[1].rows  # type: ignore[union-attr]
    torch.testing.assert_close(found, before + 0.01)


def test_a_settled_copy_has_a_rate_fallen_to_zero_and_leaves_the_training_as_it_was() -> None:
    trained, other = trainer(), trainer()
    for k in range(5):
        trained.step(paths(k))
        other.step(paths(k))
    settled = trained.settled(20, paths)
    assert (trained.done, settled.done) == (5, 25)
    assert settled.fallen
    assert not trained.fallen
    settled.step(paths())
    assert not settled.fallen
    for k in range(3):  # momentum and averages go on as if nothing had been settled
        trained.step(paths(k))
        other.step(paths(k))
    for one, two in zip(trained.averaged(), other.averaged(), strict=True):
        for a, b in zip(one.parameters(), two.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_averaged_weights_are_copies_without_gradients() -> None:
    trained = trainer()
    trained.step(paths())
    observables, operator = trained.averaged()
    assert not any(p.requires_grad for p in [*observables.parameters(), *operator.parameters()])
    before = operator.matrix(1.0).clone()
    for k in range(5):
        trained.step(paths(k))
    torch.testing.assert_close(operator.matrix(1.0), before, rtol=0, atol=0)
    assert all(p.requires_grad for p in trained.operator.parameters())


def test_the_average_of_orthogonal_operators_is_orthogonal() -> None:
    """A mean of rotations is none; the average is taken of the parameters behind them."""
    learnt = LearntObservables(4, 6, (8,), constant=False)
    learnt.initialise(torch.Generator().manual_seed(0))
    trained = Trainer(learnt, Orthogonal(6, 2), tk.LossWeights(), 3e-2, 0.0)
    for k in range(30):
        trained.step(paths(k))
    K = trained.averaged()[1].matrix(1.0)
    torch.testing.assert_close(K.T @ K, torch.eye(6), rtol=0, atol=1e-5)
    assert (K - torch.eye(6)).abs().max() > 1e-3


def test_a_step_lowers_the_loss_it_reports() -> None:
    trained = trainer()
    first = trained.step(paths())
    for _ in range(60):
        last = trained.step(paths())
    assert set(first) == {"reconstruction", "state", "latent", "isometry"}
    assert last["state"] < first["state"]
    assert not any(loss.requires_grad for loss in last.values())
    assert trained.done == 61


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_steps_are_taken_whether_or_not_gradients_are_on_outside(mode: type) -> None:
    trained = trainer()
    before = trained.operator.step().detach().clone()  # type: ignore[operator]
    with mode():
        trained.step(paths())
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    assert not torch.equal(trained.operator.step(), before)  # type: ignore[operator]


def test_a_frozen_tail_is_not_moved() -> None:
    tail = nn.Linear(4, 3).requires_grad_(False)
    before = tail.weight.clone()
    learnt = LearntObservables(4, 6, (8,))
    learnt.initialise(torch.Generator().manual_seed(0))
    trained = Trainer(
        learnt, Dense(6, 2, constant=True), tk.LossWeights(behaviour=1.0), 1e-2, 0.1, tail
    )
    losses = trained.step(paths())
    assert losses["behaviour"] > 0
    torch.testing.assert_close(tail.weight, before, rtol=0, atol=0)
