"""Differences between what an edited model did and what its reference did, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from torchkoopman.observe.facts import Facts, alike, gap
from torchkoopman.observe.surroundings import OUTSIDE
from torchkoopman.surgery.transcript import PUT_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchkoopman.surgery.edited import Edited
    from torchkoopman.surgery.transcript import Transcript


NOISE = 1e-6
"""Share of the largest gradient below which one is rounding: exact gradients that cancel to zero,
such as those of a key projection's bias, come out as noise."""


def differences(
    reference: Transcript, found: Transcript, copied: nn.Module, edited: Edited
) -> Iterator[str]:
    """What differs, in words, the first cause first."""
    entering = [name for name in reference.calls if "what enters" in name]
    for name in (*entering, *(name for name in reference.calls if name not in entering)):
        yield from _difference(name, reference.calls, found.calls)
    for name in found.calls.keys() - reference.calls.keys():
        yield f"{name} is new"
    yield from _gradients(reference.gradients, found.gradients, copied)
    yield from lost(reference.left, found.left, copied, edited)


def _difference(name: str, reference: Facts, found: Facts, least: float = 0.0) -> Iterator[str]:
    if name not in found:
        yield f"{name} is missing"
        return
    value, expected = found[name], reference[name]
    if alike(value, expected, least):
        return
    both = isinstance(value, Tensor) and isinstance(expected, Tensor)
    if both and value.shape == expected.shape and value.dtype == expected.dtype:
        size = float(expected.abs().max()) if expected.numel() else 0.0
        yield f"{name} is off by {gap(value, expected):.2g} (its largest value is {size:.2g})"
    else:
        yield f"{name} is {_short(value)}, not {_short(expected)}"


def _gradients(reference: Facts, found: Facts, copied: nn.Module) -> Iterator[str]:
    """Gradients that differ, of what both models have; none counts as zero."""
    largest = max((float(each.abs().max()) for each in reference.values()), default=0.0)
    names = {name for name, _ in copied.named_parameters(remove_duplicate=False)}
    for key in dict.fromkeys((*reference, *found)):
        name = key.removeprefix("gradient of ").strip("'")
        shared = name in names or name.startswith((PUT_IN, "input "))
        if not shared:  # it went with the span
            continue
        value, expected = found.get(key), reference.get(key)
        if value is None or expected is None:
            one = expected if value is None else value
            if one is not None and float(one.abs().max()) > NOISE * largest:
                yield f"{key} is {'missing' if value is None else 'new'}"
        else:
            yield from _difference(key, reference, found, NOISE * largest)


def lost(reference: Facts, found: Facts, copied: nn.Module, edited: Edited) -> Iterator[str]:
    """Buffers and attributes that the calls leave otherwise than the reference's calls."""
    gone = tuple(f"{layer}." for layer in edited.layers)
    held = (*copied.named_buffers(remove_duplicate=False), *copied.named_parameters())
    buffers = {name for name, _ in held}
    for name in reference:
        kept = name in found or name in buffers or not name.startswith(gone)
        if kept and name not in found:
            yield f"{name!r}, which the model's calls set, stays as it was"
        elif kept:
            yield from _difference(name, reference, found)
    for name in found.keys() - reference.keys():
        if name in buffers or name.startswith(OUTSIDE):
            yield f"{name!r} changes, which the model's calls leave as it was"


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return repr(value)[:60]
