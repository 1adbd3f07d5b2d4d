"""The last edit taken back: of a surrogate its forgetting, of a model its swap."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.surgery.copies import full_copy
from torchkoopman.surgery.history import ORIGINAL, Original, memory, swap_history

if TYPE_CHECKING:
    from torch import nn


@overload
def undo(edited: Surrogate) -> Surrogate: ...


@overload
def undo(edited: nn.Module) -> nn.Module: ...


def undo(edited: nn.Module) -> nn.Module:
    """What a surrogate or a model was before its last edit; the one given stays as it is.

    Example:
        >>> forgetful = tk.unlearn(surrogate, classes=[2])
        >>> tk.undo(forgetful) is forgetful, tk.undo(forgetful).edits
        (False, ())
        >>> edited = tk.swap(model, surrogate)
        >>> torch.equal(tk.undo(edited)(test.inputs), model(test.inputs))
        True

    Args:
        edited: a surrogate that :func:`unlearn` gave, or a model that :func:`swap` gave.

    Returns:
        Of a surrogate exactly the one before its last edit. Of a model a copy of the one that was
        given to :func:`swap`, of its class, with the current parameters and buffers of ``edited``
        in the layers that both have, on their device and in their precision. The layers of the
        span are as they were.

    Raises:
        ValueError: it was never edited, or a surrogate was loaded from a file, which keeps no
            undo.
        RuntimeError: a model was read from a file, which does not hold the original.
        TypeError: neither a surrogate nor a model.
    """
    return _before_edit(edited) if isinstance(edited, Surrogate) else _before_swap(edited)


def _before_edit(surrogate: Surrogate) -> Surrogate:
    if not surrogate.edits:
        raise ValueError("the surrogate was never edited; there is nothing to undo.")
    previous = surrogate.previous
    if previous is None:
        raise ValueError("a saved surrogate keeps no undo; load the file from before the edit.")
    assert isinstance(previous, Surrogate)
    return previous


def _before_swap(edited: nn.Module) -> nn.Module:
    records = swap_history(edited)
    if not records:
        raise ValueError(
            f"nothing was swapped in this {type(edited).__name__}; swap_history() is empty."
        )
    held: Original = memory(edited).get(ORIGINAL, Original())
    if held.model is None:
        raise RuntimeError(
            f"the layers that {records[-1].module!r} replaced are not in this model: it was read "
            "from a file, and files hold the edited model only. Load the original model instead."
        )
    restored = full_copy(held.model)
    mine, theirs = restored.state_dict(), edited.state_dict()
    current = {name: value for name, value in theirs.items() if name in mine}
    floating = [name for name, value in current.items() if value.is_floating_point()]
    for name in floating[:1]:  # only what changed: a model may mix precisions
        if current[name].dtype != mine[name].dtype:
            restored.to(current[name].dtype)
        restored.to(current[name].device)
    restored.load_state_dict(current, strict=False)
    modes = {name: module.training for name, module in edited.named_modules()}
    turned = edited.training != restored.training
    for name, module in restored.named_modules():
        module.training = modes.get(name, edited.training if turned else module.training)
    return restored
