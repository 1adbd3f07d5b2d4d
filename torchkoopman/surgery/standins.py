"""Stand-ins: modules in the places of replaced layers, called and returning as these did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.observe.example import MASK, argument_names
from torchkoopman.observe.places import filled, leaves, read
from torchkoopman.surgery.edited import apart, copied

if TYPE_CHECKING:
    from torchkoopman.observe.places import Place
    from torchkoopman.surgery.chain import Link
    from torchkoopman.surgery.passage import Passage

PLAIN = (str, int, float, bool, type(None))
"""What is kept of the layer's attributes and outputs, besides its state."""


class StandIn(nn.Module):
    """Takes what a layer took and returns what it returned, with its module's output as the state.

    Of the rest of the layer's output, what was an argument is passed on, plain values stay, and
    every other value is None. A key-value cache given to it gets an entry, so that the cache's
    length is right for the layers that are left.

    Args:
        link: the layer and how it was called.
        module: what computes the new state; None to pass the given one on.
        passage: what checks that calls take the proven path; None not to check.
    """

    def __init__(
        self, link: Link, module: nn.Module | None = None, passage: Passage | None = None
    ) -> None:
        super().__init__()
        self.module = module
        self.passage = passage
        self.copies = False
        """Whether the module is given a copy, since the model writes into the state later."""
        self.index = passage.names.index(link.name) if passage else 0
        self.argument = link.argument
        self.state = link.state
        self.template, self.carried = _template(link)
        kept = {key: value for key, value in vars(link.module).items() if isinstance(value, PLAIN)}
        self.attributes = {key: value for key, value in kept.items() if not key.startswith("_")}
        indices = (getattr(each, "layer_idx", None) for each in link.module.modules())
        self.cached = sorted({index for index in indices if isinstance(index, int)})
        self.arguments = argument_names(link.module)
        self.training = link.module.training

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:  # decoders ask their layers, for their kind of attention say
            attributes = self.__dict__.get("attributes", {})
            if name not in attributes:
                raise
            return attributes[name]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Any arguments that the layer took."""
        given = (args, kwargs)
        named = {**dict(zip(self.arguments, args, strict=False)), **kwargs}
        state = read(given, self.argument)
        if self.passage is not None:
            state = self.passage.step(self.index, state)
        state = self._new_state(state, named, _cache(given))
        if self.passage is not None:
            state = self.passage.made(self.index, state)
        output = self.template
        for there, here in self.carried:
            output = filled(output, there, read(given, here))
        return filled(output, self.state, state)

    def _new_state(self, state: Tensor, named: dict[str, Any], cache: Any) -> Tensor:
        if not getattr(self.module, "takes_mask", False):
            if cache is not None:
                _count(cache, self.cached, state)
            return state if self.module is None else self._called(state)
        seen = state
        if cache is not None and self.cached:
            seen = _remember(cache, self.cached, state)
        return self._called(seen, _mask(named.get(MASK), seen))[:, -state.shape[1] :]

    def _called(self, *inputs: Any) -> Tensor:
        assert self.module is not None
        if self.copies:
            inputs = (copied(inputs[0]), *inputs[1:])
        made: Tensor = self.module(*inputs)
        fresh = getattr(self.module, "fresh", False)
        state: Tensor = made if fresh else apart(made, inputs[0])
        return state


def _template(link: Link) -> tuple[Any, tuple[tuple[Place, Place], ...]]:
    """A layer's output without its tensors, and the places in it that repeat an argument."""
    output, carried = link.output, []
    if not link.state:
        return None, ()
    given = {id(leaf): place for place, leaf in leaves(link.inputs)}
    for place, leaf in leaves(link.output):
        if place == link.state or not isinstance(leaf, PLAIN):
            output = filled(output, place, None)
        if place != link.state and not isinstance(leaf, PLAIN) and id(leaf) in given:
            carried.append((place, given[id(leaf)]))
    return output, tuple(carried)


def _cache(given: Any) -> Any:
    """The key-value cache among the arguments, in the manner of transformers."""
    for _, leaf in leaves(given):
        cache = getattr(leaf, "self_attention_cache", leaf)
        if hasattr(cache, "update") and hasattr(cache, "get_seq_length"):
            return cache
    return None


def _count(cache: Any, layers: list[int], state: Tensor) -> None:
    """Entries as narrow as can be: decoders read a layer's position off the cache's length."""
    entry = state.new_zeros(state.shape[0], 1, state.shape[1], 1)
    for layer in layers:
        cache.update(entry, entry, layer)


def _remember(cache: Any, layers: list[int], state: Tensor) -> Tensor:
    """All states until now; the cache holds them as the keys of the replaced layer."""
    first, *others = layers
    states, _ = cache.update(state[:, None], state[:, None, :, :1], first)
    _count(cache, others, state)
    history: Tensor = states[:, 0, : cache.get_seq_length(first)]
    return history


def _mask(mask: Any, state: Tensor) -> Tensor | None:
    """Which positions count, from the attention mask that a layer is given.

    Two axes: ``(batch, positions)``, 1 or True where one counts. Four: what the last query may see.
    """
    if not isinstance(mask, Tensor):
        return None
    if mask.ndim == 4:
        mask = mask[:, 0, -1]
        mask = mask if mask.dtype == torch.bool else mask >= 0
    known: Tensor = mask[:, : state.shape[1]] != 0
    return known.expand(state.shape[0], -1)
