"""Trusted eigenvalues of a network are those that other random features find again."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk


def trained(seed: int, inputs: Tensor, labels: Tensor) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for width in (inputs.shape[1], 32, 32):
            layers += [nn.Linear(width, 32), nn.Tanh()]
        network = nn.Sequential(*layers, nn.Linear(32, 3))
        optimizer = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(400):
            some = torch.randint(len(inputs), (128,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs[some]), labels[some]).backward()
            optimizer.step()
    return network


def fitted(network: nn.Module, inputs: Tensor, draw: int) -> tk.Surrogate:
    fitter = tk.EDMDFitter(generator=torch.Generator().manual_seed(draw))
    with tk.attach(network, ["1", "3"]) as probe, torch.no_grad():
        probe.stream_to(fitter)
        for batch in torch.split(inputs, 256):
            network(batch)
    return fitter.surrogate


def moves(one: tk.Surrogate, other: tk.Surrogate, states: Tensor) -> Tensor:
    """How far each eigenvalue of one is from the nearest of the other with a like function."""
    functions = []
    for each in (one, other):
        values = each.eigenfunctions(states[:, None])[:, 0]
        functions.append(values / values.norm(dim=0))
    like = (functions[0].mH @ functions[1]).abs() > 0.8
    gaps = (one.spectrum().eigenvalues[:, None] - other.spectrum().eigenvalues).abs()
    return torch.where(like, gaps, torch.inf).amin(1)


@pytest.mark.parametrize("seed", [100, 101])
def test_trusted_eigenvalues_of_a_network_do_not_move_with_the_features(seed: int) -> None:
    """By residuals alone, without condition numbers and errors, one in ten and more would."""
    data = tk.datasets.yin_yang(seed=seed)
    network = trained(seed, data.train.inputs, data.train.labels)
    one, other = (fitted(network, data.train.inputs, draw) for draw in (0, 1))
    with torch.no_grad():
        states = network[:2](data.test.inputs[:1000])
    far = moves(one, other, states) > 0.05
    spectrum = one.spectrum()
    trusted = spectrum.trusted()
    by_residuals = replace(spectrum, conditions=None, errors=None).trusted()
    assert trusted.sum() > 50
    assert far[trusted].double().mean() < 0.03
    assert far[by_residuals].double().mean() > 0.1
