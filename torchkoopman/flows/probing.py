"""Coding latent states by few atoms: attractors found without data, beside three controls.

After the data-free probe of Fumero et al.: attractors from noise are a dictionary; orthogonal
matching pursuit (Pati et al. 1993) codes latent states of data by a few of its atoms, and the
decoded code is compared with the data.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import orthogonal_mp
from torch import Tensor

from torchkoopman.flows.maps import modules_of, require_eval
from torchkoopman.tables import Table, Tabular

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torchkoopman.flows.flow import Flow


@dataclass(frozen=True)
class ProbeTable(Tabular):
    """Error of coded data, by dictionary and number of atoms; print it.

    Example:
        >>> plain = lambda x: x
        >>> print(tk.flows.probe(plain, plain, 2 * torch.eye(3), {"axes": torch.eye(3)[:2]}, [1]))
        relative error of decoded codes; the latent states themselves: 0.0000
        dictionary  atoms  1 in a code
        axes            2       0.3333
    """

    errors: Mapping[str, tuple[float, ...]]
    """Dictionary → mean squared error of the decoded code over the mean square of the data, for
    each number of atoms."""
    counts: tuple[int, ...]
    """Numbers of atoms in a code."""
    sizes: Mapping[str, int]
    """Dictionary → number of its atoms."""
    plain: float
    """The error of the latent states themselves, decoded: no code is better but by chance."""

    def table(self) -> Table:
        """A row for each dictionary."""
        rows = [
            [name, str(self.sizes[name]), *(f"{error:.4f}" for error in errors)]
            for name, errors in self.errors.items()
        ]
        above = f"relative error of decoded codes; the latent states themselves: {self.plain:.4f}"
        head = ["dictionary", "atoms", *(f"{count} in a code" for count in self.counts)]
        return Table(head, rows, [above])


def dictionaries(
    flow: Flow,
    noise: Tensor,
    train: Tensor,
    *,
    steps: int = 1000,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Atoms of a data-free dictionary and of its three controls, as many of each as there are.

    ``attractors`` that the noise leads to, distinct ones; ``one step`` of the flow from the same
    noise; ``random orthogonal`` directions (as many as there are dimensions, at most); and
    ``training latents``, which are not data-free.

    Example:
        >>> flow = tk.flows.Flow(lambda z: torch.tanh(2 * z))
        >>> noise = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
        >>> {name: len(atoms) for name, atoms in tk.flows.dictionaries(flow, noise, noise).items()}
        {'attractors': 4, 'one step': 4, 'random orthogonal': 2, 'training latents': 4}

    Args:
        flow: of encoding after decoding.
        noise: latent starts, ``(n, …)``.
        train: latent states of training data.
        steps: see :meth:`Flow.fixed_points`.
        generator: draws the orthogonal directions and the training latents; None for one seeded
            with 0.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    atoms = flow.fixed_points(noise, steps).attractors
    count, width = len(atoms), noise[0].numel()
    square = torch.randn(width, width, generator=generator, dtype=torch.float64)
    orthogonal = torch.linalg.qr(square).Q.T[:count].to(noise)
    drawn = torch.randperm(len(train), generator=generator)[:count].to(train.device)
    return {
        "attractors": atoms,
        "one step": noise[:count] + flow.velocity(noise)[:count],
        "random orthogonal": orthogonal.view(-1, *noise.shape[1:]),
        "training latents": train[drawn],
    }


def probe(
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    inputs: Tensor,
    atoms: Mapping[str, Tensor],
    counts: Sequence[int] = (1, 2, 4, 8, 16),
) -> ProbeTable:
    """How well few atoms of each dictionary code inputs, after decoding.

    Example:
        >>> encode, decode = torch.nn.Linear(4, 3).eval(), torch.nn.Linear(3, 4).eval()
        >>> told = tk.flows.probe(encode, decode, test.inputs[:50], {"axes": torch.eye(3)}, [1, 3])
        >>> abs(told.errors["axes"][1] - told.plain) < 1e-4  # three axes code all
        True

    Args:
        encode: from inputs to latent states, ``(n, …)``.
        decode: from latent states to inputs.
        inputs: ``(n, …)``.
        atoms: dictionary → ``(atoms, …)``, of the latent states' shape.
        counts: atoms in a code; a dictionary that has fewer uses all of them.

    Raises:
        ValueError: no inputs, counts below 1, or atoms of another shape.
    """
    if not len(inputs) or not counts or min(counts) < 1:
        raise ValueError(
            f"probe() got {len(inputs)} inputs and counts={list(counts)}; give one input or more, "
            "and counts of 1 or more."
        )
    require_eval(modules_of(encode, decode))
    with torch.no_grad():
        latents = encode(inputs)
        plain = _error(decode(latents), inputs)
    flat = latents.flatten(1).double().cpu().numpy()
    errors = {}
    for name, own in atoms.items():
        if own.shape[1:] != latents.shape[1:]:
            raise ValueError(
                f"the atoms of {name!r} have shape {tuple(own.shape)}, and latent states have "
                f"{tuple(latents.shape)}; all but the first numbers must be the same."
            )
        columns = own.flatten(1).double().cpu().numpy().T
        found = []
        for count in counts:
            coded = torch.from_numpy(_coded(columns, flat, count)).to(latents)
            with torch.no_grad():
                found.append(_error(decode(coded.view_as(latents)), inputs))
        errors[name] = tuple(found)
    sizes = {name: len(own) for name, own in atoms.items()}
    return ProbeTable(errors, tuple(counts), sizes, plain)


def _coded(columns: np.ndarray, targets: np.ndarray, count: int) -> np.ndarray:
    """Targets as sums of at most so many columns, of unit length, without those of length zero."""
    norms = np.linalg.norm(columns, axis=0)
    unit = columns[:, norms > 0] / norms[norms > 0]
    if not unit.shape[1]:
        return np.zeros_like(targets)
    most = min(count, np.linalg.matrix_rank(unit))
    with warnings.catch_warnings():
        # It ends before that many atoms where the code is exact, or no other atom adds anything.
        warnings.filterwarnings("ignore", "Orthogonal matching pursuit ended prematurely")
        weights = orthogonal_mp(unit, targets.T, n_nonzero_coefs=int(most))
    found: np.ndarray = (unit @ weights.reshape(unit.shape[1], -1)).T
    return found


def _error(decoded: Tensor, inputs: Tensor) -> float:
    return ((decoded - inputs).double().square().mean() / inputs.double().square().mean()).item()
