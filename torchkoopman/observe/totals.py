"""Moments over all processes: new ones, while each process keeps its own as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchkoopman.observe.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from torchkoopman.observe.class_moments import LabelledMoments
    from torchkoopman.observe.processes import Processes


def total_of(
    moments: Moments, widths: Mapping[str, int], processes: Processes, device: torch.device
) -> Moments:
    """The moments of the rows of all processes together.

    Two sums: of counts and means, then of the scatters about the common means. Shards may be
    uneven, and a process may hold no row.

    Args:
        moments: this process's own; of the same pairs in all processes, not faded.
        widths: of the variables.
        processes: those that take part.
        device: where the result shall be.
    """
    names = moments.names
    held = moments.tensors() if moments.count else _nothing(moments, widths, device)
    count, means = float(moments.count), torch.cat([held[f"mean/{name}"] for name in names])
    summed = processes.sum(torch.cat([means.new_tensor([count]), count * means]))
    total = moments.__class__(moments.pairs, precision=moments.precision)
    if not summed[0] > 0:
        return total
    parts = torch.split(summed[1:] / summed[0], [widths[name] for name in names])
    shared = dict(zip(names, (part.clone() for part in parts), strict=True))
    shift = {name: held[f"mean/{name}"] - shared[name] for name in names}
    about = [
        torch.addr(held[f"scatter/{a}/{b}"], shift[a], shift[b], alpha=count).flatten()
        for a, b in moments.pairs
    ]
    scatters = torch.split(processes.sum(torch.cat(about)), [len(part) for part in about])
    named = {"count": summed[0]} | {f"mean/{name}": mean for name, mean in shared.items()}
    for (a, b), scatter in zip(moments.pairs, scatters, strict=True):
        named[f"scatter/{a}/{b}"] = scatter.reshape(widths[a], widths[b]).clone()
    return total.load(named)


def labelled_total_of(
    moments: LabelledMoments,
    classes: Iterable[int],
    widths: Mapping[str, int],
    processes: Processes,
    device: torch.device,
) -> LabelledMoments:
    """The same by class.

    Args:
        moments: this process's own, without a halflife.
        classes: those that any process has seen.
        widths: of the variables.
        processes: those that take part.
        device: where the result shall be.
    """
    total, none = moments.fresh(), Moments(moments.class_pairs)
    for label in sorted(classes):
        own = moments.by_class.get(label, none)
        total.by_class[label] = total_of(own, widths, processes, device)
    total.unlabelled = total_of(moments.unlabelled, widths, processes, device)
    if total.shared.pairs:
        total.shared = total_of(moments.shared, widths, processes, device)
    return total


def _nothing(
    moments: Moments, widths: Mapping[str, int], device: torch.device
) -> dict[str, Tensor]:
    """The tensors of moments of no rows."""
    empty = {name: torch.zeros(widths[name]).to(device, torch.float64) for name in moments.names}
    named = {f"mean/{name}": zeros for name, zeros in empty.items()}
    for a, b in moments.pairs:
        named[f"scatter/{a}/{b}"] = torch.outer(empty[a], empty[b])
    return named
