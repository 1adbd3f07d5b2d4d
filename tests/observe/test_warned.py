"""Warnings name the user's line, whether it calls the package, a model with hooks, or a trainer."""

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.observe.warned import warn

PACKAGE = Path(tk.__file__).parent


@contextmanager
def told() -> Iterator[list[tuple[str, int]]]:
    """Where the warnings within it say that they come from."""
    found: list[tuple[str, int]] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [(each.filename, each.lineno) for each in caught]


def line() -> int:
    """The caller's line."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


def batches(scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, *others = (torch.randn(60, 4, generator=generator) for _ in range(4))
    return [scale * first, *others]


def test_a_fit_names_the_line_that_calls_it() -> None:
    model = nn.Sequential(nn.Identity(), nn.Identity())
    loader = [batches()[0], 1e9 * batches()[1]]
    with told() as found:
        here = line() + 1
        tk.fit(model, loader, ["0", "1"], method="dmd", progress=False)
    assert found
    assert {*found} == {(__file__, here)}


def test_a_hook_names_the_line_that_calls_the_model() -> None:
    model = network()
    with tk.attach(model, ["0", "2"]) as probe:
        probe.stream_to(tk.DMDFitter())
        model.train()(batches()[0])
        with told() as found:
            here = line() + 1
            model.eval()(batches()[1])
    assert found == [(__file__, here)]


def test_a_probe_that_is_left_names_the_block() -> None:
    with told() as found:
        here = line() + 1
        with tk.attach(network(), ["0", "2"]) as probe:
            probe.stream_to(tk.DMDFitter())
    assert found == [(__file__, here)]


def test_a_surrogate_names_the_line_that_reads_it() -> None:
    x = batches()[0]
    fitter = tk.EDMDFitter(tk.Monomials(2), ridge=0.0, calibration=30)
    fitter.update(tk.Trajectory.of(x.sign(), x.sign()))  # whose squares are all 1
    with told() as found:
        here = line() + 1
        fitter.surrogate  # noqa: B018
    assert found
    assert {*found} == {(__file__, here)}


def trainer_of(call: Callable[[], object]) -> Callable[[], object]:
    """A function that stands in a module of a trainer, and calls."""
    scope: dict[str, Any] = {"__name__": "lightning.pytorch.loops"}
    exec("def run(call):\n    return call()\n", scope)
    return partial(scope["run"], call)


def test_trainers_are_passed_over() -> None:
    with told() as found:
        here = line() + 1
        trainer_of(partial(warn, "what is wrong"))()
    assert found == [(__file__, here)]


def test_where_no_line_is_the_users_the_warning_comes_still() -> None:
    with told() as found:
        thread = threading.Thread(target=warn, args=("what is wrong",))
        thread.start()
        thread.join()
    assert len(found) == 1


@pytest.mark.parametrize("category", [RuntimeWarning, UserWarning])
def test_the_category_is_kept(category: type[Warning]) -> None:
    with pytest.warns(category, match="what is wrong"):
        warn("what is wrong", category)


def test_nothing_warns_in_another_way() -> None:
    others = [
        path.relative_to(PACKAGE)
        for path in sorted(PACKAGE.rglob("*.py"))
        if "warnings.warn(" in path.read_text() and path.name != "warned.py"
    ]
    assert not others
