"""Free axes: the sizes of its inputs that an exported program leaves open, and their names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from torchkoopman.observe.example import Example

if TYPE_CHECKING:
    from collections.abc import Sequence

Axes = Mapping[str, int | Mapping[str, int]]
"""Name of a size → the axis that has it: of every tensor with that many axes, or by argument."""

BATCH = "batch"
"""Name of the size of the first axis."""


@dataclass(frozen=True)
class FreeAxis:
    """One size that a program leaves open."""

    name: str
    places: tuple[tuple[int, int], ...]
    """``(index, axis)``: which tensors of ``Example.tensors`` have it, and as which axis."""

    def size(self, example: Example) -> int:
        """How large it is in an example."""
        index, axis = self.places[0]
        return example.tensors[index].shape[axis]

    def another(self, example: Example) -> int:
        """A size to try as well: smaller where possible, since models have longest inputs."""
        size = self.size(example)
        return size - 1 if size > 2 else size + 1


def named_parameters(model: nn.Module) -> list[str]:
    """The arguments that a model's forward names, without what it takes as ``*`` and ``**``."""
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def argument_names(model: nn.Module, example: Example) -> list[str]:
    """For each tensor of an example the argument of the model's forward that it is in.

    Raises:
        ValueError: forward does not take these arguments.
    """
    signature, named = inspect.signature(model.forward), named_parameters(model)
    parameters = signature.parameters.values()
    positional = [p.name for p in parameters if p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD)]
    problem, names = "", []
    try:
        signature.bind(*example.args, **example.kwargs)
        for path, leaf in pytree.tree_flatten_with_path((example.args, example.kwargs))[0]:
            if isinstance(leaf, Tensor):
                key: Any = path[1]
                by_name = isinstance(key, pytree.MappingKey)
                # Behind the last comes what *args takes.
                names.append(key.key if by_name else positional[: key.idx + 1][-1])
    except TypeError as error:
        problem = f"does not take these example inputs ({error})"
    unknown = [name for name in names if named and name not in (*named, *positional)]
    if unknown:
        problem = (
            f"names no argument {', '.join(map(repr, dict.fromkeys(unknown)))} (for tensors that "
            "it takes as **kwargs, export a module around it whose forward names them)"
        )
    if problem:
        raise ValueError(
            f"forward() of {type(model).__name__} {problem}; its arguments are "
            f"{', '.join(named) or '*args and **kwargs'}."
        )
    return names


def free_axes(
    example: Example, names: Sequence[str], dynamic_batch: bool, dynamic_axes: Axes | None
) -> tuple[FreeAxis, ...]:
    """The axes that are to be left open.

    Args:
        example: the model's inputs.
        names: the argument of each of its tensors.
        dynamic_batch: whether the first axis of every tensor is one.
        dynamic_axes: more of them, or another choice for ``"batch"``.

    Raises:
        ValueError: an axis or argument that is not there, a tensor's axis with two names, or a
            size that differs between tensors.
        TypeError: an axis that is not a number.
    """
    wanted: dict[str, int | Mapping[str, int]] = {BATCH: 0} if dynamic_batch else {}
    wanted |= dynamic_axes or {}
    found = [
        FreeAxis(name, _places(name, where, example.tensors, names))
        for name, where in wanted.items()
    ]
    taken: dict[tuple[int, int], str] = {}
    for axis in found:
        sizes = [(names[index], example.tensors[index].shape[at]) for index, at in axis.places]
        different = {size for _, size in sizes}
        if 0 in different:
            raise ValueError(f"the axis {axis.name!r} is empty in {sizes}; give inputs of size 1.")
        if len(different) > 1:
            raise ValueError(
                f"the axis {axis.name!r} has a different size in each of {sizes}; say which "
                f"arguments have it with dynamic_axes={{{axis.name!r}: {{argument: axis}}}}"
                f"{', or give dynamic_batch=False' if axis.name == BATCH else ''}."
            )
        for place in axis.places:
            if taken.setdefault(place, axis.name) != axis.name:
                raise ValueError(
                    f"axis {place[1]} of {names[place[0]]!r} is called both {taken[place]!r} and "
                    f"{axis.name!r} in dynamic_axes; give each axis one name."
                )
    return tuple(axis for axis in found if axis.places)


def _places(
    name: str, where: int | Mapping[str, int], tensors: Sequence[Tensor], names: Sequence[str]
) -> tuple[tuple[int, int], ...]:
    """The tensors' axes that a size is of."""
    if not name.isidentifier():
        raise ValueError(f"dynamic_axes names a size {name!r}; it must be a word like 'tokens'.")
    chosen = where if isinstance(where, Mapping) else dict.fromkeys(names, where)
    for argument, axis in chosen.items():
        if not isinstance(axis, int):
            raise TypeError(
                f"dynamic_axes={{{name!r}: {where!r}}} must give a number, the axis that has this "
                "size, or such numbers by argument: {'tokens': {'input_ids': 1}}."
            )
        if argument not in names:
            raise ValueError(
                f"dynamic_axes={{{name!r}: …}} speaks of {argument!r}, and the example's tensors "
                f"are {', '.join(map(repr, names)) or 'none'}."
            )
    there = [
        (index, chosen[argument] % tensors[index].ndim)
        for index, argument in enumerate(names)
        if argument in chosen and -tensors[index].ndim <= chosen[argument] < tensors[index].ndim
    ]
    missing = {names[index] for index, _ in there} ^ set(chosen)
    if (isinstance(where, Mapping) and missing) or (not there and name != BATCH):
        shapes = {names[i]: tuple(tensor.shape) for i, tensor in enumerate(tensors)}
        raise ValueError(
            f"dynamic_axes={{{name!r}: {where!r}}} is an axis that is not there; the example's "
            f"tensors have shapes {shapes}."
        )
    return tuple(there)


def by_tensor(
    example: Example, axes: Sequence[FreeAxis], values: Mapping[FreeAxis, Any]
) -> list[dict[int, Any]]:
    """``{axis: value}`` for each tensor of an example."""
    found: list[dict[int, Any]] = [{} for _ in example.tensors]
    for axis in axes:
        for index, place in axis.places:
            found[index][place] = values[axis]
    return found


def by_argument(
    model: nn.Module, example: Example, axes: Sequence[FreeAxis], values: Mapping[FreeAxis, Any]
) -> dict[str, Any]:
    """The same by argument, as torch.export wants it; the tensors must be distinct objects."""
    found = by_tensor(example, axes, values)
    given = {id(tensor): said for tensor, said in zip(example.tensors, found, strict=True)}
    arguments = inspect.signature(model.forward).bind(*example.args, **example.kwargs).arguments
    tree: dict[str, Any] = pytree.tree_map(lambda leaf: given.get(id(leaf)), dict(arguments))
    return tree


def resized(example: Example, sizes: Mapping[FreeAxis, int]) -> Example:
    """The example cut, or filled up with copies of its first slice, to other sizes."""
    tensors = example.tensors
    for axis, size in sizes.items():
        for index, place in axis.places:
            there = torch.arange(size, device=tensors[index].device)
            there = torch.where(there < tensors[index].shape[place], there, 0)
            tensors[index] = tensors[index].index_select(place, there)
    following = iter(tensors)
    args, kwargs = pytree.tree_map_only(
        Tensor, lambda _: next(following), (example.args, example.kwargs)
    )
    return Example(args, kwargs)


def without_ones(example: Example, axes: Sequence[FreeAxis]) -> Example:
    """The example with no free axis of size one: a program would take the one as fixed."""
    return resized(example, {axis: 2 for axis in axes if axis.size(example) < 2})
