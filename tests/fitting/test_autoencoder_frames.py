"""Frames and dynamics of the autoencoder: what λ means, and what is said of it."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from tests.systems import normal
from torchkoopman.fitting.losses import koopman_losses
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.operators import Dense
from torchkoopman.observe.trajectory import Trajectory


def fitted(states: list[Tensor], train: int = 200, **options: Any) -> tk.AutoencoderFitter:
    defaults = {"latent": 12, "hidden": (24,), "steps_per_update": 1, "calibration": 500}
    fitter = tk.AutoencoderFitter(**{**defaults, **options})
    for parts in zip(*(state.split(500) for state in states), strict=True):
        fitter.update(Trajectory.of(*parts))
    return fitter.train(train)


def rotation(angle: float) -> Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def noisy_rotation(rows: int) -> list[Tensor]:
    """A stationary pair: x ↦ .95 R(.7) x + noise that keeps the variance; λ = .727 ± .612i."""
    x = normal(rows, 2)
    noise = (1 - 0.95**2) ** 0.5 * normal(rows, 2, seed=1)
    return [x, 0.95 * x @ rotation(0.7).T + noise]


def quadruple_well(rows: int) -> list[Tensor]:
    """Pairs of a stationary diffusion in (x² - 1)² + (y² - 1)², a lag of 0.2 apart; |λ| ≤ 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 2, generator=generator)
    states = []
    for step in range(601):
        if step in (400, 600):
            states.append(x)
        force = -4 * x * (x.square() - 1)
        x = x + 1e-3 * force + 0.05 * torch.randn(rows, 2, generator=generator)
    return states


@pytest.mark.slow
@pytest.mark.parametrize("system", [noisy_rotation, quadruple_well])
def test_on_a_stationary_system_no_growth_is_trusted(system: Any) -> None:
    """The law of a stationary process is a contraction of L²: every |λ| ≤ 1."""
    spectrum = fitted(system(5000), 600, latent=16, hidden=(64,)).surrogate.spectrum()
    trusted = spectrum.keep(spectrum.trusted())
    assert trusted.moduli.max() < 1.1
    assert spectrum.moduli.max() < 1.5


def test_the_eigenvalues_of_a_noisy_rotation_are_found() -> None:
    spectrum = fitted(noisy_rotation(5000), 400).surrogate.spectrum()
    truth = 0.95 * complex(math.cos(0.7), math.sin(0.7))
    assert (spectrum.eigenvalues - truth).abs().min() < 0.05
    assert (spectrum.eigenvalues - truth.conjugate()).abs().min() < 0.05


def test_layers_of_one_width_share_a_frame_and_its_growth_is_an_eigenvalue() -> None:
    """x ↦ 1.5 x in each of four steps: λ = 1.5⁴ over the span, which frames of their own undo."""
    x = normal(2000, 3)
    states = [x * 1.5**k for k in range(5)]
    options: dict[str, Any] = {"hidden": (), "steps_per_update": 0, "train": 1}
    shared = fitted(states, **options).surrogate
    assert shared.record.frames == "shared"
    weights = {tuple(frame.weight.flatten().tolist()) for frame in shared.frames()}
    assert len(weights) == 1
    assert shared.spectrum().moduli[:3] == pytest.approx([1.5**4] * 3, rel=0.05)
    aligned = fitted(states, frames="aligned", **options).surrogate
    assert aligned.record.frames == "aligned"
    assert aligned.spectrum().moduli.max() < 1.1


def test_layers_of_different_widths_are_aligned_and_cannot_share() -> None:
    states = [normal(1000, 3), torch.tanh(normal(1000, 4, seed=1))]
    assert fitted(states, train=1).surrogate.record.frames == "aligned"
    with pytest.raises(ValueError, match=r"one width.*aligned"):
        fitted(states, train=1, frames="shared")


@pytest.mark.parametrize(("argument", "value"), [("frames", "own"), ("dynamics", "both")])
def test_unknown_kinds_are_refused_with_the_list(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{argument}='{value}'.*'auto'"):
        tk.AutoencoderFitter(8, **{argument: value})


def test_a_weight_of_zero_for_inner_layers_is_refused_with_the_argument_that_means_it() -> None:
    with pytest.raises(ValueError, match="say dynamics='span'"):
        tk.AutoencoderFitter(8, weights=tk.LossWeights(inner=0))


@pytest.mark.parametrize(("dynamics", "steps"), [("auto", 2), ("step", 2), ("span", 1)])
def test_the_record_says_which_dynamics_was_fitted(dynamics: Any, steps: int) -> None:
    x = normal(1000, 2)
    surrogate = fitted([x, x.tanh(), x.tanh().tanh()], train=5, dynamics=dynamics).surrogate
    assert surrogate.operator.steps == steps
    assert surrogate.record.dynamics == ("span" if steps == 1 else "step")
    assert set(surrogate.record.r2) == ({"2"} if steps == 1 else {"1", "2"})


def test_in_a_shared_frame_a_small_layer_counts_as_much_as_a_large_one() -> None:
    """Layers 5 times apart: unscaled, the errors of the small one would count 1/25."""
    x = normal(3000, 2)
    y = torch.tanh(2 * x.roll(1, 1))
    states = [0.2 * x, 0.2 * y, y]
    surrogate = fitted(states, 600, hidden=(64,)).surrogate
    assert surrogate.record.frames == "shared"
    assert surrogate.record.method == "autoencoder"
    assert surrogate.record.r2["1"] > 0.85
    assert surrogate.record.r2["2"] > 0.85


def test_scaled_losses_are_those_of_errors_divided_layer_by_layer() -> None:
    paths = normal(6, 4, 3).double()
    scales = torch.tensor([0.5, 2.0, 3.0, 7.0]).double()
    learnt = LearntObservables(3, 5, (6,)).double()
    learnt.initialise(torch.Generator().manual_seed(1))
    operator = Dense(5, 3, constant=True).double()
    operator.start_from(torch.eye(5) + 0.1 * normal(5, 5, seed=2))
    weights = tk.LossWeights(inner=0.3)
    found = koopman_losses(paths, learnt, operator, weights, scales=scales)
    z = learnt.encode(paths)
    slow = dict.fromkeys(("reconstruction", "state", "latent"), 0.0)
    for i in range(4):
        weight = (1.0 if i in (0, 3) else 0.3) / (2 if i in (0, 3) else 1)
        error = (learnt.decode(z[:, i]) - paths[:, i]) / scales[i]
        slow["reconstruction"] += weight * error.square().mean().item()
        for j in range(i + 1, 4):
            weight = 1.0 if (i, j) == (0, 3) else 0.3
            ahead = z[:, i] @ operator.matrix((j - i) / 3).T
            state = (learnt.decode(ahead) - paths[:, j]) / scales[j]
            slow["state"] += weight * state.square().mean().item()
            slow["latent"] += weight * ((ahead - z[:, j]) / scales[j]).square().mean().item()
    for term, value in slow.items():
        assert found[term].item() == pytest.approx(value), term
    isometry = 0.0
    for k in (0, 3):
        far, near = torch.cdist(z[:, k], z[:, k]), torch.cdist(paths[:, k], paths[:, k])
        isometry += ((far - near) / scales[k]).square().sum().item() / (2 * 6 * 5 * 3)
    assert found["isometry"].item() == pytest.approx(isometry, rel=1e-3)


def test_a_feature_of_scale_1e5_does_not_drown_the_others() -> None:
    """A massive activation: what the others do is learnt as well as without it."""
    x = normal(3000, 4)
    states = [x, x @ torch.linalg.qr(normal(4, 4, seed=3))[0]]
    massive = [torch.cat([state, 1e5 * normal(3000, 1, seed=9)], 1) for state in states]

    def left(surrogate: tk.Surrogate, path: list[Tensor]) -> float:
        error = (surrogate(path[0][:, None])[:, 0] - path[1])[:, :4]
        return (error.square().mean() / path[1][:, :4].var()).item()

    options: dict[str, Any] = {"latent": 24, "dynamics": "span"}
    plain = left(fitted(states, 300, **options).surrogate, states)
    assert left(fitted(massive, 300, **options).surrogate, massive) < plain + 0.01
