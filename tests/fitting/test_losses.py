"""Every term of the loss against a slow transcription of its formula, path by path."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from tests.systems import seeded
from torchkoopman.fitting.losses import koopman_losses, total_loss
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operator import Operator
from torchkoopman.koopman.operators import FAMILIES, Dense, operator_from_config

ROWS, DEPTH, COORDINATES, LATENT = 7, 4, 3, 5


def paths(layers: int = DEPTH) -> Tensor:
    return torch.randn(ROWS, layers, COORDINATES, generator=seeded(), dtype=torch.float64)


def observables(constant: bool = True) -> LearntObservables:
    learnt = LearntObservables(COORDINATES, LATENT, (6,), constant)
    learnt.initialise(seeded(1))
    return learnt.double()


def dense(steps: int = DEPTH - 1) -> Dense:
    operator = Dense(LATENT, steps, constant=True).double()
    step = torch.randn(LATENT, LATENT, generator=seeded(2), dtype=torch.float64) * 0.5
    step[0] = torch.eye(LATENT)[0]
    return operator.start_from(step)


def member(family: str) -> Operator:
    rank = {"rank": 3} if family == "LowRank" else {}
    return operator_from_config({"family": family, "latent": LATENT, "steps": DEPTH - 1, **rank})


def mean_square(difference: Tensor) -> Tensor:
    return sum(d @ d for d in difference) / difference.numel()


def transcription(
    x: Tensor, learnt: LearntObservables, operator: Operator, inner: float
) -> dict[str, Tensor]:
    """mathematics §5 with depth-times t_l = l / L: loops over layers, all pairs i < j."""
    last = x.shape[1] - 1
    losses = {name: torch.zeros((), dtype=x.dtype) for name in ("rec", "state", "latent")}
    for i in range(last + 1):
        weight = 0.5 if i in (0, last) else inner
        error = x[:, i] - learnt.decode(learnt.encode(x[:, i]))
        losses["rec"] = losses["rec"] + weight * mean_square(error)
    for i in range(last + 1):
        for j in range(i + 1, last + 1):
            weight = 1.0 if (i, j) == (0, last) else inner
            K = operator.matrix((j - i) / last)
            ahead = learnt.encode(x[:, i]) @ K.T
            losses["state"] = losses["state"] + weight * mean_square(learnt.decode(ahead) - x[:, j])
            losses["latent"] = losses["latent"] + weight * mean_square(
                ahead - learnt.encode(x[:, j])
            )
    return losses


@pytest.mark.parametrize("layers", [2, 3, 5])
@pytest.mark.parametrize("inner", [1.0, 0.3])
def test_reconstruction_state_and_latent_terms_are_loops_over_all_pairs_of_layers(
    layers: int, inner: float
) -> None:
    x, learnt, operator = paths(layers), observables(), dense(layers - 1)
    losses = koopman_losses(x, learnt, operator, tk.LossWeights(inner=inner))
    slow = transcription(x, learnt, operator, inner)
    torch.testing.assert_close(losses["reconstruction"], slow["rec"])
    torch.testing.assert_close(losses["state"], slow["state"])
    torch.testing.assert_close(losses["latent"], slow["latent"])


@pytest.mark.parametrize("share", [1, 3, ROWS, 2 * ROWS])
def test_inner_layers_may_take_part_on_a_share_of_the_rows(share: int) -> None:
    x, learnt, operator = paths(), observables(), dense()
    losses = koopman_losses(x, learnt, operator, tk.LossWeights(inner=0.3), inner_rows=share)
    ends = transcription(x, learnt, operator, 0.0)
    part = x[:share]
    others = {
        term: transcription(part, learnt, operator, 1.0)[term]
        - transcription(part, learnt, operator, 0.0)[term]
        for term in ends
    }
    for term, name in (("rec", "reconstruction"), ("state", "state"), ("latent", "latent")):
        torch.testing.assert_close(losses[name], ends[term] + 0.3 * others[term])


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_taken_at_the_layers_depth_times(family: str) -> None:
    operator = member(family)
    if family != "LowRank":
        start = torch.linalg.qr(torch.randn(LATENT, LATENT, generator=seeded(4)))[0]
        operator.start_from(torch.matrix_exp(0.3 * (start - start.T)) * 0.9)
    operator.double()
    x, learnt = paths(), observables(constant=False)
    losses = koopman_losses(x, learnt, operator, tk.LossWeights(inner=0.7))
    slow = transcription(x, learnt, operator, 0.7)
    torch.testing.assert_close(losses["state"], slow["state"])
    torch.testing.assert_close(losses["latent"], slow["latent"])


def test_inner_zero_is_the_loss_of_s1_on_the_first_and_last_layer_alone() -> None:
    x, learnt, operator = paths(), observables(), dense(1)
    weights = tk.LossWeights(inner=0)
    losses = koopman_losses(x, learnt, operator, weights)
    first, last = learnt.encode(x[:, 0]), learnt.encode(x[:, -1])
    ahead = first @ operator.step().T
    torch.testing.assert_close(losses["state"], mean_square(learnt.decode(ahead) - x[:, -1]))
    torch.testing.assert_close(losses["latent"], mean_square(ahead - last))
    torch.testing.assert_close(
        losses["reconstruction"],
        0.5 * mean_square(learnt.decode(first) - x[:, 0])
        + 0.5 * mean_square(learnt.decode(last) - x[:, -1]),
    )
    other = x.clone()
    other[:, 1:-1] = 1e6
    for term, loss in koopman_losses(other, learnt, operator, weights).items():
        torch.testing.assert_close(loss, losses[term])


def test_isometry_is_a_loop_over_pairs_of_rows_in_the_first_and_last_layer() -> None:
    """Mean over ordered pairs of different rows and both layers, per coordinate."""
    x, learnt = paths(), observables()
    found = koopman_losses(x, learnt, dense(), tk.LossWeights())["isometry"]
    slow = torch.zeros((), dtype=torch.float64)
    for layer in (0, -1):
        states, latents = x[:, layer], learnt.encode(x[:, layer])
        near, far = torch.cdist(states, states), torch.cdist(latents, latents)
        for a in range(ROWS):
            for b in range(ROWS):
                slow = slow + (far[a, b] - near[a, b]) ** 2 * (a != b)
    torch.testing.assert_close(
        found, slow / (2 * ROWS * (ROWS - 1) * COORDINATES), rtol=1e-5, atol=1e-8
    )


def test_isometry_vanishes_for_an_encoder_that_keeps_distances() -> None:
    learnt = LearntObservables(COORDINATES, COORDINATES + 1, (6,), constant=True)
    learnt.initialise(seeded())
    with torch.no_grad():
        learnt.encoder.mlp[-1].weight.zero_()  # type: ignore[operator, union-attr]
        learnt.encoder.skip.weight.copy_(torch.linalg.qr(torch.randn(3, 3, generator=seeded()))[0])
    operator = Dense(COORDINATES + 1, 3, constant=True).double()
    losses = koopman_losses(paths(), learnt.double(), operator, tk.LossWeights())
    assert losses["isometry"] < 1e-12


def test_isometry_has_finite_gradients_where_rows_coincide() -> None:
    x, learnt = paths()[:1].expand(ROWS, -1, -1), observables()
    koopman_losses(x, learnt, dense(), tk.LossWeights())["isometry"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in learnt.parameters())


def test_isometry_is_left_out_at_weight_zero() -> None:
    losses = koopman_losses(paths(), observables(), dense(), tk.LossWeights(isometry=0))
    assert set(losses) == {"reconstruction", "state", "latent"}


def test_terms_vanish_on_an_exact_linear_system_with_an_exact_autoencoder() -> None:
    learnt = LearntObservables(COORDINATES, COORDINATES + 1, (6,), constant=True)
    learnt.initialise(seeded())
    with torch.no_grad():
        for coder in (learnt.encoder, learnt.decoder):
            coder.mlp[-1].weight.zero_()  # type: ignore[operator, union-attr]
    step = torch.eye(COORDINATES + 1, dtype=torch.float64)
    step[1:] += 0.2 * torch.randn(3, 4, generator=seeded(), dtype=torch.float64)
    operator = Dense(COORDINATES + 1, DEPTH - 1, constant=True).double().start_from(step)
    x = [paths()[:, 0]]
    for _ in range(DEPTH - 1):
        x.append(x[-1] @ step[1:, 1:].T + step[1:, 0])
    losses = koopman_losses(torch.stack(x, 1), learnt.double(), operator, tk.LossWeights())
    for term, loss in losses.items():
        assert loss < 1e-12, term


def test_behaviour_is_the_divergence_of_the_networks_classes_from_the_predicted_ones() -> None:
    x, learnt, operator = paths(), observables(), dense()
    tail = nn.Linear(COORDINATES, 4).double()
    found = koopman_losses(x, learnt, operator, tk.LossWeights(), tail)["behaviour"]
    ahead = learnt.decode(learnt.encode(x[:, 0]) @ operator.matrix(1.0).T)
    slow = torch.zeros((), dtype=torch.float64)
    for truth, guess in zip(tail(x[:, -1]).softmax(1), tail(ahead).softmax(1), strict=True):
        for p, q in zip(truth, guess, strict=True):
            slow = slow + p * (p / q).log()
    torch.testing.assert_close(found, slow / ROWS)
    without = koopman_losses(x, learnt, operator, tk.LossWeights(behaviour=0), tail)
    assert "behaviour" not in without


def test_the_total_is_the_weighted_sum() -> None:
    weights = tk.LossWeights(reconstruction=2, state=3, latent=5, isometry=7)
    losses = koopman_losses(paths(), observables(), dense(), weights)
    expected = (
        2 * losses["reconstruction"]
        + 3 * losses["state"]
        + 5 * losses["latent"]
        + 7 * losses["isometry"]
    )
    torch.testing.assert_close(total_loss(losses, weights), expected)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_gradient_reaches_every_parameter_of_operator_encoder_and_decoder(family: str) -> None:
    operator = member(family).double()
    learnt = observables(constant=False)
    total_loss(
        koopman_losses(paths(), learnt, operator, tk.LossWeights()), tk.LossWeights()
    ).backward()
    for name, parameter in [*operator.named_parameters(), *learnt.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("term", ["state", "latent"])
def test_prediction_terms_alone_move_the_operator(term: str) -> None:
    nothing = tk.LossWeights(reconstruction=0, state=0, latent=0, isometry=0)
    weights, operator = replace(nothing, **{term: 1.0}), dense()
    total_loss(koopman_losses(paths(), observables(), operator, weights), weights).backward()
    assert operator.rows.grad is not None
    assert operator.rows.grad.abs().max() > 0


def test_the_constant_of_a_dense_operator_stays_under_its_gradient() -> None:
    operator, learnt = dense(), observables()
    optimiser = torch.optim.SGD([*operator.parameters(), *learnt.parameters()], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        weights = tk.LossWeights()
        total_loss(koopman_losses(paths(), learnt, operator, weights), weights).backward()
        optimiser.step()
    torch.testing.assert_close(operator.step()[0], torch.eye(LATENT, dtype=torch.float64)[0])
