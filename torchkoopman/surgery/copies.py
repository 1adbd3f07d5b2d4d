"""Copies: models to run and to edit on the memory of one copy, and whether it stayed intact."""

from __future__ import annotations

import copy
import itertools
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from torchkoopman.observe.places import leaves
from torchkoopman.observe.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator

Model = TypeVar("Model", bound=nn.Module)


def full_copy(model: Model) -> Model:
    """A copy that shares nothing: parameters, buffers, attributes, hooks."""
    return _deepcopy(model, {})


def proof_copy(model: Model) -> Model:
    """A copy to run: it shares the memory of the parameters and owns everything else.

    Its parameters are objects of their own, so gradients gather there and not in the model's.
    """
    return _deepcopy(model, {id(each): _alias(each) for each in _plain(model.parameters())})


def sharing_copy(model: Model) -> Model:
    """A copy to edit: it shares the memory of parameters and buffers, and owns its structure."""
    held = _plain((*model.parameters(), *model.buffers()))
    return _deepcopy(model, {id(each): _alias(each) for each in held})


class Workbench:
    """One full copy of a model, on whose memory all other copies stand; the model itself is left.

    Whatever writes into that memory, a momentum encoder say, is found by :meth:`restore`; from then
    on copies to run are full ones.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.surroundings = Surroundings(model)
        self.source = full_copy(model)
        self.apart = False
        """Whether copies to run own their parameters, since calls write into these."""

    def to_edit(self) -> nn.Module:
        """A copy of the model's structure on the full copy's memory."""
        return sharing_copy(self.source)

    def to_run(self, model: nn.Module | None = None) -> nn.Module:
        """A copy to run, of the model or of what became of it."""
        return (full_copy if self.apart else proof_copy)(self.source if model is None else model)

    @torch.no_grad()
    def restore(self) -> list[str]:
        """Undo what was written into parameters and buffers, and say into which."""
        mine, theirs = (_tensors(each) for each in (self.source, self.model))
        changed = [name for name, each in mine.items() if not _same_bits(each, theirs[name])]
        for name in changed:
            mine[name].data.copy_(theirs[name])
        self.apart = self.apart or bool(changed)
        return changed


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _plain(tensors: Any) -> Iterator[Tensor]:
    """Those that can share memory: other kinds of tensors know how to copy themselves."""
    return (each for each in tensors if type(each) in (Tensor, nn.Parameter, nn.Buffer))


def _alias(tensor: Tensor) -> Tensor:
    """Another tensor object of the same kind on the same memory, without gradient or history."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
    return tensor.detach()


def _deepcopy(model: Model, memo: dict[int, Any]) -> Model:
    """A deep copy; tensors with a history, which torch refuses to copy, come without it."""
    kept = list(itertools.chain.from_iterable(_historic(module) for module in model.modules()))
    memo = {**{id(each): each.detach().clone() for each in kept}, **memo}
    with warnings.catch_warnings():  # torch's own, about copying the structure of its inputs
        warnings.simplefilter("ignore", FutureWarning)
        return copy.deepcopy(model, memo)


def _historic(module: nn.Module) -> Iterator[Tensor]:
    """Tensors with a history among a module's attributes: kept activations, computed weights."""
    for value in (*vars(module).values(), *module._buffers.values()):
        for _, leaf in leaves(value):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                yield leaf


def _same_bits(tensor: Tensor, other: Tensor) -> bool:
    if tensor.shape != other.shape or tensor.dtype != other.dtype:
        return False
    if torch.equal(tensor, other):
        return True
    return bool(torch.isclose(tensor, other, rtol=0, atol=0, equal_nan=True).all())
