"""Reconstruction errors of an autoencoder, split: what attractors miss, and how far away they are.

After Fumero et al., latent vector fields of autoencoders, Proposition 3.2. With ``Πz`` the
attractor that the orbit of the latent state ``z = E(x)`` ends at,
``‖x - D(z)‖² ≤ 2 ‖x - D(Πz)‖² + 2 ‖D(z) - D(Πz)‖²``, and the last difference is at most
``L ‖z - Πz‖`` for a Lipschitz constant L of the decoder between the two. (The paper's proposition
lacks the factor 2.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import vjp, vmap

from torchkoopman.flows.flow import Flow
from torchkoopman.flows.jacobians import jacobians
from torchkoopman.flows.maps import Map, require_eval
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBERS = 2**24
"""Numbers of the decoder's Jacobians that are computed together: 64 MB of float32."""


@dataclass(frozen=True)
class PrototypeErrors(Tabular):
    """Squared errors of inputs, and the two parts that bound them; print it.

    All are summed over the numbers of an input, and are of those inputs alone whose latent state
    comes to rest at a point that attracts, in their order.

    Example:
        >>> half = lambda z: 0.5 * z  # from everywhere to 0
        >>> told = tk.flows.prototype_errors(half, lambda z: z, torch.eye(2))
        >>> print(told)
        2 of 2 inputs end at an attractor, ...
    """

    attracted: Tensor
    """Which inputs end at an attractor; bool, ``(inputs,)``."""
    reconstruction: Tensor
    """``‖x - D(z)‖²``; float64, ``(attracted,)``."""
    prototype: Tensor
    """``‖x - D(Πz)‖²``: how far the decoded attractor is from the input."""
    coverage: Tensor
    """``L² ‖z - Πz‖²``: how much of the decoder's range lies between the state and it."""
    lipschitz: Tensor
    """L of each input. An estimate: the largest spectral norm of the decoder's Jacobian that was
    measured between z and Πz, and never less than ``secants``. The true constant can be larger."""
    secants: Tensor
    """``‖D(z) - D(Πz)‖ / ‖z - Πz‖``, the least L that the bound of an input allows; 0 for states
    that are at their attractor."""

    @property
    def bound(self) -> Tensor:
        """``2 (prototype + coverage)``, never below the reconstruction error."""
        return 2 * (self.prototype + self.coverage)

    def table(self) -> Table:
        """Mean, median and largest of each."""
        names = ("reconstruction", "prototype", "coverage", "bound", "lipschitz", "secants")
        rows = []
        for name in names:
            values: Tensor = getattr(self, name)
            cells = ["–"] * 3
            if len(values):
                cells = [f"{v:.4g}" for v in (values.mean(), values.median(), values.max())]
            rows.append([name, *cells])
        above = (
            f"{int(self.attracted.sum())} of {len(self.attracted)} inputs end at an attractor, and "
            "are counted"
        )
        below = (
            "squared errors, summed over an input's numbers; lipschitz is an estimate by the "
            "decoder's Jacobian between a state and its attractor, at least the secant"
        )
        return Table(["", "mean", "median", "largest"], rows, [above], [below])


def prototype_errors(
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    steps: int = 1000,
    points: int = 5,
    seed: int | None = None,
    **options: Any,
) -> PrototypeErrors:
    """How near inputs are to their decoded attractors, and how near to these their latents are.

    A prototype error as small as the reconstruction error says that the attractors are all that
    the autoencoder knows of these inputs, as where it has memorised them; a large one beside a
    large coverage error, that it reconstructs by what lies between them.

    Example:
        >>> encode, decode = torch.nn.Linear(4, 2).eval(), torch.nn.Linear(2, 4).eval()
        >>> told = tk.flows.prototype_errors(encode, decode, test.inputs[:50])
        >>> bool((told.reconstruction <= told.bound).all())
        True

    Args:
        encode: a module or function from inputs to latent states, ``(n, …)``.
        decode: from latent states to inputs.
        inputs: ``(n, …)``.
        steps: see :meth:`Flow.fixed_points`.
        points: places at which the decoder's Jacobian is measured, evenly from a state to its
            attractor and with both; 1 for the attractor alone.
        seed: as for :class:`Flow`.
        **options: ``tolerance``, ``merge`` and others of :meth:`Flow.fixed_points`.

    Raises:
        ValueError: inputs that are none or not finite, no points, or a pair that has no orbits.
        TypeError: see :class:`Flow`.
    """
    if not len(inputs) or not inputs.isfinite().all() or points < 1:
        raise ValueError(
            f"prototype_errors() got {len(inputs)} inputs and points={points}; give one input or "
            "more, all finite, and 1 point or more."
        )
    flow = Flow.of_autoencoder(encode, decode, seed=seed)
    require_eval(flow.modules)
    encoder, decoder = Map(encode, seed=seed), Map(decode, seed=seed)
    with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
        with torch.no_grad():
            z = encoder(inputs)
        found = flow.fixed_points(z, steps, **options)
        led = found.basins >= 0
        attracted = led.clone()
        attracted[led] = found.stable[found.basins[led]]
        z, x = z[attracted], inputs[attracted]
        rest = found.points[found.basins[attracted]]
        if not len(z):
            none = torch.zeros(0, dtype=torch.float64, device=inputs.device)
            return PrototypeErrors(attracted, none, none, none, none, none)
        with torch.no_grad():
            own, prototype = decoder(z), decoder(rest)
        norms = _largest_norms(decoder, z, rest, points)
    far = _squares(z, rest)
    apart = _squares(own, prototype)
    secants = torch.where(far > 0, (apart / far).sqrt(), 0.0)
    lipschitz = torch.maximum(norms, secants)
    coverage = torch.maximum(lipschitz.square() * far, apart)  # equal up to rounding, if the larger
    return PrototypeErrors(
        attracted, _squares(x, own), _squares(x, prototype), coverage, lipschitz, secants
    )


def _largest_norms(decoder: Map, states: Tensor, rest: Tensor, points: int) -> Tensor:
    """Largest spectral norm of the decoder's Jacobian between each state and its attractor."""
    shares = torch.linspace(0, 1, points, dtype=states.dtype, device=states.device)
    found = [_norms(decoder, torch.lerp(rest, states, share)) for share in shares]
    return torch.stack(found).amax(0)


def _norms(decoder: Map, states: Tensor) -> Tensor:
    """Of the decoder's Jacobian at each state, float64, ``(n,)``."""
    shape = states.shape[1:]
    flat = states.flatten(1)
    eye = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)

    def of_one(state: Tensor) -> Tensor:
        return decoder(state.view(1, *shape)).flatten()

    def columns(state: Tensor) -> Tensor:
        """By the derivative of ``u ↦ Jᵀu``: inputs are far more numbers than latent states."""
        out, back = vjp(of_one, state)[:2]
        _, forth = vjp(lambda u: back(u)[0], torch.zeros_like(out))[:2]
        found: Tensor = vmap(lambda v: forth(v)[0])(eye)
        return found

    width = flat.shape[1] * decoder(states[:1]).numel()
    randomness = "error" if decoder.seed is None else "same"
    norms = []
    for part in torch.split(flat, max(1, _NUMBERS // width)):
        try:
            J = vmap(columns, randomness=randomness)(part).detach().double()
        except RuntimeError:  # a part that torch.func cannot take
            J = jacobians(decoder, part.view(-1, *shape)).double().mT
        norms.append(torch.linalg.eigvalsh(J @ J.mT)[:, -1].clamp_min(0).sqrt())
    return torch.cat(norms)


def _squares(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance of each pair, float64."""
    return (first - second).flatten(1).double().square().sum(1)
