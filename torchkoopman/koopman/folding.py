"""Folding: a surrogate between two layers as encoder, linear map, decoder, and nothing else.

Layer coordinates are affine, so they vanish into the encoder's first and the decoder's last maps;
the constant becomes the map's bias; a dictionary's decoder is linear and vanishes as well. Where
few coordinates are kept of wide layers, a product of two thin maps is smaller than the matrix that
it multiplies out to, and stays two maps: whatever has fewer numbers is taken.
"""

from __future__ import annotations

import copy
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from torchkoopman.koopman.arithmetic import own_precision
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.thin import linear_map, operator_map
from torchkoopman.observe.costs import numbers

if TYPE_CHECKING:
    from torchkoopman.koopman.coordinates import Coordinates
    from torchkoopman.koopman.feature_maps import Affine
    from torchkoopman.koopman.learnt import LearntObservables
    from torchkoopman.koopman.operator import Operator
    from torchkoopman.observe.layouts import Layout

_WITHOUT_FLOAT64 = {"mps"}
"""Kinds of devices on which float64 is refused."""
M = TypeVar("M", bound=nn.Module)


class Folded(nn.Module):
    """``decoder(linear(encoder(x)))`` on states ``(batch, positions, features)``.

    In the precision of its weights, under autocast too: the matrix of a closed form has entries of
    thousands that cancel each other, of which bfloat16 would leave nothing.
    """

    def __init__(self, encoder: nn.Module, linear: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.linear = linear
        self.decoder = decoder

    @property
    def dtype(self) -> torch.dtype:
        """The precision it computes in."""
        return next(self.parameters()).dtype

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """State of the start layer to state of the end layer; ``mask`` as for observables."""
        looks = isinstance(self.encoder, Encoding)
        device = "cpu" if state.is_meta else state.device.type  # autocast knows no meta device
        with torch.autocast(device, enabled=False):
            latent = self.encoder(state, mask) if looks else self.encoder(state)
            out: Tensor = self.decoder(_mapped(self.linear, latent))
        return out


class Encoding(nn.Module):
    """A dictionary's functions without the constant, as a module.

    Args:
        dictionary: of the state, or of its coordinates.
        lead: from the state to its coordinates, if they are not folded away.
    """

    def __init__(self, dictionary: Dictionary, lead: nn.Linear | None = None) -> None:
        super().__init__()
        self.lead = lead
        self.dictionary = dictionary

    def forward(self, state: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, positions, features)`` → ``(batch, positions, latent - 1)``."""
        if self.lead is not None:
            state = _mapped(self.lead, state)
        parts = [part(state, mask) for part in self.dictionary.parts]
        if not parts:
            return state
        if _features_first(state):
            return torch.cat([each.mT for each in (state, *parts)], 1).mT
        return torch.cat([state, *parts], -1)


class Replacement(nn.Module):
    """A folded surrogate between the output tensors of two layers.

    It computes in its own precision and returns that of its input. ``takes_mask`` is true if its
    observables look along the positions: it should then be told which positions count, and given
    all positions that came before.
    """

    fresh = True
    """What it returns shares no memory with what it is given: a swap need not see to that."""

    def __init__(self, core: Folded, start: Layout | None, end: Layout | None) -> None:
        super().__init__()
        self.core = core
        self.start = start
        self.end = end
        self.takes_mask = isinstance(core.encoder, Encoding) and core.encoder.dictionary.contextual

    def forward(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """Output of the start layer to output of the end layer, in their own shapes.

        ``mask`` has 1 or True where a position counts, shape ``(batch, positions)``.
        """
        state = output if self.start is None else self.start.to_state(output)
        known = None if mask is None else mask.to(state.device) != 0
        given, own = output.dtype, self.core.dtype
        end = self.core(state if own == given else state.to(own), known)
        end = end if own == given else end.to(given)
        return end if self.end is None else self.end.to_output(end)


@own_precision
def fold(
    start: Coordinates,
    observables: Dictionary | LearntObservables,
    operator: Operator,
    time: float,
    end: Coordinates,
    thin: bool = True,
) -> Folded:
    """``end⁻¹ ∘ decode ∘ K(time) ∘ encode ∘ start`` with all affine maps multiplied out.

    In float64, powers of a step included; rounded once, to the precision of ``start``. Where a
    device has no float64 it is computed on the CPU. Without ``thin`` everything is multiplied out,
    however large that is, as versions before 0.2 did. What is taken depends on sizes alone.
    """
    dtype, device = start.weight.dtype, start.weight.device
    start, end = _wide(start, device), _wide(end, device)
    observables = _wide(observables, device)
    K = _wide(operator, device).matrix(time)
    inner = (start.weight, start.bias)
    outer = (end.inverse_weight, end.offset)
    if isinstance(observables, Dictionary):
        return _narrow(_of_dictionary(observables, K, inner, outer, thin), dtype, device)
    skip = int(observables.constant)
    matrix, bias = K[skip:, skip:], K[1:, 0] if observables.constant else None
    encoder: nn.Module = observables.encoder.before(inner)
    decoder: nn.Module = observables.decoder.after(outer)
    linear: nn.Module = linear_map(matrix, bias)
    if thin:
        leading = nn.Sequential(linear_map(*inner), observables.encoder)
        ending = nn.Sequential(observables.decoder, linear_map(*outer))
        encoder, decoder = (min(e, key=numbers) for e in ((encoder, leading), (decoder, ending)))
        linear = operator_map(operator, matrix, bias)
    return _narrow(Folded(encoder, linear, decoder), dtype, device)


def _of_dictionary(
    observables: Dictionary, operator: Tensor, inner: Affine, outer: Affine, thin: bool
) -> Folded:
    """Coordinates of the start are folded away or not, those of the end likewise."""
    read = observables.decoding_matrix().to(operator) @ operator
    folded, transfer = observables.folded(inner)
    ends, ways = len(outer[1]), []
    for encoder, core in (
        (Encoding(folded), read @ transfer),
        (Encoding(observables, linear_map(*inner)), read),
    ):
        size, inputs = core.shape
        dense, two = ends * inputs, size * inputs + ends * (size + 1)
        ways.append((numbers(encoder) + min(dense, two), two < dense, encoder, core))
    _, thinner, encoder, core = min(ways, key=itemgetter(0)) if thin else (0, False, *ways[0][2:])
    if thinner:
        linear: nn.Module = nn.Sequential(linear_map(core[:, 1:], core[:, 0]), linear_map(*outer))
    else:
        matrix = outer[0] @ core
        linear = linear_map(matrix[:, 1:], matrix[:, 0] + outer[1])
    return Folded(encoder, linear, nn.Identity())


def _wide(part: M, device: torch.device) -> M:
    """A copy in float64, where it is, or on the CPU where the device has none."""
    own = copy.deepcopy(part)
    if device.type in _WITHOUT_FLOAT64:
        own = own.to("cpu")  # before it is converted, which the device refuses
    return own.double()


def _narrow(folded: Folded, dtype: torch.dtype, device: torch.device) -> Folded:
    """In the precision of the parts, and on their device where folding was done on the CPU.

    Elsewhere nothing is moved: parts may be on the meta device beside others that are not.
    """
    found = folded.to(dtype)
    return found.to(device) if device.type in _WITHOUT_FLOAT64 else found


def _features_first(state: Tensor) -> bool:
    """Whether each feature's positions lie together in memory, as an image's pixels do."""
    return state.stride(-2) == 1 != state.stride(-1)


def _mapped(linear: nn.Module, state: Tensor) -> Tensor:
    """``linear(state)``, which would first copy an image's state into another order."""
    if isinstance(linear, nn.Sequential):
        for each in linear:
            state = _mapped(each, state)
        return state
    if not isinstance(linear, nn.Linear) or linear.bias is None or not _features_first(state):
        out: Tensor = linear(state)
        return out
    weight = linear.weight.expand(state.shape[0], -1, -1)
    return torch.baddbmm(linear.bias[:, None], weight, state.mT).mT
