"""The map of a flow: what it is made of, and what is checked before it is iterated."""

from __future__ import annotations

import contextlib
import inspect
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SAME = 1e-4
"""Relative difference that another order of additions can explain, as on a GPU or in a batch."""


class Map:
    """A function of states, the modules it uses, and the seed of what it draws."""

    def __init__(
        self,
        step: Callable[[Tensor], Tensor],
        *,
        seed: int | None = None,
        modules: Iterable[nn.Module] = (),
    ) -> None:
        if not callable(step):
            raise TypeError(f"a flow needs a module or a function of states; got {step!r}.")
        self.step = step
        self.seed = seed
        self.modules = (*modules_of(step), *modules)

    def __call__(self, states: Tensor) -> Tensor:
        """One application, without checks; differentiable, and under ``torch.func.vmap``."""
        if self.seed is not None:
            torch.manual_seed(self.seed)
        return self.step(states)

    @contextlib.contextmanager
    def running(self, starts: Tensor) -> Iterator[None]:
        """Check the starts and the map on them; global random state is as before in the end."""
        require_states(starts)
        require_eval(self.modules)
        devices = [starts.device] if starts.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            with torch.no_grad():
                self._require_map(starts[:2])
            yield

    def _require_map(self, starts: Tensor) -> None:
        """The same shape and kind, and the same numbers a second time."""
        first, second = self(starts), self(starts)
        if not isinstance(first, Tensor):
            raise TypeError(
                f"the map gives a {type(first).__name__}, and a flow needs one tensor of states: "
                "wrap it in a function that picks it out, such as lambda x: encode(x)[0]."
            )
        if first.shape != starts.shape or first.dtype != starts.dtype:
            raise ValueError(
                f"the map takes states of shape {tuple(starts.shape)} and {starts.dtype}, and "
                f"gives {tuple(first.shape)} and {first.dtype}; to be applied again it must give "
                "what it takes. Do the parts fit each other?"
            )
        apart = (first - second).abs().nan_to_num().max().item()
        allowed = SAME * first.abs().nan_to_num().max().item() if first.is_cuda else 0.0
        if apart > allowed:
            raise ValueError(
                f"two applications of the map to the same states differ by {apart:.3g}: it draws "
                "random numbers. Give Flow(…, seed=0), so that each application draws the same."
            )
        self._require_alone(starts, first)

    def _require_alone(self, starts: Tensor, together: Tensor) -> None:
        """Each state's successor is its own, whatever stands beside it in the batch.

        Orbits that have ended leave the batch, so that the others change their rows.
        """
        alone = torch.cat([self(state[None]) for state in starts])
        apart = (together - alone).abs().nan_to_num().max().item()
        size = max(each.abs().nan_to_num().max().item() for each in (together, starts))
        if apart > SAME * size and self.seed is not None:
            raise ValueError(
                f"the map gives a state another successor, by {apart:.3g}, in another row of a "
                f"batch, though seed={self.seed}: it draws numbers for each row. Draw them once "
                "for all, as for a masked autoencoder by encode(x, noise=noise.expand(len(x), -1))."
            )
        if apart > SAME * size:
            raise ValueError(
                f"the map gives a state another successor, by {apart:.3g}, where another state "
                "stands beside it: it mixes the states of a batch, and a flow is a map of one "
                "state. Is something normalised over the batch?"
            )


def require_states(starts: Tensor) -> None:
    """Refuse what is no batch of finite states.

    Raises:
        TypeError: no tensor, or not of float32 or float64.
        ValueError: no states, or some that are not finite.
    """
    require_kind(starts)
    bad = ~starts.flatten(1).isfinite().all(1)
    if bad.any():
        raise ValueError(
            f"{int(bad.sum())} of {len(starts)} starts are not finite, the first of them number "
            f"{int(bad.int().argmax())}; leave them out."
        )


def require_kind(starts: Tensor) -> None:
    """Refuse what is no batch of states; what they are is not looked at, as under ``vmap``.

    Raises:
        TypeError: no tensor, or not of float32 or float64.
        ValueError: no states.
    """
    if not isinstance(starts, Tensor) or starts.dtype not in (torch.float32, torch.float64):
        kind = starts.dtype if isinstance(starts, Tensor) else type(starts).__name__
        raise TypeError(
            f"a flow starts from tensors of float32 or float64, (n, …); got {kind}. The end of an "
            "orbit is told by its last digits, which half precision has not: use .float()."
        )
    if starts.ndim < 2 or starts.numel() == 0:
        raise ValueError(
            f"a flow starts from one state or more, (n, …); got shape {tuple(starts.shape)}."
        )


def modules_of(*parts: Any) -> list[nn.Module]:
    """Modules among functions: themselves, their methods' owners, and those that functions name.

    What a function names are its closure and the globals that it reads.
    """
    found: list[nn.Module] = []
    for part in parts:
        owner = part if isinstance(part, nn.Module) else getattr(part, "__self__", None)
        if isinstance(owner, nn.Module):
            found.append(owner)
        elif isinstance(part, partial):
            found += modules_of(part.func, *part.args, *part.keywords.values())
        elif inspect.isfunction(part):
            named = inspect.getclosurevars(part)
            values = [*named.nonlocals.values(), *named.globals.values()]
            found += [each for each in values if isinstance(each, nn.Module)]
    return found


def require_eval(modules: Iterable[nn.Module]) -> None:
    """Refuse modules in training mode.

    Raises:
        ValueError: one of them, or of their parts, is.
    """
    for module in modules:
        training = [name or "it" for name, each in module.named_modules() if each.training]
        if training:
            raise ValueError(
                f"a {type(module).__name__} of this flow is in training mode ({training[0]}): "
                "its dropout would be random and its statistics would move. Call .eval() on it."
            )


def composed(
    first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """``second(first(x))``; what does not fit together is named."""

    def step(states: Tensor) -> Tensor:
        between = first(states)
        if not isinstance(between, Tensor):
            raise TypeError(
                f"the decoder gives a {type(between).__name__}, and the encoder takes one tensor: "
                "wrap it in a function that picks it out."
            )
        try:
            return second(between)
        except RuntimeError as error:
            raise RuntimeError(
                f"the encoder fails on what the decoder gives, {tuple(between.shape)}: {error}. Do "
                "the two fit each other?"
            ) from error

    return step


def one_step(
    velocity: Callable[[Tensor], Tensor], dt: float, method: str
) -> Callable[[Tensor], Tensor]:
    """The map of one step of time.

    Raises:
        ValueError: an unknown method, or no positive finite step.
    """
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"a step of time is positive and finite; got dt={dt}.")
    field = partial(moved, velocity)
    if method == "euler":
        return lambda x: x + dt * field(x)
    if method != "rk4":
        raise ValueError(f"method={method!r} is unknown; choose 'euler' or 'rk4'.")

    def runge_kutta(x: Tensor) -> Tensor:
        k1 = field(x)
        k2 = field(x + dt / 2 * k1)
        k3 = field(x + dt / 2 * k2)
        k4 = field(x + dt * k3)
        return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    return runge_kutta


def moved(velocity: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """The velocity at each state; one of another shape would be added to it by broadcasting.

    Raises:
        ValueError: it is of another shape, or no tensor.
    """
    found = velocity(states)
    if not isinstance(found, Tensor) or found.shape != states.shape:
        kind = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise ValueError(
            f"the velocity of states {tuple(states.shape)} is {kind}; give one number for each "
            "number of a state."
        )
    return found
