"""The autoencoder computes in its own precision, whatever its surroundings and its states are."""

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.fitting.autoencoder import Family
from torchkoopman.fitting.quality import Unexplained
from torchkoopman.observe.trajectory import Trajectory

FAMILIES: list[Family] = ["Dense", "LowRank", "Orthogonal", "Stable", "BlockDiagonal"]


def states(rows: int = 600, seed: int = 0) -> list[Tensor]:
    """(a, b) ↦ (0.9 a, 0.6 b + 0.8 a²)."""
    a, b = torch.randn(2, rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    path = [torch.stack([a, b], 1)]
    for _ in range(2):
        a, b = 0.9 * a, 0.6 * b + 0.8 * a.square()
        path.append(torch.stack([a, b], 1))
    return path


def fitted(
    path: list[Tensor], tail: nn.Module | None = None, **options: Any
) -> tk.AutoencoderFitter:
    defaults = {"latent": 8, "hidden": (24,), "calibration": 200, "batch": 64}
    fitter = tk.AutoencoderFitter(**{**defaults, "tail": tail, **options})
    for parts in zip(*(state.split(100) for state in path), strict=True):
        fitter.update(Trajectory.of(*parts))
    return fitter.train(40)


def values(surrogate: tk.Surrogate) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in surrogate.state_dict().values()]


def r2(surrogate: tk.Surrogate, path: list[Tensor]) -> float:
    return Unexplained().update(surrogate(path[0][:, None])[:, 0], path[-1]).r2


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AROUND = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "float64 by default": lambda: default_dtype(torch.float64),
}


@pytest.mark.parametrize("around", AROUND)
def test_the_same_bits_are_learnt_whatever_mode_is_on_around_the_fitter(around: str) -> None:
    path = [state.float() for state in states()]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tail = nn.Linear(2, 3)
    plain = values(fitted(path, tail).surrogate)
    with AROUND[around]():
        changed = fitted(path, tail).surrogate
    for expected, found in zip(plain, values(changed), strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not any(tensor.is_inference() for tensor in changed.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_where_float64_is_the_default(family: Family) -> None:
    path = [state.float() for state in states()]
    plain = fitted(path, operator=family, operator_rank=3).surrogate
    with default_dtype(torch.float64):
        changed = fitted(path, operator=family, operator_rank=3).surrogate
    assert all(p.dtype == torch.float32 for p in changed.parameters())
    found, expected = changed.operator.matrix(1.0), plain.operator.matrix(1.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_whole_fit_inside_autocast_is_the_fit_outside() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
    loader = list(torch.randn(600, 2, generator=torch.Generator().manual_seed(1)).split(100))
    options: dict[str, Any] = {"latent": 12, "steps": 60, "progress": False}
    outside = tk.fit(model, loader, ["1", "3"], **options)
    with torch.autocast("cpu", torch.bfloat16):
        inside = tk.fit(model, loader, ["1", "3"], **options)
    # The model itself is rounded to bfloat16 within, three digits; the fit is not.
    assert outside.record.held_out["3"] > 0.85
    left = [1 - each.record.held_out["3"] for each in (inside, outside)]
    assert left[0] < 1.2 * left[1] + 1e-3


def test_a_surrogate_of_float64_states_takes_and_gives_float64_states() -> None:
    path, fresh = states(), states(seed=9)
    surrogate = fitted(path).surrogate
    assert all(tensor.dtype == torch.float64 for tensor in surrogate.state_dict().values())
    latent = surrogate.encode(fresh[0][:, None], "0")
    assert latent.dtype == surrogate.decode(latent, "2").dtype == torch.float64
    single = fitted([state.float() for state in path]).surrogate
    assert 1 - r2(surrogate, fresh) == pytest.approx(
        1 - r2(single, [state.float() for state in fresh]), rel=0.1
    )


def test_float64_states_far_from_zero_keep_what_float32_cannot_tell_apart() -> None:
    path = states()
    far = [1e9 + state for state in path]
    assert torch.equal((1e9 + path[0][:, 1]).float(), torch.full((600,), 1e9))
    near, surrogate = fitted(path).surrogate, fitted(far).surrogate
    fresh = states(seed=9)
    assert 1 - r2(surrogate, [1e9 + state for state in fresh]) < 1.5 * (1 - r2(near, fresh))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_states_are_learnt_as_well_as_their_digits_allow(dtype: torch.dtype) -> None:
    path, fresh = states(), [state.float() for state in states(seed=9)]
    whole = fitted([state.float() for state in path]).surrogate
    half = fitted([state.to(dtype) for state in path]).surrogate
    assert all(tensor.dtype == torch.float32 for tensor in half.state_dict().values())
    assert 1 - r2(half, fresh) < 1.2 * (1 - r2(whole, fresh)) + 1e-3


def test_a_stream_that_turns_to_another_precision_is_followed_in_that_of_its_first_rows() -> None:
    path = states()
    fitter = fitted(path)
    for dtype in (torch.float32, torch.bfloat16):
        fitter.update(Trajectory.of(*(state[:100].to(dtype) for state in path)))
    surrogate = fitter.surrogate
    assert surrogate.record.rows == 800
    assert surrogate(path[0][:5, None]).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_tail_of_another_precision_is_followed_in_that_of_the_fit(dtype: torch.dtype) -> None:
    tail = nn.Linear(2, 3, dtype=dtype)
    fitter = fitted([state.float() for state in states()], tail)
    assert fitter.surrogate.record.losses["behaviour"] < 1
    assert tail.weight.dtype == dtype
    assert tail.weight.requires_grad
