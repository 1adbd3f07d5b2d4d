"""What is asked for its shape: a surrogate, known here by what is called of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from torchkoopman.observe.views import View


class Predicting(Protocol):
    """A fitted linear system, such as a ``tk.Surrogate``, whose methods describe the arguments."""

    operator: Any
    observables: Any
    span: Any

    @property
    def layers(self) -> tuple[str, ...]:
        """First in depth first."""
        ...

    @property
    def views(self) -> Mapping[str, View]:
        """Layer → how its output becomes a state."""
        ...

    @property
    def latent(self) -> int:
        """Size of the operator."""
        ...

    def time(self, layer: str) -> float:
        """Depth-time of a layer."""
        ...

    def frames(self) -> Sequence[Any]:
        """Coordinates of each layer, with ``features``."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """The system's parameters, which tell its precision."""
        ...

    def encode(self, state: Tensor, layer: str, mask: Tensor | None = None) -> Tensor:
        """The latent state of a layer's state."""
        ...

    def decode(self, latent: Tensor, layer: str) -> Tensor:
        """The state of a layer from a latent one."""
        ...
