"""A change of frame folds into encoder and decoder: the same functions of the same states."""

import pytest
import torch
from torch import Tensor

from torchkoopman.fitting.reframing import reframed
from torchkoopman.koopman.coordinates import Coordinates
from torchkoopman.koopman.learnt import LearntObservables


def frame(matrix: Tensor, mean: Tensor) -> Coordinates:
    return Coordinates(matrix, mean, torch.linalg.pinv(matrix))


@pytest.mark.parametrize("constant", [True, False])
def test_in_a_shared_frame_what_was_learnt_is_the_same_function_of_the_states(
    constant: bool,
) -> None:
    generator = torch.Generator().manual_seed(0)
    observables = LearntObservables(4, 6, (7,), constant).double()
    observables.initialise(generator)
    draws = [torch.randn(4, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    old, new = (frame(draw, draw[0] * 3) for draw in draws)
    state = torch.randn(50, 4, generator=generator, dtype=torch.float64) * 5 + 2
    image = reframed(observables, [old, old], [new, new])
    latent = observables.encode(old(state))
    torch.testing.assert_close(image.encode(new(state)), latent)
    ours, theirs = new.inverse(image.decode(latent)), old.inverse(observables.decode(latent))
    torch.testing.assert_close(ours, theirs)


def test_directions_that_are_new_change_nothing_of_what_was_learnt() -> None:
    """From three directions of five to all: the encoder does not see the others yet."""
    generator = torch.Generator().manual_seed(1)
    axes = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    mean = torch.ones(5, dtype=torch.float64)
    old, new = frame(axes[:3] * 2, mean), frame(axes * 0.3, mean * 4)
    observables = LearntObservables(3, 5, (6,)).double()
    observables.initialise(generator)
    image = reframed(observables, [old], [new])
    state = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    latent = observables.encode(old(state))
    torch.testing.assert_close(image.encode(new(state)), latent)
    decoded = new.inverse(image.decode(latent))
    torch.testing.assert_close(decoded, old.inverse(observables.decode(latent)))
