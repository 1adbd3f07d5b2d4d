"""A change of frame folds into encoder and decoder: the same functions of the same states."""

import pytest
import torch
from torch import Tensor

from torchkoopman.fitting.reframing import reframed
from torchkoopman.koopman.coordinates import Coordinates
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operators import Dense, Orthogonal


def frame(matrix: Tensor, mean: Tensor) -> Coordinates:
    return Coordinates(matrix, mean, torch.linalg.pinv(matrix))


def unlike(image: Tensor, latent: Tensor, constant: bool) -> float:
    """How far latent states differ but for their unit, which is returned; the constant stays 1."""
    if constant:
        torch.testing.assert_close(image[..., 0], torch.ones_like(image[..., 0]))
        image, latent = image[..., 1:], latent[..., 1:]
    unit = (latent.norm() / image.norm()).item()
    torch.testing.assert_close(image * unit, latent)
    return unit


@pytest.mark.parametrize("constant", [True, False])
def test_in_a_shared_frame_what_was_learnt_is_the_same_function_of_the_states(
    constant: bool,
) -> None:
    generator = torch.Generator().manual_seed(0)
    observables = LearntObservables(4, 6, (7, 5), constant).double()
    observables.initialise(generator)
    operator = (Dense(6, 2, constant=True) if constant else Orthogonal(6, 2)).double()
    step = torch.eye(6, dtype=torch.float64)
    step[1:] += torch.randn(5, 6, generator=generator, dtype=torch.float64)
    operator.start_from(step if constant else torch.linalg.qr(step).Q).requires_grad_(False)
    draws = [torch.randn(4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    old, new = (frame(draw, draw[0] * 3) for draw in draws)
    state = torch.randn(50, 4, generator=generator, dtype=torch.float64) * 5 + 2
    image, moved = reframed(observables, operator, [old, old], [new, new])
    latent, reached = observables.encode(old(state)), operator(observables.encode(old(state)))
    unlike(image.encode(new(state)), latent, constant)
    ours = new.inverse(image.decode(moved(image.encode(new(state)))))
    torch.testing.assert_close(ours, old.inverse(observables.decode(reached)))
    torch.testing.assert_close(moved.matrix(1).diagonal(), operator.matrix(1).diagonal())


def test_latent_states_and_weights_keep_their_size_however_often_states_double() -> None:
    """Else latent states would be a thousand times their coordinates, or weights as far apart."""
    generator = torch.Generator().manual_seed(2)
    observables, operator = LearntObservables(3, 5, (6,)).double(), Dense(5, 1, True).double()
    observables.initialise(generator)
    state = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    eye, mean = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    begun, first = observables.encode(state)[:, 1:].norm(), observables
    for times in range(10):
        frames = [[frame(eye / 2.0**k, mean)] for k in (times, times + 1)]
        observables, operator = reframed(observables, operator, *frames)
    latent = observables.encode(state)[:, 1:]
    assert 0.5 < latent.norm() / begun < 2
    for one, other in zip(first.parameters(), observables.parameters(), strict=True):
        if one.ndim == 2:
            torch.testing.assert_close(other, one)


def test_directions_that_are_new_change_nothing_of_what_was_learnt() -> None:
    """From three directions of five to all: the encoder does not see the others yet."""
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    mean = torch.ones(5, dtype=torch.float64)
    old, new = frame(axes[:3] * 2, mean), frame(axes * 0.3, mean * 4)
    observables, operator = LearntObservables(3, 5, (6,)).double(), Dense(5, 1, True).double()
    observables.initialise(generator)
    image, _ = reframed(observables, operator, [old], [new])
    state = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    latent = observables.encode(old(state))
    unit = unlike(image.encode(new(state)), latent, constant=True)
    assert unit == pytest.approx(2 / 0.3, rel=1e-6)
    decoded = new.inverse(image.decode(image.encode(new(state))))
    torch.testing.assert_close(decoded, old.inverse(observables.decode(latent)))
