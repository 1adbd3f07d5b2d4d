"""Small fitters of every kind, a stream for them, and what equality of their fits means."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.trajectory import Trajectory

Fitter = tk.DMDFitter | tk.EDMDFitter | tk.AutoencoderFitter
BATCHES, ROWS = 8, 60


def parts() -> list[Any]:
    return [tk.RandomFeatures(12), tk.Monomials(2)]


def tail() -> nn.Module:
    module = nn.Linear(4, 3)
    with torch.no_grad():
        module.weight.copy_(torch.arange(12.0).reshape(3, 4).sin())
        module.bias.zero_()
    return module


def autoencoder(**options: Any) -> tk.AutoencoderFitter:
    small = {"latent": 6, "hidden": [8], "batch": 16, "steps_per_update": 2.5, "calibration": 170}
    return tk.AutoencoderFitter(**{**small, **options})


MAKERS: dict[str, Callable[[], Fitter]] = {
    "dmd": tk.DMDFitter,
    "dmd halflife": lambda: tk.DMDFitter(halflife=150.0),
    "dmd delays": lambda: tk.DMDFitter(2, delays=1, pairs="all"),
    "edmd": lambda: tk.EDMDFitter(parts(), calibration=170),
    "edmd halflife": lambda: tk.EDMDFitter(parts(), calibration=170, halflife=90.0),
    "autoencoder": autoencoder,
    "autoencoder halflife": lambda: autoencoder(halflife=90.0, replay_bytes=20_000),
    "autoencoder tail": lambda: autoencoder(tail=tail(), operator="Orthogonal"),
}


def batch(number: int, labelled: bool = True) -> Trajectory:
    """Three layers that drift with the number of the batch; a tenth of the rows is masked."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(ROWS, 4, generator=generator) * (1 + number) ** 0.5 + 0.2 * number
    states = [state[:, None] for state in (x, torch.tanh(0.3 * x) + x, torch.sin(0.5 * x))]
    labels = torch.randint(-1, 3, (ROWS,), generator=generator)
    mask = torch.rand(ROWS, 1, generator=generator) > 0.1
    layers = {str(depth): state for depth, state in enumerate(states)}
    return Trajectory(layers, labels if labelled else None, mask)


def streamed(fitter: Fitter, numbers: range = range(BATCHES)) -> Fitter:
    for number in numbers:
        fitter.update(batch(number))
    return fitter


def finished(fitter: Fitter) -> dict[str, Tensor]:
    """Everything a surrogate holds after some more steps; its record as text beside it."""
    if isinstance(fitter, tk.AutoencoderFitter):
        fitter.train(7)
    surrogate = fitter.surrogate
    assert surrogate.statistics is not None
    found = dict(surrogate.state_dict()) | surrogate.statistics.tensors()
    if surrogate.evidence is not None:
        found |= {"start": surrogate.evidence.start, "end": surrogate.evidence.end}
    record = repr(surrogate.record).encode()
    return {**found, "record": torch.tensor(list(record))}


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name, tensor in one.items() if not torch.equal(tensor, other[name])]
    assert not different
