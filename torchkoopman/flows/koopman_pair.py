"""The encoder and decoder of a surrogate, as the pair that a latent vector field is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchkoopman.koopman.surrogate import Surrogate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def autoencoder_of(
    surrogate: Surrogate, layer: str | None = None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """``encode`` and ``decode`` of a surrogate at one layer, on rows without positions.

    What the surrogate's autoencoder remembers is asked by its latent vector field,
    ``Flow.of_autoencoder(encode, decode)``, without the operator; where the operator leads is
    :meth:`Flow.of_surrogate`. A closed-form surrogate decodes exactly what it encodes, so that its
    field vanishes; that of an :class:`torchkoopman.AutoencoderFitter` does not. Where the first
    latent coordinate is the constant 1, it is 1 after one step, whatever it was at the start.

    Example:
        >>> encode, decode = tk.flows.autoencoder_of(surrogate)
        >>> latents = encode(torch.zeros(3, 32))  # rows of layer "1"
        >>> latents.shape[1] == surrogate.latent, decode(latents).shape
        (True, torch.Size([3, 32]))

    Args:
        surrogate: of any fitter.
        layer: whose states are coded; None for the first.

    Returns:
        From ``(n, features)`` to ``(n, latent)``, and back; both in the surrogate's precision.

    Raises:
        TypeError: no surrogate.
        ValueError: an unknown layer.
    """
    if not isinstance(surrogate, Surrogate):
        raise TypeError(
            f"autoencoder_of() got a {type(surrogate).__name__}; give a surrogate, such as what "
            "tk.fit() returns."
        )
    layer = surrogate.layers[0] if layer is None else layer
    surrogate.time(layer)  # refuses an unknown layer

    into, out = surrogate.encode, surrogate.decode  # the same in training mode

    def encode(rows: Tensor) -> Tensor:
        return into(rows[:, None], layer)[:, 0]

    def decode(latents: Tensor) -> Tensor:
        return out(latents[:, None], layer)[:, 0]

    return encode, decode
