"""Hooks, streamed EDMD, spectrum and residuals on a network whose Koopman eigenvalues are known."""

import pytest
import torch
from torch import Tensor

from benchmarks.known.network import DEPTH, SYSTEMS, fitted, known
from torchkoopman.koopman.feature_maps import Monomials, RandomFeatures
from torchkoopman.spectra.spectrum import spectrum_of


def nearest(values: Tensor, truth: complex) -> int:
    return int((values - truth).abs().argmin())


@pytest.mark.parametrize("system", SYSTEMS)
def test_streamed_edmd_finds_the_eigenvalues_per_layer(system: str) -> None:
    surrogate = fitted(SYSTEMS[system], Monomials(2))
    values = spectrum_of(surrogate.operator.matrix(1 / DEPTH)).eigenvalues
    for truth in known(SYSTEMS[system]):
        assert abs(values[nearest(values, truth)].item() - truth) < 1e-3, truth


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("noise", [0, 1])
def test_over_the_span_exactly_the_true_eigenvalues_are_trusted(system: str, noise: int) -> None:
    """λ over the span is λ per layer to the power of the layers; residuals tell true from false."""
    spectrum = fitted(SYSTEMS[system], Monomials(2), noise=noise).spectrum()
    truths = [value**DEPTH for value in known(SYSTEMS[system])]
    places = [nearest(spectrum.eigenvalues, truth) for truth in truths]
    for place, truth in zip(places, truths, strict=True):
        assert abs(spectrum.eigenvalues[place].item() - truth) < 1e-3, truth
    assert set(spectrum.trusted().nonzero().flatten().tolist()) == set(places)
    assert len(set(places)) == len(truths) < len(spectrum.eigenvalues)


def test_in_an_overcomplete_dictionary_true_eigenvalues_have_the_least_residuals() -> None:
    surrogate = fitted(SYSTEMS["rotation"], Monomials(2), RandomFeatures(30))
    spectrum = surrogate.spectrum()
    assert spectrum.residuals is not None
    truths = [value**DEPTH for value in known(SYSTEMS["rotation"])]
    places = [nearest(spectrum.eigenvalues, truth) for truth in truths]
    relative = spectrum.residuals / spectrum.moduli
    others = [k for k in range(len(relative)) if k not in places]
    assert relative[places].max() < 1e-3
    assert relative[others].min() > 0.02
    trusted = spectrum.trusted()
    assert trusted[places].all()
    assert (~trusted).sum() > len(others) / 2


def test_the_residual_pseudospectrum_vanishes_at_true_eigenvalues_only() -> None:
    """σ_min(K - z) also vanishes at a spurious eigenvalue; the data know better."""
    surrogate = fitted(SYSTEMS["rotation"], Monomials(2), RandomFeatures(30))
    spectrum = surrogate.spectrum()
    assert spectrum.residuals is not None
    true = nearest(spectrum.eigenvalues, known(SYSTEMS["rotation"])[1] ** DEPTH)
    spurious = int(torch.where(spectrum.moduli > 0.4, spectrum.residuals, 0).argmax())
    found = {}
    for name, k in (("true", true), ("spurious", spurious)):
        z = spectrum.eigenvalues[k]
        for kind in ("residual", "matrix"):
            axes = {"real": z.real + torch.tensor([0, 1]), "imag": z.imag + torch.tensor([0, 1])}
            found[name, kind] = surrogate.pseudospectrum(kind, **axes).at(z.item())
    assert found["true", "residual"] < 1e-3
    assert found["true", "matrix"] < 1e-6
    assert found["spurious", "matrix"] < 1e-6
    assert found["spurious", "residual"] > 0.02
