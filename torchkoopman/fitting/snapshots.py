"""What a fitter's parts are made of, as tensors and plain types, and back.

A state holds tensors, numbers, strings, lists, tuples and dictionaries alone: ``torch.save`` writes
it, and ``torch.load(…, weights_only=True)`` reads it without running anybody's code.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.koopman.coordinates import Coordinates
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.observe.views import View

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn


def trajectory_state(trajectory: Trajectory | None) -> dict[str, Any] | None:
    """A trajectory, its views by their descriptions."""
    if trajectory is None:
        return None
    plain = {each.name: getattr(trajectory, each.name) for each in fields(trajectory)}
    return {
        **{
            name: each.detach() if isinstance(each, Tensor) else each
            for name, each in plain.items()
        },
        "states": {layer: state.detach() for layer, state in trajectory.states.items()},
        "views": {layer: view.config() for layer, view in trajectory.views.items()},
    }


def trajectory_of(state: Mapping[str, Any] | None) -> Trajectory | None:
    """The inverse of :func:`trajectory_state`."""
    if state is None:
        return None
    views = {layer: View.from_config(view) for layer, view in state["views"].items()}
    return Trajectory(**{**state, "views": views})


def trajectories_of(states: Sequence[Mapping[str, Any]]) -> list[Trajectory]:
    """The inverse of :func:`trajectory_state` for several."""
    return [each for each in map(trajectory_of, states) if each is not None]


def frames_state(frames: Sequence[Coordinates]) -> list[dict[str, Tensor]]:
    """The layers' coordinates."""
    return [dict(frame.state_dict()) for frame in frames]


def frames_of(states: Sequence[Mapping[str, Tensor]]) -> list[Coordinates]:
    """The inverse of :func:`frames_state`."""
    return [Coordinates(**state) for state in states]


def fingerprint(*modules: nn.Module | None) -> str:
    """A digest of modules' structure and tensors: equal where they compute the same."""
    digest = hashlib.sha256()
    for module in modules:
        digest.update(repr(module).encode())
        for name, tensor in [] if module is None else _tensors(module):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            plain = _local(tensor).detach().cpu().contiguous().flatten()
            digest.update(plain.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers; of a sharded module without a word to other processes."""
    yield from module.named_parameters()
    yield from module.named_buffers()


def _local(tensor: Any) -> Tensor:
    """This process's part of a tensor that may be sharded."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part
