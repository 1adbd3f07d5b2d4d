"""Jacobians of a map at many states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchkoopman.flows.maps import Map

_NUMBERS = 2**24
"""Numbers of Jacobians that are computed together: 64 MB of float32."""


def jacobians(flow: Map, states: Tensor) -> Tensor:
    """``(n, k, k)``, each state by itself.

    By ``torch.func``, many states at a time. A map that ``vmap`` cannot take, such as one that
    writes in place, is differentiated one state at a time. Attention is computed as it is written
    down: ``vmap`` would take torch's fused kernels apart, state by state, and warn of it.
    """
    shape, width = states.shape[1:], states[0].numel()

    def of_one(flat: Tensor) -> Tensor:
        return flow(flat.view(1, *shape)).flatten()

    flat = states.detach().flatten(1)
    parts = torch.split(flat, max(1, _NUMBERS // width**2))
    randomness = "error" if flow.seed is None else "same"
    try:
        with sdpa_kernel(SDPBackend.MATH):
            found = [vmap(jacrev(of_one), randomness=randomness)(part).detach() for part in parts]
        return torch.cat(found)
    except RuntimeError:
        return torch.stack([_of_one_by_autograd(of_one, state) for state in flat])


def _of_one_by_autograd(of_one: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    """One backward pass for each output."""
    with torch.enable_grad():
        leaf = state.clone().requires_grad_()
        outputs = of_one(leaf)
        if not outputs.requires_grad:
            return torch.zeros(len(outputs), len(leaf)).to(state)
        rows = [
            torch.autograd.grad(out, leaf, retain_graph=True, materialize_grads=True)[0]
            for out in outputs
        ]
    return torch.stack(rows)
