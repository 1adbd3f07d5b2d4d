"""Callbacks that follow attractors, in real trainings: same weights, same curves when resumed."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.integrations.trainings import FITS, lightning_fit, points, same
from torchkoopman.flows import Flow

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("lightning", "accelerate")),
        reason="needs lightning, transformers and accelerate",
    ),
]
both = pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
Fit = Callable[..., tuple[Any, Any]]
STEPS = 20


def callback_for(fit: Fit, **options: Any) -> Any:
    """Of a perceptron's body, or of BERT's pooler: both give what they take."""
    noise = torch.randn(
        20, 8 if fit is lightning_fit else 16, generator=torch.Generator().manual_seed(0)
    )
    options = {"log_every": 5, "steps": 50, **options}
    if fit is lightning_fit:
        from torchkoopman_lightning import FlowCallback

        own = {"noise": noise, "moved": lambda m: m.body(noise)}
        return FlowCallback(lambda m: Flow(m.body), own, **options)
    from torchkoopman_transformers import FlowTrainerCallback

    def pooled(model: Any) -> Flow:
        pooler = model.bert.pooler
        return Flow(lambda x: pooler(x[:, None]))

    return FlowTrainerCallback(pooled, {"noise": noise, "half": noise[:10]}, **options)


@both
def test_a_training_is_the_same_with_and_without_and_a_resumed_one_has_the_same_curves(
    fit: Fit, tmp_path: Path
) -> None:
    callback, model = fit(tmp_path / "whole", STEPS, callback=callback_for(fit))
    assert callback.monitor.history.steps.tolist() == [0, 5, 10, 15, 20]
    assert not callback.monitor.attached
    _, plain = fit(tmp_path / "plain", STEPS)
    for name, each in plain.state_dict().items():
        assert torch.equal(each, model.state_dict()[name]), name
    shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
    again, _ = fit(tmp_path / "resumed", STEPS, resume=True, callback=callback_for(fit))
    assert again.monitor.history.steps.tolist() == [0, 5, 10, 15, 20]
    for name, each in callback.monitor.history.tensors().items():
        torch.testing.assert_close(
            again.monitor.history.tensors()[name], each, atol=0, rtol=0, equal_nan=True
        )
    whole, resumed = (points(tmp_path / folder / "flow") for folder in ("whole", "resumed"))
    assert [step for step, _ in whole["koopman/flow/attractors"]] == [0, 5, 10, 15, 20]
    assert same(whole, resumed)


@both
def test_a_flow_that_does_not_compose_is_refused_when_the_training_starts(
    fit: Fit, tmp_path: Path
) -> None:
    callback = callback_for(fit)
    callback.monitor.flow = lambda m: Flow(lambda x: x[:, :3])
    with pytest.raises(ValueError, match="to be applied again it must give"):
        fit(tmp_path, 4, callback=callback)
    assert not callback.monitor.attached
