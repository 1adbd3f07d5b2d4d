"""Side effects: what a model's Python does while it is traced, and no graph holds.

Tracing runs a forward once on stand-ins for values. Random numbers are drawn then and never again,
buffers are written once, hooks and contexts are left out. All of it is found here, and undone.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from torchkoopman.graphs.code import is_own
from torchkoopman.graphs.undisturbed import undisturbed
from torchkoopman.observe.facts import PLAIN, alike, attributes
from torchkoopman.observe.randomness import random_draws
from torchkoopman.observe.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping


class SideEffect(RuntimeError):  # noqa: N818 (what was found)
    """Running the model's Python does something that a graph does not hold."""


@contextlib.contextmanager
def without_side_effects(
    root: nn.Module, constants: Mapping[str, Any], proxies: Collection[fx.Proxy]
) -> Iterator[Surroundings]:
    """Run Python that traces ``root``; everything that it can reach is as before afterwards.

    Args:
        root: the model.
        constants: attributes that the trace itself made; the mapping is read at the end.
        proxies: the values of the trace that somebody still holds, but for what it returned.

    Raises:
        SideEffect: random numbers were drawn, buffers written or attributes set.
    """
    before, draws = attributes(root), random_draws()
    surroundings = Surroundings(root)
    with surroundings.kept(), plain_tracing():
        with undisturbed(root) as changed:
            yield surroundings
            drew = draws != random_draws()
            after = attributes(root)
            refuse_outside(root, surroundings.left())
        outside = held_outside(proxies)  # what the model itself kept is gone by now
    written = [name for name in before if name in after and not alike(before[name], after[name])]
    kept = [name for name in dict.fromkeys((*written, *changed)) if name not in constants]
    if kept:
        raise SideEffect(
            f"the forward of {type(root).__name__} changes {', '.join(map(repr, kept[:5]))} while "
            "it is traced, and a graph would not: move that into a layer outside the span, or swap "
            "with how='eager'."
        )
    if outside:
        raise SideEffect(
            f"the forward of {type(root).__name__} keeps {', '.join(map(repr, outside[:5]))} "
            "outside of the model, in a cache or a global variable, and a graph would not: swap "
            "with how='eager'."
        )
    if drew:
        raise SideEffect(
            f"the forward of {type(root).__name__} draws random numbers that depend on no tensor, "
            "and a graph would repeat the present ones: draw them in a layer outside the span, or "
            "swap with how='eager'."
        )


def refuse_outside(root: nn.Module, left: Mapping[str, Any]) -> None:
    """Refuse a forward that changes plain values outside of the model.

    Raises:
        SideEffect: there are some; :meth:`Surroundings.left` has found them.
    """
    if left:
        raise SideEffect(
            f"the forward of {type(root).__name__} changes {'; '.join([*left][:5])}, and a graph "
            "would not: swap with how='eager'."
        )


def refuse_unseen(root: nn.Module, opened: Iterable[nn.Module]) -> None:
    """Refuse what a trace leaves out: hooks of opened modules, and other ways of calling them."""
    names = {id(module): name for name, module in root.named_modules()}
    for name, module in root.named_modules():
        called = isinstance(module, fx.GraphModule) or type(module).__call__ is nn.Module.__call__
        where = repr(name) if name else "the model itself"
        if not called:
            raise SideEffect(
                f"{where} is of a class with a __call__ of its own, which "
                "tracing would run once and the graph once more: swap with how='eager'."
            )
    for module in opened:
        where = repr(names[id(module)]) if names[id(module)] else "the model itself"
        if hooks_of(module):
            raise SideEffect(
                f"{where} has hooks, and tracing opens it, so they would be lost: take them off, "
                "put them on layers inside, or swap with how='eager'."
            )
        if "forward" in vars(module):
            raise SideEffect(
                f"{where} is not called through the forward of its class, which is what tracing "
                "reads: swap with how='eager'."
            )


def hooks_of(module: nn.Module) -> list[Any]:
    """What a module calls before and after its forward and its backward, and must go on calling."""
    return [
        hook
        for key, held in vars(module).items()
        if key.endswith("_hooks") and "state_dict" not in key and isinstance(held, dict)
        for hook in held.values()
        if not getattr(hook, "may_be_lost", False)
    ]


def hooks_of_all() -> list[Any]:
    """The user's hooks on all modules; those of libraries only look."""
    held = [*vars(nn.modules.module).items()]
    kinds = [hooks for name, hooks in held if name.startswith("_global_") and "_hooks" in name]
    hooks = [each for kind in kinds if isinstance(kind, dict) for each in kind.values()]
    return [each for each in hooks if callable(each) and is_own(_package_of(each))]


def _package_of(hook: Any) -> str | None:
    """The owner of a hook; for a partial function, the owner of the function within."""
    while isinstance(hook, functools.partial):
        hook = hook.func
    return getattr(hook, "__module__", None)


def held_outside(proxies: Collection[fx.Proxy]) -> list[str]:
    """Names of the values of a trace that something outside of the trace still holds."""
    if len(proxies):
        gc.collect()  # most are in circles only
    return sorted(proxy.node.name for proxy in proxies)


class Settings:
    """What layers may read when they are called, as it is at the beginning of a trace."""

    def __init__(self, root: nn.Module, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.thread, self.variables = threading.get_ident(), _variables()
        self.own = {id(module): _settings(module) for module in root.modules()}

    def refuse_changes(self, layer: nn.Module, name: str) -> None:
        """Refuse what the model's forward has set for a layer that it calls.

        Raises:
            SideEffect: an attribute, a hook, a global or a context variable, which no graph sets.
        """
        own = any(self.own.get(id(each)) != _settings(each) for each in layer.modules())
        here = self.thread == threading.get_ident()  # context variables are each thread's own
        changed = own or (here and self.variables != _variables())
        if changed or self.surroundings.left():
            raise SideEffect(
                "the model's forward sets an attribute, a hook, or a variable outside of the model "
                f"for the call of {name!r}, and a graph would not: swap with how='eager'."
            )


def _settings(module: nn.Module) -> tuple[Any, ...]:
    """A module's plain attributes and its hooks."""
    plain = {key: value for key, value in vars(module).items() if isinstance(value, PLAIN)}
    return plain, [id(hook) for hook in hooks_of(module)]


def _variables() -> dict[Any, int]:
    """Context variables and what is in them."""
    return {key: id(value) for key, value in contextvars.copy_context().items()}


@contextlib.contextmanager
def plain_tracing() -> Iterator[None]:
    """Within it gradients are on, and a custom backward, which no graph holds, is refused."""
    original: Any = vars(torch.autograd.Function)["apply"]
    kept = "_NoopSaveInputs"  # of checkpoints, which change when things are computed, not what

    def refused(cls: type, *args: Any, **kwargs: Any) -> Any:
        traced = any(isinstance(each, fx.Proxy) for each in (*args, *kwargs.values()))
        if traced and cls.__name__ != kept:
            raise SideEffect(
                f"the model's forward calls {cls.__name__}.apply, whose backward a graph does "
                "not hold: put it into a layer of its own, or swap with how='eager'."
            )
        return original.__get__(None, cls)(*args, **kwargs)

    function: Any = torch.autograd.Function
    function.apply = classmethod(refused)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        function.apply = original


def modes() -> tuple[Any, ...]:
    """What holds for operations besides their arguments: gradients, inference, autocast."""
    kinds = ("cpu", "cuda")
    casts = tuple(
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        for kind in kinds
    )
    return (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *casts)


NO_GRAD = "no_grad"
"""A mode that a graph can hold all the same: what is computed under it has no history."""


def describe_modes(before: tuple[Any, ...], now: tuple[Any, ...]) -> str:
    """The differences of two modes, in words."""
    words = (NO_GRAD, "inference_mode", "autocast", "autocast")
    pairs = zip(words, before, now, strict=True)
    return " and ".join(word for word, old, new in pairs if old != new)
