"""The random number generators of Python, NumPy and torch, all together."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_states() -> tuple[Any, ...]:
    """The states of Python's, NumPy's and torch's generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda._initialized else None
    numpy = np.random.get_state()  # noqa: NPY002 (the user's code may draw from it)
    return random.getstate(), numpy, torch.get_rng_state(), cuda


def set_random_states(states: tuple[Any, ...]) -> None:
    """Give the generators states that they had."""
    plain, numpy, cpu, cuda = states
    random.setstate(plain)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)


def random_draws() -> tuple[Any, ...]:
    """A mark of how far the random number generators have come, to compare with another."""
    plain, numpy, cpu, cuda = random_states()
    key, *rest = (bytes(np.asarray(part)) if i == 1 else part for i, part in enumerate(numpy))
    devices = () if cuda is None else tuple(bytes(each.numpy()) for each in cuda)
    return plain, (key, *rest), bytes(cpu.numpy()), devices
