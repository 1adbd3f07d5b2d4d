"""What a monitor of flows is given: the function that makes the flow, and where it starts."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchkoopman.flows.flow import Flow
from torchkoopman.flows.maps import modules_of, require_eval, require_states
from torchkoopman.observe.placements import is_dtensor

Starts = Tensor | Callable[[Any], Tensor]
"""Latent states, or a function from the model to these."""
_OPTIONS = ("tolerance", "merge", "far")
_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel", "DataParallel")
"""By name: a build of torch may lack some."""


def marks(starts: Mapping[str, Starts]) -> dict[str, str]:
    """Name → a digest of fixed states; of functions nothing is known."""
    return {
        name: digest(each) if isinstance(each, Tensor) else "a function"
        for name, each in starts.items()
    }


def settings(steps: int, options: Mapping[str, Any]) -> dict[str, float]:
    """What decides which points a look finds: those given, and the defaults of the others."""
    known = inspect.signature(Flow.fixed_points).parameters
    defaults = {name: float(known[name].default) for name in _OPTIONS}
    return {"steps": float(steps), **defaults, **{k: float(v) for k, v in options.items()}}


def digest(states: Tensor) -> str:
    """Of dtype, shape and bits."""
    plain = states.detach().cpu().contiguous()
    told = f"{plain.dtype} {tuple(plain.shape)} ".encode()
    return hashlib.sha256(told + plain.flatten().view(torch.uint8).numpy().tobytes()).hexdigest()


def require_whole(model: nn.Module) -> None:
    """Refuse a model that one process cannot run alone, which would wait for the others.

    Raises:
        ValueError: names the wrapper, or the first weight that lies in parts.
    """
    for name, module in model.named_modules():
        if type(module).__name__ in _WRAPPERS:
            raise ValueError(
                f"FlowMonitor got a model with a {type(module).__name__} ({name or 'it'}), whose "
                "passes wait for all processes, while one alone looks. Attach what is within it, "
                "model.module."
            )
    found = (name for name, each in model.named_parameters() if is_dtensor(each))
    if name := next(found, ""):
        raise ValueError(
            f"FlowMonitor got a model whose {name!r} is a DTensor: each process holds a part, and "
            "one process alone cannot iterate it. Look at a whole copy between trainings."
        )


def states_of(starts: Starts, model: nn.Module, device: Any) -> Tensor:
    """Fixed states on the model's device, or those that a function gives, without gradients."""
    if isinstance(starts, Tensor):
        found = starts.detach().to(device)
    else:
        require_eval(modules_of(starts))
        with torch.no_grad():
            found = starts(model)
    require_states(found)
    return found


def require_settings(
    flow: object, starts: Mapping[str, object], options: Mapping[str, Any], **counts: Any
) -> None:
    """Refuse what is no function, no starts, no numbers of steps, and options of nobody.

    Raises:
        TypeError: a wrong kind.
        ValueError: no starts, less than 1 step, or an option that is no positive number.
    """
    if not callable(flow) or isinstance(flow, nn.Module | Flow):
        raise TypeError(
            f"FlowMonitor needs a function from the model to its flow, since the model changes; "
            f"got a {type(flow).__name__}. Give lambda model: tk.flows.Flow(model)."
        )
    wrong = [
        name for name, each in starts.items() if not (isinstance(each, Tensor) or callable(each))
    ]
    if not starts or wrong:
        raise ValueError(
            f"FlowMonitor got starts={sorted(starts)}, of which {wrong} are neither states nor "
            "functions; give {'noise': torch.randn(500, k), …} of one or more."
        )
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise TypeError(
            f"FlowMonitor got {unknown[0]}=, which it does not take; of the options of "
            f"fixed_points() it takes {', '.join(_OPTIONS)}."
        )
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(
                f"FlowMonitor got {name}={value!r}; give a positive number, as to fixed_points()."
            )
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"FlowMonitor got {name}={count!r}; give a whole number from 1 on.")
