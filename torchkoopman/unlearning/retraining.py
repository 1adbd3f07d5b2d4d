"""The network to compare with: trained from scratch without the forgotten classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from torchkoopman.unlearning.batches import Batches, chosen, labels_of
from torchkoopman.unlearning.measures import among

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from torchkoopman.observe.batches import Forward


@dataclass(frozen=True)
class Retraining:
    """How the user's network is made and trained, so that an audit can train it once more.

    Example:
        >>> def learn(network, batches):
        ...     optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        ...     for inputs, labels in batches:
        ...         optimizer.zero_grad()
        ...         torch.nn.functional.cross_entropy(network(inputs), labels).backward()
        ...         optimizer.step()
        >>> retraining = tk.Retraining(lambda: torch.nn.Linear(4, 3), learn)  # for tk.audit
        >>> retraining.without(train.loader(500), [2], model)(test.inputs).shape
        torch.Size([5000, 3])
    """

    factory: Callable[[], nn.Module]
    """Makes a freshly initialised network."""
    train: Callable[[nn.Module, Batches], Any]
    """Trains it in place on batches, which it may go through several times. They are built like
    those of the audit's ``train``, with fewer samples."""

    def without(
        self,
        batches: Batches,
        classes: Collection[int],
        original: nn.Module,
        forward: Forward | None = None,
    ) -> nn.Module:
        """A network trained on all but these classes, in eval mode.

        Args:
            batches: of all classes, as for :func:`torchkoopman.fit`, with labels.
            classes: left out.
            original: the trained network, by whose ``forward`` batches are read.
            forward: how to call it on a batch, if not as a fit does.

        Raises:
            ValueError: the factory's network is not fresh.
            TypeError: the factory gives no module.
        """
        model = self.factory()
        if not isinstance(model, nn.Module):
            raise TypeError(f"factory() gave a {type(model).__name__}; it must give an nn.Module.")
        require_fresh(model, original)
        self.train(model, Without(batches, classes, original, forward))
        return model.eval()


class Without:
    """Batches without the samples of some classes; goes through its source anew each time."""

    def __init__(
        self,
        batches: Batches,
        classes: Collection[int],
        model: nn.Module | None = None,
        forward: Forward | None = None,
    ) -> None:
        self.batches, self.classes = batches, tuple(classes)
        self.model, self.forward = model, forward

    def __len__(self) -> int:
        """Batches of the source, where it knows them; one may come out empty and be left out."""
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            kept = ~among(labels_of(batch, self.model, self.forward), self.classes)
            if kept.any():
                yield chosen(batch, kept)


def require_fresh(model: nn.Module, original: nn.Module) -> None:
    """Refuse a network that already knows something: a baseline that was never reset is none.

    Trained weights are recognised by what they share with the original's, in memory or in value,
    and by normalisation layers that have counted batches. Constant tensors (zero biases, unit
    scales) are fresh in every network and count for nothing.

    Raises:
        ValueError: names the tensor.
    """
    theirs = {**dict(original.named_parameters()), **dict(original.named_buffers())}
    places = {tensor.untyped_storage().data_ptr(): name for name, tensor in theirs.items()}
    for name, tensor in model.named_parameters():
        shared = places.get(tensor.untyped_storage().data_ptr()) if tensor.numel() else None
        other = theirs.get(name)
        varies = tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any())
        equal = other is not None and varies and torch.equal(tensor.to(other), other)
        if shared is not None or equal:
            raise ValueError(
                f"factory() must give a freshly initialised network, but its {name!r} "
                f"{f'lies in the memory of {shared!r}' if shared else 'equals that'} of the "
                "original. Build the network anew in the factory, and seed it otherwise than the "
                "original was."
            )
    for name, counter in model.named_buffers():
        if name.endswith("num_batches_tracked") and int(counter) > 0:
            raise ValueError(
                f"factory() must give a freshly initialised network, but {name!r} has counted "
                f"{int(counter)} batches: it was trained before. Build the network in the factory."
            )
