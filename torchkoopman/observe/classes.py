"""Classes: what of a batch's targets is one class per sample, and what is not and is said so."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchkoopman.observe.warned import warn

EXPECTED = "classes are one integer per sample, shape (batch,) or (batch, 1)"


def classes_of(target: object) -> Tensor | None:
    """The target as integers of shape ``(batch,)`` if it is that; None if it is something else.

    An integer or boolean tensor or array of shape ``(batch,)`` or ``(batch, 1)``, or a list of
    integers.
    """
    if isinstance(target, np.ndarray) and target.dtype.kind in "biu":
        target = torch.as_tensor(target)
    if isinstance(target, list | tuple) and target and all(map(_is_whole, target)):
        target = torch.tensor([int(each) for each in target])
    if not isinstance(target, Tensor) or target.is_floating_point() or target.is_complex():
        return None
    if target.layout != torch.strided or target.is_nested or target.is_meta:
        return None
    if target.ndim == 2 and target.shape[1] == 1:
        return target[:, 0]
    return target if target.ndim == 1 else None


def _is_whole(each: object) -> bool:
    """Whether this is one integer, in Python, numpy or torch."""
    if isinstance(each, Tensor):
        return not each.ndim and not each.is_floating_point() and not each.is_complex()
    return isinstance(each, int | np.integer | np.bool_)


def described(target: object) -> str:
    """What came: dtype and shape, or type."""
    if isinstance(target, Tensor) and (target.is_nested or target.layout != torch.strided):
        return f"a tensor of layout {'nested' if target.is_nested else target.layout}"
    if isinstance(target, Tensor) and target.is_meta:
        return "a tensor on the meta device, without values"
    if isinstance(target, Tensor | np.ndarray):
        return f"{target.dtype} of shape {tuple(target.shape)}"
    return type(target).__name__


def mistaken(target: object) -> str | None:
    """The way out if a target looks like classes in another form; None if it does not."""
    if isinstance(target, np.ndarray) and target.dtype.kind in "biuf":
        target = torch.as_tensor(target)
    if isinstance(target, list | tuple) and all(isinstance(c, int | float) for c in target):
        target = torch.tensor(target)
    if not isinstance(target, Tensor) or target.is_complex() or target.numel() == 0:
        return None
    if target.layout != torch.strided or target.is_nested:
        return "Give labels.to_dense()."
    if target.is_meta:
        return "Leave `with torch.device('meta')` before making them."
    if target.ndim == 2 and target.shape[1] > 1:
        one_hot = bool(((target == 0) | (target == 1)).all() and (target.sum(1) == 1).all())
        return "They are one-hot: give y.argmax(1)." if one_hot else None
    if target.is_floating_point() and target.squeeze(-1).ndim == 1:
        whole = bool((target == target.round()).all())
        return "They are whole numbers: if they are classes, give y.long()." if whole else None
    return None


class Targets:
    """The targets of a stream of batches: classes pass, the first of another kind is said.

    Where class statistics are wanted, targets that look like classes in another form are warned of;
    others, such as regression targets, leave a note.

    Args:
        wanted: whether anything is made of the classes.
        called: whether the caller says how the model is called: then what stands last in a batch
            may be anything.
    """

    def __init__(self, wanted: bool, called: bool) -> None:
        self.note: str | None = None
        self._wanted, self._called = wanted, called

    def classes(self, target: Any) -> Tensor | None:
        """The classes of one batch, or None.

        Raises:
            TypeError: one number for a whole batch, unless the caller says how to call the model.
        """
        found = classes_of(target)
        if found is not None or target is None or not self._wanted:
            return found
        single = isinstance(target, int | float) or (isinstance(target, Tensor) and not target.ndim)
        if single and not self._called:
            raise TypeError(
                f"a batch's labels are {described(target)}, a single number; {EXPECTED}. Did you "
                "pass a Dataset instead of a DataLoader? If the number is an argument of the "
                "model, say how to call it: forward=lambda model, batch: model(*batch)."
            )
        if self.note is None:
            self.note = f"no class statistics: the targets were {described(target)}, and {EXPECTED}"
            if way_out := mistaken(target):
                warn(
                    f"the batches' targets are {described(target)}; {EXPECTED}. {way_out} They are "
                    "left out: the surrogate will have no class statistics, which unlearn() needs.",
                    UserWarning,
                )
        return None
