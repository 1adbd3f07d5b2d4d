"""What ``log`` writes, read back as TensorBoard reads it."""

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR
from tensorboard.context import RequestContext
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.tensorboard import SummaryWriter
from torchkoopman_panels import SCHEMA
from torchkoopman_panels.schema import SPECTRUM_COLUMNS
from torchkoopman_tensorboard import PLUGIN_NAME, log

import torchkoopman as tk
from tests.processes import completed
from tests.showing.test_series import audit, paths, topology
from tests.systems import normal
from torchkoopman.observe.trajectory import Trajectory
from torchkoopman.showing import series_of

ROOT = Path(__file__).parents[2]


def trajectory(rows: int = 300) -> Trajectory:
    x = normal(rows, 3)
    turn = torch.linalg.qr(normal(3, 3, seed=1))[0]
    states = [x, 0.9 * x @ turn, (x @ turn).sin()]
    # Names whose alphabetical order is not that of depth.
    return Trajectory({f"b.{k}": s[:, None] for k, s in zip((9, 10, 2), states, strict=True)})


def surrogate(**options: Any) -> tk.Surrogate:
    options = {"dynamics": "step", **options}
    return tk.DMDFitter(**options).update(trajectory()).surrogate


def written(folder: Path, *fits: tk.Surrogate, tag: str = "") -> Path:
    with SummaryWriter(str(folder)) as writer:
        for step, fit in enumerate(fits):
            log(writer, fit, 10 * step, tag)
    return folder


def accumulator(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    return events.Reload()


def provider(folder: Path) -> MultiplexerDataProvider:
    multiplexer = EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: 1000})
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    return MultiplexerDataProvider(multiplexer, str(folder))


def listed(folder: Path) -> dict[str, Any]:
    """Tag → metadata of the plugin's tensors, as a dashboard gets them."""
    runs = provider(folder).list_tensors(
        RequestContext(), experiment_id="", plugin_name=PLUGIN_NAME
    )
    (series,) = runs.values()
    return dict(series)


OF_TRUSTED = [
    "spectral_radius",
    "spectral_radius_per_step",
    "trusted_modes",
    "modes_outside",
    "largest_error",
]
OF_ALL = ["spectral_radius_all", "modes_outside_all"]
QUALITY = ["r2/b.10", "r2/b.2"]


def test_scalars_have_their_names_and_the_surrogates_values(tmp_path: Path) -> None:
    fit = surrogate(dynamics="step")
    events = accumulator(written(tmp_path, fit))
    names = [*OF_TRUSTED, *OF_ALL, "largest_residual", *QUALITY]
    assert set(events.Tags()["scalars"]) == {f"koopman/b.9-b.2/{name}" for name in names}

    def value(name: str) -> float:
        (event,) = events.Scalars(f"koopman/b.9-b.2/{name}")
        return event.value

    spectrum = fit.spectrum()
    trusted = spectrum.trusted()
    assert value("spectral_radius_all") == pytest.approx(spectrum.radius, rel=1e-6)
    assert value("modes_outside_all") == spectrum.outside()
    assert value("trusted_modes") == trusted.sum() > 0
    radius = spectrum.moduli[trusted].max().item()
    assert value("spectral_radius") == pytest.approx(radius, rel=1e-6)
    assert value("spectral_radius_per_step") == pytest.approx(radius**0.5, rel=1e-6)
    assert spectrum.errors is not None
    assert value("largest_error") == pytest.approx(spectrum.errors[trusted].max().item(), rel=1e-5)
    for layer, expected in fit.record.r2.items():
        assert value(f"r2/{layer}") == pytest.approx(expected, rel=1e-5)
    assert spectrum.residuals is not None
    assert spectrum.energies is not None
    carried = spectrum.residuals[spectrum.energies >= 1e-3]
    assert value("largest_residual") == pytest.approx(carried.max().item(), rel=1e-5)


def test_the_radius_is_that_of_trusted_modes_where_a_spurious_one_is_larger(tmp_path: Path) -> None:
    """A latent coordinate whose eigenvalue is 43 in the matrix and 0 in the data."""
    fit = tk.DMDFitter(dynamics="span", frames="shared").update(trajectory(2000)).surrogate
    K = fit.operator.matrix(1.0).clone()
    K[1:] = 0
    K[1, 1] = 43
    fit.operator.start_from(K)
    fit = fit.with_(evidence=None)  # its closures take K for the regression, which it is no longer
    events = accumulator(written(tmp_path, fit))

    def value(name: str) -> float:
        (event,) = events.Scalars(f"koopman/b.9-b.2/{name}")
        return event.value

    assert value("spectral_radius_all") == pytest.approx(43, rel=1e-3)
    assert value("modes_outside_all") == 1
    assert value("spectral_radius") == pytest.approx(1, rel=1e-3), "the constant's"
    assert value("modes_outside") == 0


def test_without_data_nothing_is_claimed_of_trusted_modes(tmp_path: Path) -> None:
    fit = surrogate().with_(statistics=None)
    names = accumulator(written(tmp_path, fit)).Tags()["scalars"]
    assert f"koopman/b.9-b.2/{OF_ALL[0]}" in names
    assert not any(f"koopman/b.9-b.2/{name}" in names for name in OF_TRUSTED)


def test_losses_of_the_autoencoder_are_scalars(tmp_path: Path) -> None:
    fitter = tk.AutoencoderFitter(5, hidden=(6,), calibration=100, steps_per_update=2)
    fit = fitter.update(trajectory()).surrogate
    events = accumulator(written(tmp_path, fit))
    for term, loss in fit.record.losses.items():
        (event,) = events.Scalars(f"koopman/b.9-b.2/loss/{term}")
        assert event.value == pytest.approx(loss, rel=1e-5)


def test_the_tab_finds_series_with_a_data_class_and_what_they_say_of_themselves(
    tmp_path: Path,
) -> None:
    folder = written(tmp_path, surrogate())
    events, named = accumulator(folder), {}
    for tag, series in listed(folder).items():
        metadata = events.SummaryMetadata(tag)
        assert metadata.data_class == DATA_CLASS_TENSOR
        assert metadata.plugin_data.plugin_name == "koopman"
        told = json.loads(series.plugin_content)
        digest = hashlib.sha256(series.plugin_content).hexdigest()[:6]
        assert tag == f"koopman/b.9-b.2/{told['name']}.v{SCHEMA}.{digest}"
        assert (told["schema"], told["span"]) == (SCHEMA, "b.9-b.2")
        named[told["name"]] = told["about"]
    depth = ["b.9", "b.10", "b.2"]
    assert named == {
        "spectrum": {"layers": depth, "times": [0.0, 0.5, 1.0], "steps": 2, "frames": "shared"},
        "singular_values": {},
        "r2": {"layers": depth[1:]},
    }


def test_other_layers_under_the_same_name_are_another_series(tmp_path: Path) -> None:
    """TensorBoard reads what a series says of itself from its first event only."""
    names = dict(zip(("b.9", "b.10", "b.2"), ("c.1", "c.2", "c.3"), strict=True))
    folder = written(tmp_path, surrogate(), surrogate().renamed(names), tag="encoder")
    told = [json.loads(series.plugin_content) for series in listed(folder).values()]
    layers = [each["about"]["layers"] for each in told if each["name"] == "spectrum"]
    assert sorted(layers) == [["b.9", "b.10", "b.2"], ["c.1", "c.2", "c.3"]]
    assert len([each for each in told if each["name"] == "singular_values"]) == 1


def test_a_step_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    fit, broken = surrogate(), surrogate()
    with SummaryWriter(str(tmp_path)) as writer:
        broken.operator.start_from(torch.full((4, 4), math.nan))
        with pytest.raises(ValueError, match="16 of 16 entries that are not finite"):
            log(writer, broken, 10)
        with pytest.raises(TypeError, match="a dict has no series of its own"):
            log(writer, {}, 20)  # type: ignore[arg-type]
        for step in (1.5, True, "3", None):
            with pytest.raises(TypeError, match="log\\(\\) got step="):
                log(writer, fit, step)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got a str to write with"):
        log(str(tmp_path), fit, 0)  # type: ignore[arg-type]
    events = accumulator(tmp_path).Tags()
    assert events["scalars"] == events["tensors"] == []


def test_a_step_is_one_event(tmp_path: Path) -> None:
    written(tmp_path, surrogate())
    (file,) = tmp_path.glob("events.*")
    assert len([event for event in EventFileLoader(str(file)).Load() if event.summary.value]) == 1


def test_a_pseudospectrum_is_logged_where_it_is_asked_for(tmp_path: Path) -> None:
    fit = surrogate()
    with SummaryWriter(str(tmp_path)) as writer:
        log(writer, fit, 0)
        log(writer, fit, 10, pseudospectrum=True)
    (found,) = read(tmp_path, "pseudospectrum")
    expected = fit.pseudospectrum()
    np.testing.assert_allclose(found[1:, 1:], expected.residuals.numpy(), rtol=1e-5)


def read(folder: Path, name: str, tag: str = "b.9-b.2") -> list[np.ndarray[Any, Any]]:
    (found,) = (each for each in listed(folder) if each.startswith(f"koopman/{tag}/{name}.v"))
    return [make_ndarray(event.tensor_proto) for event in accumulator(folder).Tensors(found)]


def test_the_spectrum_tensor_holds_eigenvalues_residuals_and_energies(tmp_path: Path) -> None:
    fit = surrogate()
    (found,) = read(written(tmp_path, fit), "spectrum")
    spectrum = fit.spectrum()
    assert found.shape == (fit.latent, 8)
    assert found.dtype == np.float32
    first, rest = SPECTRUM_COLUMNS[:4], SPECTRUM_COLUMNS[4:]
    assert first == ("real", "imaginary", "residual", "energy")
    assert rest == ("error", "closure", "trusted", "condition")
    columns = [
        spectrum.eigenvalues.real,
        spectrum.eigenvalues.imag,
        spectrum.residuals,
        spectrum.energies,
        spectrum.errors,
        spectrum.closures,
        spectrum.trusted(),
        spectrum.conditions,
    ]
    for column, expected in enumerate(columns):
        assert expected is not None
        np.testing.assert_allclose(found[:, column], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_the_singular_values_are_those_of_the_operator_over_the_span(tmp_path: Path) -> None:
    fit = surrogate()
    (found,) = read(written(tmp_path, fit), "singular_values")
    expected = torch.linalg.svdvals(fit.operator.matrix(1.0).double())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_r2_is_in_order_of_depth_and_nan_where_unknown(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path / "step", surrogate(dynamics="step")), "r2")
    fit = surrogate(dynamics="step")
    np.testing.assert_allclose(found, [fit.record.r2["b.10"], fit.record.r2["b.2"]], rtol=1e-5)
    span = surrogate(dynamics="span")
    (found,) = read(written(tmp_path / "span", span), "r2")
    assert found.shape == (2,)
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(span.record.r2["b.2"], rel=1e-5)
    names = accumulator(tmp_path / "span").Tags()["scalars"]
    assert not any(name.endswith("r2/b.10") for name in names), "no scalar of what is unknown"


RESULTS = {
    "a surrogate": lambda: surrogate(),
    "a topology": topology,
    "an audit with what is unknown or infinite": audit,
    "paths with what is not predicted": paths,
}


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
def test_every_result_is_read_back_as_it_is_shown(make: Any, tmp_path: Path) -> None:
    result = make()
    shown = series_of(result)
    with SummaryWriter(str(tmp_path)) as writer:
        log(writer, result, 7)
    events = accumulator(tmp_path)
    for name, value in shown.scalars.items():
        (event,) = events.Scalars(f"koopman/{shown.span}/{name}")
        np.testing.assert_allclose(event.value, value, rtol=1e-6)
    assert len(events.Tags()["scalars"]) == len(shown.scalars)
    for series in shown.series:
        (found,) = read(tmp_path, series.name, shown.span)
        np.testing.assert_allclose(found, series.values, rtol=1e-6)
    assert len(listed(tmp_path)) == len(shown.series)


def test_what_single_precision_cannot_hold_is_infinite(tmp_path: Path) -> None:
    fit = surrogate().with_(statistics=None, evidence=None)
    fit.operator.double().start_from(1e60 * torch.eye(4, dtype=torch.float64))
    (found,) = read(written(tmp_path, fit), "spectrum")
    assert np.isposinf(found[:, 0]).tolist() == [True] * 3 + [False], "but for the constant"


def test_several_steps_are_one_curve(tmp_path: Path) -> None:
    fits = [surrogate(ridge=ridge) for ridge in (1e-9, 0.1, 1.0)]
    folder = written(tmp_path, *fits)
    events = accumulator(folder).Scalars("koopman/b.9-b.2/spectral_radius_all")
    assert [event.step for event in events] == [0, 10, 20]
    assert [event.value for event in events] == pytest.approx(
        [fit.spectrum().radius for fit in fits], rel=1e-6
    )
    for fit, found in zip(fits, read(folder, "spectrum"), strict=True):
        np.testing.assert_allclose(found[:, 0], fit.spectrum().eigenvalues.real, atol=1e-6)


def test_a_tag_names_the_span(tmp_path: Path) -> None:
    folder = written(tmp_path, surrogate(), tag="encoder")
    assert all(tag.startswith("koopman/encoder/") for tag in listed(folder))
    (r2,) = read(folder, "r2", "encoder")
    assert r2.shape == (2,)


def test_a_surrogate_without_statistics_is_logged_with_unknown_residuals(tmp_path: Path) -> None:
    fit = surrogate().with_(statistics=None)
    (found,) = read(written(tmp_path, fit), "spectrum")
    assert np.isnan(found[:, 2:]).all()
    assert np.isfinite(found[:, :2]).all()


def test_the_package_imports_where_torch_and_torchkoopman_cannot() -> None:
    """TensorBoard's process loads it; torch there costs 170 MB and two seconds."""
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['torchkoopman'] = None\n"
        "import torchkoopman_tensorboard\n"
        "assert torchkoopman_tensorboard.PLUGIN_NAME == 'koopman'\n"
    )
    run = completed([sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT / "integrations")})
    assert run.returncode == 0, run.stderr
