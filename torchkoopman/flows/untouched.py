"""A model lent for evaluation in the midst of its training, and given back as it was."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from torchkoopman.observe.alone import evaluating, within
from torchkoopman.observe.interrupts import uninterrupted
from torchkoopman.observe.randomness import random_states, set_random_states

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextmanager
def untouched(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Within it all parts of a model are in evaluation mode, and random numbers begin at ``seed``.

    Afterwards the mode of each part, the buffers, and the generators of Python, NumPy and torch are
    as before; probes of this library take the passes for nobody's. Mixed precision and inference
    mode around it are off within it. The model's own hooks run, as in every evaluation.

    Raises:
        RuntimeError: a forward pass wrote into a parameter.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    versions = {name: _version(each) for name, each in model.named_parameters()}
    drawn = random_states()
    kinds = {"cpu", *(each.device.type for each in model.parameters())} - {"meta"}
    try:
        with evaluating(model), within(object()), torch.inference_mode(False):
            _begin_at(seed)
            with _without_autocast(sorted(kinds)):
                yield
    finally:
        with uninterrupted(), torch.no_grad():
            set_random_states(drawn)
            for name, buffer in model.named_buffers():
                if name in buffers and not _same_bits(buffer, buffers[name]):
                    buffer.copy_(buffers[name])
    for name, each in model.named_parameters():
        if versions.get(name) != _version(each):
            raise RuntimeError(
                f"the forward pass of this {type(model).__name__} writes into its parameter "
                f"{name!r} in evaluation mode too, so it cannot be looked at without changing it; "
                "look at a copy, copy.deepcopy(model)."
            )


def _begin_at(seed: int) -> None:
    """Of the generators whose states are put back, and of no other device's."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the user's code may draw from it)
    torch.default_generator.manual_seed(seed)
    if torch.cuda._initialized:
        torch.cuda.manual_seed_all(seed)


@contextmanager
def _without_autocast(kinds: list[str]) -> Iterator[None]:
    """Within it no type of device computes in mixed precision."""
    if not kinds:
        yield
        return
    with torch.autocast(kinds[0], enabled=False), _without_autocast(kinds[1:]):
        yield


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """NaN equals itself."""
    return torch.equal(one, other) or (
        torch.equal(one.isnan(), other.isnan())
        and torch.equal(one.nan_to_num(), other.nan_to_num())
    )
