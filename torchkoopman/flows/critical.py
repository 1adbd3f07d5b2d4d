"""The critical start of a gated cell: weights at which small states neither grow nor decay."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchkoopman.flows.jacobians import jacobians
from torchkoopman.flows.maps import Map

_STATES = 64
"""Over so many the leading eigenvalue is averaged."""
_SMALL = 1e-3
"""Their size."""


@torch.no_grad()
def scale_critically(
    target: nn.Sequential, gate: nn.Linear | None, inputs: int, generator: torch.Generator | None
) -> None:
    """See :meth:`GatedODECell.critical_`."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    linear = [layer for layer in target if isinstance(layer, nn.Linear)]
    gates = [] if gate is None else [gate]
    for layer in (*linear, *gates):
        layer.bias.zero_()
    drawn = torch.randn(_STATES, linear[-1].out_features, generator=generator)
    found = leading(target, inputs, (_SMALL * drawn).to(linear[0].weight))
    if found <= 0:
        raise ValueError(
            f"the leading eigenvalue of F's Jacobian has the real part {found:.3g}; only a "
            "positive one can be scaled to 1. Draw other weights."
        )
    for layers in (linear, gates):
        for layer in layers:
            layer.weight.mul_(found ** (-1 / len(layers)))


def leading(target: nn.Sequential, inputs: int, states: Tensor) -> float:
    """Mean over states of the largest real part of the eigenvalues of ∂F/∂h: η + 1."""
    nothing = states.new_zeros(inputs)

    def drawn_to(h: Tensor) -> Tensor:
        found: Tensor = target(torch.cat([nothing.expand(*h.shape[:-1], -1), h], -1))
        return found

    J = jacobians(Map(drawn_to), states).double()
    found: float = torch.linalg.eigvals(J).real.amax(1).mean().item()
    return found
