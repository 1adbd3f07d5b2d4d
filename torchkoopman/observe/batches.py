"""Batches: what comes out of a loader, as a call of the model; and what is no loader of batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from torchkoopman.observe.classes import classes_of, described

if TYPE_CHECKING:
    from collections.abc import Iterable

Forward = Callable[[nn.Module, Any], object]
"""How to call a model on a batch."""


def check_loader(loader: object, argument: str = "loader") -> None:
    """Refuse what can be iterated over, but not batch by batch.

    Raises:
        TypeError: a map-style data set, a tensor or array, one batch by itself, or nothing that can
            be iterated over.
    """
    if loader is None and argument != "loader":
        return
    iterable = hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
    if isinstance(loader, str | bytes | type) or not iterable:
        raise TypeError(
            f"{argument}= is {loader!r}, which gives no batches: give a DataLoader, a list of "
            "batches, or whatever else can be iterated over batch by batch."
        )
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise TypeError(
            f"{argument}= is a {type(loader).__name__}, a Dataset, whose items are single samples. "
            "Did you mean a DataLoader? Give DataLoader(dataset, batch_size=64), or "
            "DataLoader(dataset, batch_size=None) if its items are batches already."
        )
    if isinstance(loader, Tensor | np.ndarray):
        raise TypeError(
            f"{argument}= is {described(loader)}; iterating over it gives single samples, and a "
            "loader gives batches. Give inputs.split(64), or [inputs] for one batch."
        )
    if isinstance(loader, Mapping) or _is_pair(loader):
        kind = "mapping" if isinstance(loader, Mapping) else "pair (inputs, labels)"
        raise TypeError(
            f"{argument}= is a {kind}, which is one batch; a loader gives many. Give [batch], or "
            "DataLoader(TensorDataset(inputs, labels), batch_size=64)."
        )


def batches_in(loader: Iterable[Any], epochs: int = 1) -> int | None:
    """Batches in all, where the loader knows; one over an iterable data set does not.

    Raises:
        TypeError: it is no loader of batches.
    """
    check_loader(loader)
    try:
        return epochs * len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None


def parts(model: nn.Module | None, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Positional and keyword arguments for the model, and the targets if the batch has any.

    A mapping has keyword arguments and ``"labels"``. A tuple has as many inputs as the model's
    forward requires, or these in a tuple or mapping of their own, and then the targets if there
    is one more. Without a model, where the user says how to call it, the last of several is the
    targets.

    Raises:
        TypeError: a tuple that can be read with and without targets.
        ValueError: an empty one.
    """
    if isinstance(batch, Mapping):
        kwargs = dict(batch)
        return (), kwargs, kwargs.pop("labels", None)
    if not isinstance(batch, list | tuple):
        return (batch,), {}, None
    if not batch:
        raise ValueError("a batch is empty, (); give (inputs,), (inputs, labels) or a tensor.")
    required, most = _positional(model)
    first, *others = batch
    if required > 1 and len(others) < 2 and isinstance(first, list | tuple | Mapping):
        target = others[0] if others else None
        if not isinstance(first, Mapping):
            return tuple(first), {}, target
        if model is not None and _unfit(model, **first) is None:
            return (), dict(first), target
    *inputs, last = batch
    if len(batch) in (1, required):
        return tuple(batch), {}, None
    if max(required, 1) + 1 < len(batch) <= most:
        assert model is not None
        raise TypeError(
            f"a batch is {structure_of(batch)}, and {type(model).__name__}.forward"
            f"{_signature(model)} can take all of it, or all but labels at its end. Say how to "
            "call it: forward=lambda model, batch: model(*batch), or give a dict of arguments and "
            "'labels'."
        )
    return tuple(inputs), {}, last


def called(model: nn.Module, args: Iterable[Any], kwargs: Mapping[str, Any], batch: Any) -> None:
    """Call the model.

    Raises:
        TypeError: its forward does not take such arguments; it says how the batch was read.
    """
    args = tuple(args)
    try:
        model(*args, **kwargs)
    except TypeError as error:
        why = _unfit(model, *args, **kwargs)
        if why is None and any(isinstance(each, Tensor) for each in (*args, *kwargs.values())):
            raise
        said = ", ".join(f"{name}=" for name in kwargs) if kwargs else structure_of(args)
        raise TypeError(
            f"a batch is {structure_of(batch)}, and was read as {said} for the model"
            f"{_and_last(batch, args)}, but {type(model).__name__}.forward{_signature(model)} "
            f"says: {why or error}. Say how to call it: {_suggestion(model, batch)}"
        ) from error


def _is_pair(loader: object) -> bool:
    """Whether these two are inputs with their classes, and not two batches of inputs."""
    if not isinstance(loader, tuple | list) or len(loader) != 2:
        return False
    inputs, target = loader
    classes = None if isinstance(target, list | tuple) else classes_of(target)
    if not isinstance(inputs, Tensor | np.ndarray) or classes is None:
        return False
    alike = isinstance(target, type(inputs)) and target.dtype == inputs.dtype
    return len(classes) == len(inputs) and not (alike and target.ndim == inputs.ndim)


def _unfit(model: nn.Module, *args: Any, **kwargs: Any) -> str | None:
    """Why the model's forward cannot take these arguments; None if it can."""
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


def _suggestion(model: nn.Module, batch: Any) -> str:
    """The first way to call the model with a batch that its forward takes."""
    ways: dict[str, tuple[Any, ...]] = {}
    if isinstance(batch, Mapping):
        known = [name for name in batch if _unfit(model, **{name: batch[name]}) is None]
        known = known or [name for name in batch if name in _arguments(model)]
        return (
            f"forward=lambda model, batch: model({', '.join(f'{n}=batch[{n!r}]' for n in known)})."
        )
    if isinstance(batch, np.ndarray):
        return "forward=lambda model, batch: model(torch.as_tensor(batch))."
    if isinstance(batch, list | tuple):
        if isinstance(batch[0], list | tuple):
            ways["model(*batch[0])"] = tuple(batch[0])
        elif isinstance(batch[0], Mapping) and _unfit(model, **batch[0]) is None:
            return "forward=lambda model, batch: model(**batch[0])."
        ways["model(*batch)"] = tuple(batch)
        ways["model(batch[0])"] = (batch[0],)
    fits = (way for way, args in ways.items() if _unfit(model, *args) is None)
    return f"forward=lambda model, batch: {next(fits, 'model(...)')}."


def _positional(model: nn.Module | None) -> tuple[int, int]:
    """How many positional arguments the model's forward requires, and takes at most."""
    if model is None:
        return 0, 0
    known = inspect.signature(model.forward).parameters.values()
    if any(each.kind is each.VAR_POSITIONAL for each in known):
        return 0, 0  # it tells nothing
    taken = [
        each for each in known if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return sum(each.default is each.empty for each in taken), len(taken)


def structure_of(value: Any) -> str:
    """A batch's structure in a few words."""
    if isinstance(value, list | tuple):
        return f"({', '.join(map(structure_of, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(repr, value))}}}"
    return "a tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _arguments(model: nn.Module) -> list[str]:
    return list(inspect.signature(model.forward).parameters)


def _and_last(batch: Any, inputs: tuple[Any, ...]) -> str:
    behind = isinstance(batch, list | tuple) and len(batch) > 1 and len(inputs) < len(batch)
    return " with labels behind them" if behind else ""


def _signature(model: nn.Module) -> str:
    return str(inspect.signature(model.forward)).split(" ->")[0]
