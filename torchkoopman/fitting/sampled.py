"""Some of the rows that were streamed, by which what was fitted to all of them is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchkoopman.fitting.whole_samples import RECORD, WholeSamples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

_LATENT_BYTES = 16 * 2**20
"""Memory of the sample's latent states: thousands of rows at usual widths. With half of it one in
fifteen true eigenvalues of 150 random features was not told from chance."""


@dataclass(frozen=True)
class Sampled:
    """Some of the rows that were streamed, whole samples of them."""

    layers: Mapping[str, Tensor]
    """Layer → its rows, ``(rows, features)``; empty if there are none."""
    samples: Tensor
    """A number for each row's sample, ascending, ``(rows,)``."""
    shares: Tensor
    """Rows of the sample that each stands for."""
    weights: Tensor | None = None
    """Weight of each row in the moments; None where all weigh alike."""


def sampled_latents(
    sample: WholeSamples,
    widths: Mapping[str, int],
    encode: Callable[[str, Tensor], Tensor],
    size: int,
) -> Sampled:
    """The latent states of sampled rows, layer by layer.

    Args:
        sample: of the rows of all layers, side by side.
        widths: layer → width of what was sampled of it.
        encode: makes latent states of a layer's rows.
        size: bytes of one latent state.
    """
    most = _LATENT_BYTES // (len(widths) * size + RECORD)
    found = sample.read(list(widths.values()), most)
    rows = {
        layer: encode(layer, each)
        for layer, each in zip(widths, found.columns, strict=bool(found.columns))
    }
    return Sampled(rows, found.samples, found.shares, found.weights)
