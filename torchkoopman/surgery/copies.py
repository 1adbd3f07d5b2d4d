"""Copies: models to run and to edit on the memory of one copy, and whether it stayed intact."""

from __future__ import annotations

import copy
import itertools
import warnings
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from torchkoopman.observe.facts import PLAIN
from torchkoopman.observe.places import leaves
from torchkoopman.observe.surroundings import INTERNALS, Surroundings
from torchkoopman.surgery.closures import Closures

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL, SAMPLED = 2**14, 2**9
"""A tensor with more than ``SMALL`` numbers is compared at ``SAMPLED`` evenly spaced ones, which a
write into the whole tensor changes. The thorough comparison finds what this sample misses."""
DICTS = (dict, OrderedDict)
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
    """One full copy of a model, whose memory all other copies share; the model itself is not used.

    If a call writes into that memory, as a momentum encoder does, :meth:`restore` finds it, and
    copies to run are full ones from then on.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.surroundings = Surroundings(model)
        _refuse_hooked(model)
        self.source = full_copy(model)
        theirs = {id(each) for each in model.modules()}
        shared = [name for name, each in self.source.named_modules() if id(each) in theirs]
        if shared:
            raise RuntimeError(
                f"a copy of the model has {shared[0] or type(model).__name__!r} of the model given "
                "itself, so editing the copy would edit the model. Remove the __deepcopy__ that "
                "keeps it, so that copy.deepcopy copies it."
            )
        self.apart = False
        """Whether copies to run own their parameters, since calls write into these."""

    def to_edit(self) -> nn.Module:
        """A copy of the model's structure on the full copy's memory."""
        return sharing_copy(self.source)

    def to_run(self, model: nn.Module | None = None) -> nn.Module:
        """A copy to run, of the model or of what became of it."""
        return (full_copy if self.apart else proof_copy)(self.source if model is None else model)

    @torch.no_grad()
    def restore(self, thorough: bool = False) -> list[str]:
        """Undo what was written into parameters and buffers, and say into which.

        Args:
            thorough: compare every number; else of large tensors a sample, which a write into a
                whole tensor changes.
        """
        mine, theirs = (_tensors(each) for each in (self.source, self.model))
        changed = [
            name for name, each in mine.items() if not _same_bits(each, theirs[name], thorough)
        ]
        for name in changed:
            mine[name].data.copy_(theirs[name])
        self.apart = self.apart or bool(changed)
        return changed


class Borrowed(RuntimeError):  # noqa: N818 (what was done)
    """A copy of a model uses tensors of the model given."""


class Trespass(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it every use of a tensor of a model by the code of its copy is noted.

    Raises:
        Borrowed: afterwards, if there was one, so copies of the model are no copies.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        held = _tensors(model).items()
        kept = {name: each for name, each in held if each.layout == torch.strided}
        self._owners = {each.untyped_storage()._cdata: name for name, each in kept.items()}
        self.used: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation; look at what it is given."""
        given = [*args, *(kwargs or {}).values()]
        if any(isinstance(each, list | tuple | dict) for each in given):
            given = pytree.tree_leaves(given)
        for leaf in given:
            plain = type(leaf) in (Tensor, nn.Parameter, nn.Buffer)
            if plain and leaf.layout == torch.strided:
                owner = self._owners.get(leaf.untyped_storage()._cdata)
                self.used += [] if owner is None else [owner]
        return func(*args, **(kwargs or {}))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        if error is None and self.used:
            names = ", ".join(map(repr, dict.fromkeys(self.used[:5])))
            raise Borrowed(
                f"a copy of the model still uses {names} of the model given, because a global "
                "variable or an object with a __deepcopy__ of its own holds these layers. Make "
                "them attributes of the model and use them through self."
            )


def _refuse_hooked(model: nn.Module) -> None:
    """Refuse hooks that may change the parameters which they were put on."""
    named = model.named_parameters()
    hooked = [name for name, each in named if getattr(each, "_post_accumulate_grad_hooks", None)]
    if hooked:
        raise RuntimeError(
            f"{', '.join(map(repr, hooked[:5]))} have hooks that run when their gradients are "
            "complete, such as an optimizer step, and a copy must not run these: remove them, "
            "and register them on the edited model."
        )


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers with values, by name, each once."""
    held = (*model.named_parameters(), *model.named_buffers())
    return {name: each for name, each in held if not (is_lazy(each) or each.is_meta)}


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
    closures = Closures(model)
    held = [each for module in model.modules() for each in vars(module).values()]
    weak = {id(each): each for each in held if isinstance(each, weakref.ProxyTypes)}
    history = {id(each): each.detach().clone() for each in kept}
    memo = {**_empty(held), **weak, **history, **memo, **closures.memo}
    with warnings.catch_warnings():  # torch's own, about copying the structure of its inputs
        warnings.simplefilter("ignore", FutureWarning)
        copied = copy.deepcopy(model, memo)
    closures.finish(memo)
    _repoint(model, memo)
    hooked = {name: each for name, each in model.named_parameters() if each._backward_hooks}
    theirs = dict(copied.named_parameters()) if hooked else {}
    for name, each in hooked.items():
        for hook in (each._backward_hooks or {}).values() if name in theirs else ():
            theirs[name].register_hook(hook)  # type: ignore[no-untyped-call]
    return copied


def _empty(held: list[Any]) -> dict[int, Any]:
    """Copies of the empty dictionaries of modules, for which ``copy.deepcopy`` takes half its time.

    A module has a dozen, for hooks that nobody has put on it.
    """
    empty = (x for x in held if type(x) in DICTS and not (x or getattr(x, "__dict__", None)))
    return {id(each): type(each)() for each in empty}


def _repoint(model: nn.Module, memo: dict[int, Any]) -> None:
    """Let the weak references of copied modules lead to copies."""
    for module in model.modules():
        copied = vars(memo.get(id(module), module))
        for name, value in vars(module).items():
            if type(value) in DICTS or isinstance(value, PLAIN):
                continue
            if type(value) is weakref.ref and id(value()) in memo:
                copied[name] = weakref.ref(memo[id(value())])
            elif isinstance(value, weakref.ProxyTypes):
                target = memo.get(id(value.__repr__.__self__))
                copied[name] = value if target is None else weakref.proxy(target)
            elif isinstance(value, weakref.WeakValueDictionary):
                copied[name].update({k: memo[id(v)] for k, v in value.items() if id(v) in memo})


def _words(tensor: Tensor) -> Tensor:
    """A contiguous tensor's memory as whole numbers, which compare at twice the speed."""
    size = 8 if tensor.nbytes % 8 == tensor.storage_offset() * tensor.itemsize % 8 == 0 else 1
    kind = torch.int64 if size == 8 else torch.uint8
    return tensor.detach().view(-1).view(kind)


def _historic(module: nn.Module) -> Iterator[Tensor]:
    """Tensors with a history among a module's attributes: kept activations, computed weights."""
    own = (
        value
        for name, value in vars(module).items()
        if name not in INTERNALS and not isinstance(value, PLAIN)
    )
    for value in (*own, *module._buffers.values()):
        for _, leaf in leaves(value):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                yield leaf


def _same_bits(tensor: Tensor, other: Tensor, thorough: bool) -> bool:
    if tensor.shape != other.shape or tensor.dtype != other.dtype:
        return False
    if tensor.numel() > SMALL and tensor.is_contiguous() and other.is_contiguous():
        if thorough and torch.equal(_words(tensor), _words(other)):
            return True
        step = 1 if thorough else tensor.numel() // SAMPLED
        tensor, other = tensor.view(-1)[::step], other.view(-1)[::step]
    if torch.equal(tensor, other):
        return True
    return bool(torch.isclose(tensor, other, rtol=0, atol=0, equal_nan=True).all())
