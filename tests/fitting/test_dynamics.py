"""One matrix for every step, one for the span, or none: what held-out rows prefer."""

import pytest
import torch
from torch import Tensor

import torchkoopman as tk
from tests.systems import normal
from torchkoopman.fitting.quality import Unexplained
from torchkoopman.observe.trajectory import Trajectory


def spiral(rows: int, depth: int, noise: float = 0.0) -> list[Tensor]:
    """One linear law at every layer."""
    A = 0.9 * torch.linalg.qr(normal(5, 5, seed=1))[0]
    states = [normal(rows, 5)]
    for layer in range(depth):
        states.append(states[-1] @ A.T + noise * normal(rows, 5, seed=10 + layer))
    return states


def stream(rows: int, blocks: int, seed: int = 0) -> list[Tensor]:
    """A residual stream that grows with depth, each block with weights of its own."""
    states = [normal(rows, 16, seed=seed)]
    for block in range(blocks):
        inner = torch.tanh(states[-1] @ normal(16, 32, seed=50 + block) / 4)
        states.append(states[-1] + 0.6 * inner @ normal(32, 16, seed=80 + block) / 32**0.5)
    return states


def unexplained(surrogate: tk.Surrogate, states: list[Tensor]) -> dict[str, float]:
    first, *later = surrogate.layers
    told = {}
    for layer in later:
        if surrogate.operator.exact_at(surrogate.time(layer)):
            ahead = surrogate.predict(states[0][:, None], first, layer)[:, 0]
            told[layer] = Unexplained().update(ahead, states[int(layer)]).value
    return told


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_where_every_layer_obeys_one_law_one_step_matrix_tells_all_layers(noise: float) -> None:
    fitter = tk.DMDFitter().update(Trajectory.of(*spiral(800, 5, noise)))
    record = fitter.surrogate.record
    assert (record.dynamics, record.frames, record.notes) == ("step", "shared", ())
    assert set(record.r2) == {"1", "2", "3", "4", "5"}


def test_where_layers_differ_the_span_is_taken_and_the_record_and_the_repr_say_so() -> None:
    states = [normal(800, 4)]
    for layer in range(3):
        states.append(torch.tanh(1.5 * states[-1] @ normal(4, 4, seed=layer)))
    surrogate = tk.EDMDFitter(tk.RandomFeatures(40)).update(Trajectory.of(*states)).surrogate
    assert surrogate.record.dynamics == "span"
    (note,) = surrogate.record.notes
    assert "one matrix for every step has R²" in note
    assert "says nothing of the layers between" in note
    assert note in repr(surrogate)
    assert "dynamics by span" in repr(surrogate)


@pytest.mark.parametrize("make", [tk.DMDFitter, tk.EDMDFitter])
def test_a_growing_residual_stream_does_not_explode_with_depth(make: type[tk.DMDFitter]) -> None:
    """On rows unseen: no layer worse than skipping, the last within 1.2 of the better of two."""
    seen, fresh = stream(3000, 8), stream(1000, 8, seed=7)
    fits = {d: make(dynamics=d) for d in ("auto", "step", "span")}
    for fitter in fits.values():
        fitter.update(Trajectory.of(*seen))
    quality = {d: unexplained(fitter.surrogate, fresh) for d, fitter in fits.items()}
    for layer, value in quality["auto"].items():
        skip = Unexplained().update(fresh[0], fresh[int(layer)]).value
        assert value <= skip + 0.01, layer
    assert quality["auto"]["8"] <= 1.2 * min(quality["step"]["8"], quality["span"]["8"]) + 0.005


def test_where_no_matrix_helps_the_operator_is_the_identity_and_says_so() -> None:
    """The layers agree but for noise, and there are hardly more rows than features."""
    x = normal(90, 60)
    surrogate = tk.DMDFitter().update(Trajectory.of(x, x + 0.3 * normal(90, 60, seed=1))).surrogate
    assert surrogate.record.dynamics == "skip"
    assert "K is the identity" in surrogate.record.notes[-1]
    torch.testing.assert_close(surrogate(x[:, None])[:, 0], x, rtol=0, atol=1e-4)
    fitted = tk.DMDFitter(dynamics="span").update(Trajectory.of(x, x)).surrogate
    assert fitted.record.dynamics == "span"


def test_what_is_asked_for_by_name_is_what_is_fitted() -> None:
    states = stream(500, 3)
    for dynamics in ("step", "span"):
        surrogate = tk.DMDFitter(dynamics=dynamics).update(Trajectory.of(*states)).surrogate
        assert surrogate.record.dynamics == dynamics
        assert surrogate.record.notes == ()


def test_the_choice_is_the_same_for_the_same_stream_in_other_batches() -> None:
    states = stream(900, 4)
    whole = tk.DMDFitter().update(Trajectory.of(*states)).surrogate
    parts = tk.DMDFitter()
    for rows in torch.arange(900).split(128):
        parts.update(Trajectory.of(*(state[rows] for state in states)))
    assert parts.surrogate.record.dynamics == whole.record.dynamics
    torch.testing.assert_close(
        parts.surrogate(states[0][:, None]), whole(states[0][:, None]), rtol=0, atol=1e-4
    )


def test_over_many_layers_the_spectrum_also_says_what_one_step_does() -> None:
    spectrum = tk.DMDFitter().update(Trajectory.of(*spiral(500, 7))).surrogate.spectrum()
    moving = spectrum.eigenvalues.abs() < 0.99
    assert spectrum.steps == 7
    torch.testing.assert_close(
        spectrum.per_step[moving].abs(), torch.full((5,), 0.9).double(), rtol=1e-4, atol=0
    )
    assert "per step of 7" in spectrum.summary()
    assert "one frame for all layers" in spectrum.summary()


def test_layers_of_their_own_frames_say_that_eigenvalues_depend_on_them() -> None:
    x = normal(300, 4)
    surrogate = tk.DMDFitter().update(Trajectory.of(x, x @ normal(4, 6, seed=1))).surrogate
    assert surrogate.record.frames == "aligned"
    assert "it is not the system's" in surrogate.spectrum().summary()
    assert "aligned frames" in repr(surrogate)


@pytest.mark.parametrize("make", [tk.DMDFitter, tk.EDMDFitter])
def test_a_feature_of_scale_1e5_does_not_drown_the_others(make: type[tk.DMDFitter]) -> None:
    x = normal(6000, 8)
    y = x @ (0.8 * torch.linalg.qr(normal(8, 8, seed=1))[0]).T
    scale = torch.ones(8)
    scale[3] = 1e5
    surrogate = make().update(Trajectory.of(x[:5000] * scale, y[:5000] * scale)).surrogate
    ahead = surrogate((x[5000:] * scale)[:, None])[:, 0] / scale
    others = [0, 1, 2, 4, 5, 6, 7]
    assert Unexplained().update(ahead[:, others], y[5000:][:, others]).value < 0.01


def test_unknown_frames_are_refused_before_any_data() -> None:
    with pytest.raises(ValueError, match=r"frames='own' is unknown; choose 'auto', 'shared'"):
        tk.EDMDFitter(frames="own")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_states_of_whole_numbers_are_refused_with_the_way_out(dtype: torch.dtype) -> None:
    """Weights of that type would be cut to whole numbers, and nearly all of them be 0."""
    x = torch.randint(0, 5, (100, 3), generator=torch.Generator().manual_seed(0))
    with pytest.raises(TypeError, match=r"\['1'\] are torch\.\w+, .* state\.float\(\)"):
        tk.Trajectory.of(x.float(), x.to(dtype))
    surrogate = tk.DMDFitter().update(tk.Trajectory.of(x.float(), 2 * x.float())).surrogate
    assert surrogate.spectrum().moduli.tolist() == pytest.approx([2, 2, 2, 1], abs=1e-4)


def test_complex_states_are_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"\['0'\] are complex.*view_as_real"):
        Trajectory.of(torch.randn(4, 2, dtype=torch.complex64), torch.randn(4, 2))
