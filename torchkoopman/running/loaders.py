"""Loaders: what their order depends on, and why that of some cannot be repeated."""

from __future__ import annotations

from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

_DRAWN = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def batches_of(loader: DataLoader[Any]) -> Any:
    """What gives the indices of each batch."""
    return loader.sampler if loader.batch_sampler is None else loader.batch_sampler


def order_of(loader: DataLoader[Any]) -> Any:
    """The sampler by which samples come, inside of those that only make batches of them."""
    sampler = batches_of(loader)
    while type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return sampler


def described(loader: object) -> dict[str, Any]:
    """What must be the same of a loader for its order to be."""
    told: dict[str, Any] = {"loader": type(loader).__name__}
    if isinstance(loader, list | tuple):
        told["batches"] = len(loader)
    elif isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        told["samples"] = len(loader.dataset)  # type: ignore[arg-type]
        batches = batches_of(loader)
        told["batch_size"] = getattr(batches, "batch_size", None)
        told["drop_last"] = getattr(batches, "drop_last", False)
        told["sampler"] = type(order_of(loader)).__name__
        told["workers"] = loader.num_workers
    return told


def unrepeatable(loader: object, epochs: int) -> str:
    """Why a loader's order cannot be repeated, and what would help; empty if it can."""
    if isinstance(loader, list | tuple):
        return ""
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return (
            f"that of a {type(loader).__name__} is not known. Give a DataLoader, a list of "
            "batches, or a loader with state_dict() and load_state_dict(), as torchdata's "
            "StatefulDataLoader."
        )
    if isinstance(loader.dataset, IterableDataset):
        return (
            "an IterableDataset may go through its data in any. Give torchdata's "
            "StatefulDataLoader with a data set that has state_dict(), or a map-style data set."
        )
    if not getattr(loader, "in_order", True):
        return "this one has in_order=False. Leave that out."
    if loader.persistent_workers and epochs > 1:
        return (
            "persistent_workers=True carries random states from one pass to the next. Leave it out."
        )
    sampler = order_of(loader)
    if isinstance(sampler, _DRAWN) and sampler.generator is None:
        return (
            "this DataLoader shuffles with torch's global random numbers. Give "
            "DataLoader(…, shuffle=True, generator=torch.Generator().manual_seed(0)), or the "
            "generator to a sampler of your own."
        )
    if type(sampler) not in (*_DRAWN, SequentialSampler, DistributedSampler):
        return (
            f"that of the sampler {type(sampler).__name__} is not known. Give torchdata's "
            "StatefulDataLoader, or one of torch's own samplers."
        )
    return ""
