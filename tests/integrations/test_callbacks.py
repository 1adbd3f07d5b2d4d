"""Callbacks in real trainings: nothing is left, nothing is lost, and bad input is told at once."""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchkoopman_tensorboard import EventFolder

import torchkoopman as tk
from benchmarks.costs import callbacks
from tests.integrations.trainings import (
    FITS,
    SAMPLING,
    hooks,
    lightning_fit,
    points,
    steps_of,
    transformers_fit,
)
from tests.processes import completed

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("lightning", "accelerate")),
        reason="needs lightning, transformers and accelerate",
    ),
]
both = pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
LAYERS = {"lightning": ["body.1", "body.3", "body.5"], "transformers": "bert.encoder.layer.*"}
Fit = Callable[..., tuple[Any, Any]]


def callback_for(fit: Fit, layers: Any = None, **options: Any) -> Any:
    if fit is lightning_fit:
        from torchkoopman_lightning import KoopmanCallback

        return KoopmanCallback(layers or LAYERS["lightning"], **{**SAMPLING, **options})
    from torchkoopman_transformers import KoopmanTrainerCallback

    return KoopmanTrainerCallback(layers or LAYERS["transformers"], **{**SAMPLING, **options})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What trainings on one process and on two, and killed ones, have left."""
    folder = tmp_path_factory.mktemp("trainings")
    done = completed([sys.executable, "-m", "tests.integrations.trainings", folder])
    assert done.returncode == 0, done.stderr
    told: dict[str, list[dict[str, Any]]] = json.loads((folder / "found.json").read_text())
    for case, results in told.items():
        assert all("exit codes" not in each for each in results), (case, done.stderr)
    return told


EVERY = [*range(5, 41, 5)]


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("processes", [1, 2])
def test_after_an_exception_no_hook_is_left_and_a_resumed_training_has_the_same_log(
    found: dict[str, list[dict[str, Any]]], name: str, processes: int
) -> None:
    results = found[f"{name}, {processes} processes"]
    assert len(results) == processes
    for result in results:
        assert result == {"hooks": [0, 0, 0], "same": True, "steps": EVERY}


@pytest.mark.parametrize("name", FITS)
def test_a_killed_training_has_lost_no_point_and_goes_on_with_the_same_log(
    found: dict[str, list[dict[str, Any]]], name: str
) -> None:
    (result,) = found[f"{name}, killed"]
    assert result == {"died": -9, "same": True, "before": EVERY[:-2], "steps": EVERY}


@both
def test_accumulated_batches_are_all_read_and_steps_are_the_optimisers(
    fit: Fit, tmp_path: Path
) -> None:
    name = "accumulate_grad_batches" if fit is lightning_fit else "gradient_accumulation_steps"
    callback, model = fit(tmp_path, 20, **{name: 2})
    assert steps_of(points(tmp_path / "koopman")) == [5, 10, 15, 20]
    assert callback.monitor.sampled.endswith("20 passes until step 20"), "10 steps of 2 batches"
    assert hooks(model) == 0


@both
def test_under_mixed_precision_the_spectrum_is_that_of_the_states_in_single_precision(
    fit: Fit, tmp_path: Path
) -> None:
    half = {"precision": "bf16-mixed"} if fit is lightning_fit else {"bf16": True}
    found = []
    for folder, options in (("single", {}), ("half", half)):
        fitter = tk.DMDFitter(dynamics="span", halflife=500)
        fit(tmp_path / folder, 10, callback=callback_for(fit, fitter=fitter), **options)
        values = fitter.surrogate.spectrum().eigenvalues
        assert fitter.surrogate.operator.matrix(1.0).dtype == torch.float32
        found.append(values)
    distance = (found[0][:, None] - found[1]).abs()
    assert torch.maximum(distance.amin(0), distance.amin(1)).max() < 0.1
    assert not torch.equal(*found), "the trainings are two"


def test_activation_checkpointing_does_not_count_layers_twice(tmp_path: Path) -> None:
    callback, model = transformers_fit(tmp_path, 10, activation_checkpointing=True)
    assert callback.monitor.sampled.endswith("5 passes until step 10")
    assert steps_of(points(tmp_path / "koopman")) == [5, 10]
    assert hooks(model) == 0


def test_padding_is_left_out_by_the_models_attention_mask(tmp_path: Path) -> None:
    class Rows:
        """Counts what a fitter is given."""

        contextual, counted, all_of_them = False, 0, 0

        def update(self, trajectory: tk.Trajectory) -> None:
            self.counted += int(trajectory.counted().sum())
            self.all_of_them += trajectory.batch * trajectory.positions

        def reset(self) -> None: ...
        def load_state_dict(self, state: object) -> None: ...
        def state_dict(self) -> dict[str, Any]:
            return {}

        @property
        def surrogate(self) -> tk.Surrogate:
            raise ValueError("none here")

    rows = Rows()
    options = {"sample_every": 1, "log_every": 100, "rows": 100}
    callback = callback_for(transformers_fit, fitter=rows, **options)
    with pytest.raises(RuntimeWarning, match="nothing was logged"):
        transformers_fit(tmp_path, 8, callback=callback)
    assert rows.all_of_them == 8 * 8 * 12
    # 64 samples, an epoch of them: those of row k count 6 + k % 6 of 12 positions.
    assert rows.counted == sum(6 + row % 6 for row in range(64))


@both
def test_a_layer_that_does_not_exist_is_refused_at_the_start(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found no module matching 'nowhere'"):
        fit(tmp_path, callback=callback_for(fit, ["nowhere"]))
    assert not (tmp_path / "koopman").exists()


@both
def test_a_log_of_its_own_and_layers_of_another_kind_are_refused(fit: Fit) -> None:
    with pytest.raises(TypeError, match=r"Callback got log=\[\].*TrainingMonitor"):
        callback_for(fit, log=[])
    if fit is lightning_fit:
        with pytest.raises(TypeError, match="got the layers 3; give names or wildcards"):
            callback_for(fit, 3)


@both
def test_a_folder_that_cannot_be_written_to_is_refused_at_the_start(
    fit: Fit, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    callback = callback_for(fit, folder=tmp_path / "file" / "events")
    with pytest.raises(OSError, match=r"event files cannot be written into '.*file/events'"):
        fit(tmp_path, callback=callback)


def test_compiled_models_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Lightning did so for fit.*to_uncompiled"):
        lightning_fit(tmp_path / "lightning", compiled=True)
    with pytest.raises(ValueError, match=r"torch_compile=False"):
        transformers_fit(
            tmp_path / "transformers", torch_compile=True, torch_compile_backend="eager"
        )
    torch._dynamo.reset()


def test_data_parallel_is_refused_at_the_start(tmp_path: Path) -> None:
    def two_devices(trainer: Any) -> None:
        assert trainer.args.n_gpu <= 1
        trainer.args._n_gpu = 2

    with pytest.raises(ValueError, match=r"2 devices in one process.*torchrun --nproc"):
        transformers_fit(tmp_path, prepared=two_devices)


@both
def test_a_resumed_training_of_other_layers_is_told_at_the_start(fit: Fit, tmp_path: Path) -> None:
    fit(tmp_path, 10)
    other = ["body.3", "body.5"] if fit is lightning_fit else "bert.encoder.layer.[12]"
    error, said = ValueError, "the monitor's state is of the layers"
    if fit is lightning_fit:  # the state has another key, so the trainer finds none
        error, said = RuntimeWarning, "no state of a monitor of these layers"
        other = ["body.3", "body.5"]
    else:
        other = ["bert.encoder.layer.1", "bert.encoder.layer.2"]
    with pytest.raises(error, match=re.escape(said)):
        fit(tmp_path, 10, resume=True, callback=callback_for(fit, other))


def test_a_checkpoint_without_a_state_is_told_at_the_start(tmp_path: Path) -> None:
    transformers_fit(tmp_path, 10)
    (tmp_path / "checkpoint-5" / "koopman.safetensors").rename(tmp_path / "koopman.safetensors")
    with pytest.raises(RuntimeWarning, match="after step 5, but no state"):
        transformers_fit(tmp_path, 10, resume=True)
    before = points(tmp_path / "koopman")
    (tmp_path / "checkpoint-5").rename(tmp_path / "elsewhere")
    (tmp_path / "koopman.safetensors").rename(tmp_path / "elsewhere" / "koopman.safetensors")
    callback = callback_for(transformers_fit, resume_from=tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", tmp_path / "checkpoint-5")
    transformers_fit(tmp_path, 10, resume=True, callback=callback)
    assert repr(sorted(points(tmp_path / "koopman").items())) == repr(sorted(before.items()))


def test_training_again_from_the_start_does_not_need_an_end(tmp_path: Path) -> None:
    """As ``auto_find_batch_size`` does: the loop is entered again, and nobody said it had ended."""
    callback = callback_for(transformers_fit)
    transformers_fit(tmp_path / "whole", 20)
    _, first = transformers_fit(tmp_path / "again", 20, callback=Unclosed(callback), breaks=14)
    assert callback.monitor.attached, "broken off without a context"
    _, model = transformers_fit(tmp_path / "again", 20, callback=callback)
    assert hooks(first) == hooks(model) == 0
    whole, again = points(tmp_path / "whole/koopman"), points(tmp_path / "again/koopman")
    assert repr(sorted(whole.items())) == repr(sorted(again.items()))


class Unclosed:
    """A callback that is not used as a context."""

    def __init__(self, callback: Any) -> None:
        self._callback = callback

    def __getattr__(self, name: str) -> Any:
        return getattr(self._callback, name)

    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...


def test_two_callbacks_have_states_and_folders_of_their_own(tmp_path: Path) -> None:
    one, two = callback_for(lightning_fit), callback_for(lightning_fit, ["body.1", "body.3"])
    assert one.state_key != two.state_key
    assert one.state_key == "KoopmanCallback{'layers': ['body.1', 'body.3', 'body.5']}"
    with pytest.raises(TypeError, match="give names or wildcards"):
        callback_for(lightning_fit, [nn.Linear])
    callback = callback_for(transformers_fit, name="encoder")
    transformers_fit(tmp_path, 10, callback=callback)
    assert (tmp_path / "checkpoint-5" / "encoder.safetensors").is_file()
    assert steps_of(points(tmp_path / "encoder")) == [5, 10]


@both
def test_an_event_folder_brings_its_options(fit: Fit, tmp_path: Path) -> None:
    folder = EventFolder(tmp_path / "events", "span", pseudospectrum_every=2)
    fit(tmp_path, 20, callback=callback_for(fit, folder=folder))
    found = points(tmp_path / "events")
    assert [step for step, _ in found["koopman/span/trusted_modes"]] == [5, 10, 15, 20]
    (tag,) = (each for each in found if each.startswith("koopman/span/pseudospectrum."))
    assert [step for step, _ in found[tag]] == [10, 20]


def test_a_fast_dev_run_writes_nothing(tmp_path: Path) -> None:
    callback, module = lightning_fit(tmp_path, fast_dev_run=True)
    assert not (tmp_path / "koopman").exists()
    assert hooks(module) == 0
    assert callback.state_dict() == {}


def test_the_benchmark_of_what_it_costs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """A share of ``python -m benchmarks.costs.callbacks``; what it costs is not tested."""
    results = callbacks.main(["--quick", "--turns", "2"])
    assert len(results) == 2
    assert all(ratio > 0 for found in results.values() for ratio in found.values())
    assert capsys.readouterr().out.count("not for this size") == 2
    example = {"plain": 0.1, "not watched": 1.0, "watched": 3.0, "spectrum": 23.0}
    assert callbacks.amortised(example) == pytest.approx(1 + 2 / 20 + 20 / 200)
