"""Checks ported from other libraries' test suites: which there are, and how states are compared.

A check says what the peer's test asserts, of the peer's data and at its tolerance, in the words of
this library. Complex snapshots are stated as their real and imaginary parts side by side, so that
one complex direction counts as two real ones and eigenvalues come with their conjugates; the
constant, which every dictionary here has, is left out where eigenvalues are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest
import torch

import torchkoopman as tk

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Test = Callable[..., None]


@dataclass(frozen=True)
class Check:
    """One test of a peer, stated here."""

    upstream: str
    reason: str = ""
    """Why this library answers otherwise on purpose; empty where it answers as the peer does."""


CHECKS: dict[str, Check] = {}
"""Name of the test here → the check, of all modules imported."""


def states(upstream: str) -> Callable[[Test], Test]:
    """Mark a test as the statement of a peer's: ``"PyDMD test_edmd.py test_eigs"``."""

    def mark(test: Test) -> Test:
        CHECKS[f"{test.__module__}.{test.__name__}"] = Check(upstream)
        return test

    return mark


def on_purpose(
    upstream: str,
    reason: str,
    raises: type[BaseException] = AssertionError,
    match: str | None = None,
) -> Callable[[Test], Test]:
    """Mark a peer's test whose claim does not hold here, on purpose; it counts as failed.

    The test's body is the claim; that it fails, or is refused with ``raises`` and ``match``, is
    what pytest checks.
    """

    def mark(test: Test) -> Test:
        CHECKS[f"{test.__module__}.{test.__name__}"] = Check(upstream, reason)

        @wraps(test)
        def fails(*args: Any, **kwargs: Any) -> None:
            with pytest.raises(raises, match=match):
                test(*args, **kwargs)

        return fails

    return mark


def pairs(series: Tensor, lag: int = 1) -> tk.Trajectory:
    """A time series, ``(times, features)``, as pairs of states ``lag`` apart."""
    return tk.Trajectory.of(series[:-lag], series[lag:])


def moving(surrogate: tk.Surrogate) -> Tensor:
    """Eigenvalues, largest modulus first, without the 1 that belongs to the constant."""
    values = surrogate.spectrum().eigenvalues
    constant = int((values - 1).abs().argmin())
    return values[torch.arange(len(values)) != constant]


def step(surrogate: tk.Surrogate, rows: Tensor) -> Tensor:
    """The states that follow ``rows``, ``(rows, features)``."""
    return surrogate(rows[:, None])[:, 0]


def orbit(surrogate: tk.Surrogate, start: Tensor, times: int) -> Tensor:
    """``start`` and the states that follow by powers of the operator, ``(times, features)``."""
    first, last = surrogate.layers[0], surrogate.layers[-1]
    latent = surrogate.encode(start[None, None], first)
    states = [start]
    for _ in range(times - 1):
        latent = surrogate.operator(latent)
        states.append(surrogate.decode(latent, last)[0, 0])
    return torch.stack(states)


def jacobian(surrogate: tk.Surrogate, state: Tensor) -> Tensor:
    """Derivative of the step at a state, ``(features, features)``."""
    return torch.func.jacrev(lambda x: step(surrogate, x[None])[0])(state)


def layer_modes(surrogate: tk.Surrogate) -> Tensor:
    """Modes in the space of the states, ``(features, latent)``; that of the constant is a point."""
    frame, modes = surrogate.frames()[-1], surrogate.spectrum().modes
    moved = frame.inverse_weight.to(modes) @ modes[1 : 1 + frame.size]
    return moved + frame.offset.to(modes)[:, None] * modes[:1]


def relative_error(found: Tensor, true: Tensor) -> float:
    """Frobenius norm of the difference over that of the truth."""
    return ((found - true).norm() / true.norm()).item()


def near(found: Tensor, true: Tensor, *, rtol: float = 1e-7, atol: float = 0.0) -> None:
    """NumPy's ``assert_allclose`` and its defaults."""
    found, true = found.detach(), true.detach()
    dtype = torch.promote_types(found.dtype, true.dtype)
    torch.testing.assert_close(found.to(dtype), true.to(dtype), rtol=rtol, atol=atol)


def near_decimals(found: Tensor, true: Tensor, decimals: int = 6) -> None:
    """NumPy's ``assert_almost_equal`` and ``assert_array_almost_equal``: 1.5 · 10^-decimals."""
    near(found, true, rtol=0, atol=1.5 * 10.0**-decimals)
