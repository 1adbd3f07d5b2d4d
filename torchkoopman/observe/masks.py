"""Masks: which positions count, as an argument of the model says it.

That is ``attention_mask``, and ``src_key_padding_mask`` of ``nn.TransformerEncoder``, True where a
position is padding.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchkoopman.observe.capture import is_traced
from torchkoopman.observe.placements import is_dtensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

ARGUMENT, PADDING = "attention_mask", "src_key_padding_mask"
_DECODES = {
    ARGUMENT: ("decoder_input_ids", "decoder_attention_mask"),
    PADDING: ("tgt", "tgt_key_padding_mask"),
}
"""A forward with one of these has two sequences, and the mask of that name is the encoder's."""
ENCODERS = "so it is the encoder's"
"""How a reason ends that says that a mask is of other positions: nothing is missing then."""


class ModelMask:
    """The attention mask that a model was given in one forward pass.

    Of the modules around all layers, from the model down to the lowest, the innermost that is given
    a mask of two axes decides: a decoder's own comes before that of the model around it.
    """

    def __init__(self) -> None:
        self.name = ARGUMENT
        """The argument that it was."""
        self.aside = ""
        """Why there was a mask that was not taken; empty if that is not so."""
        self._mask: Tensor | None = None
        self._past: int | None = None
        self._outermost = True

    def offer(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Look at what a module is called with, outermost first."""
        outermost, self._outermost = self._outermost, False
        if ARGUMENT not in kwargs and PADDING not in kwargs and len(args) < 2:
            return
        try:
            names = list(inspect.signature(module.forward).parameters)
        except (TypeError, ValueError):  # of a scripted module
            names = []
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        name = ARGUMENT if given.get(ARGUMENT) is not None else PADDING
        mask = given.get(name)
        two = [each for each in _DECODES[name] if each in names]
        if two and isinstance(mask, Tensor) and self._mask is None:
            self.aside = f"{type(module).__name__} has {two[0]!r} too, {ENCODERS}"
        if two or not isinstance(mask, Tensor) or is_traced(mask) or is_dtensor(mask):
            return
        if mask.ndim == 2:
            self._mask, self._past = mask.detach().clone(), _past(given.get("past_key_values"))
            self.name, self.aside = name, ""
        elif outermost:  # inner ones are given what the model made of its mask
            self.aside = f"it has {mask.ndim} axes"

    def of(self, batch: int, positions: int) -> Tensor | None:
        """The mask of the states' positions, bool, ``(batch, positions)``; None if there is none.

        Behind a cache of earlier positions these are the columns after it.
        """
        mask = self._mask
        if mask is None:
            return None
        rows, columns = mask.shape
        first = 0 if columns == positions else self._past
        if rows != batch or first is None or columns < first + positions:
            shape = f"({batch}, {positions})"
            self.aside = f"its shape is {tuple(mask.shape)}, that of the states {shape}"
            return None
        mask = mask[:, first : first + positions]
        if self.name == PADDING:
            return ~mask if mask.dtype == torch.bool else mask == 0  # floats are added to scores
        whole = not (mask.is_floating_point() or mask.is_complex())
        if not whole and not ((mask == 0) | (mask == 1)).all():
            self.aside = "it holds other numbers than 0 and 1"
            return None
        if not whole and not mask.any():
            self.aside = "it is 0 everywhere, as one is that is added to scores"
            return None
        return mask.bool()


def _past(cache: Any) -> int | None:
    """Positions that a key-value cache holds; None without one."""
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    if isinstance(cache, tuple | list) and cache and isinstance(cache[0], tuple | list):
        return int(cache[0][0].shape[-2])
    return None
