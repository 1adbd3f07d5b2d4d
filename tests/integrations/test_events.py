"""A folder of event files shows one training, as TensorBoard reads it, however often it resumed."""

import signal
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.data.provider import RunTagFilter
from tensorboard.util.tensor_util import make_ndarray
from torchkoopman_tensorboard import PLUGIN_NAME, EventFolder

import torchkoopman as tk
from tests.processes import completed
from torchkoopman.spectra.tracking import ModeTracker

LAYERS = ("a", "b", "c")


def surrogate(seed: int = 0) -> tk.Surrogate:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(300, 3, generator=generator)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0]
    turn = (0.9 + 0.01 * seed) * turn
    states = [x, x @ turn, x @ turn @ turn]
    named = {layer: state[:, None] for layer, state in zip(LAYERS, states, strict=True)}
    return tk.DMDFitter(dynamics="span").update(tk.Trajectory(named)).surrogate


def steps(folder: Path) -> dict[str, list[int]]:
    """Tag → steps of its points, scalars and tensors of every plugin, as a dashboard gets them."""
    sizes = dict.fromkeys((PLUGIN_NAME, "scalars", "text"), 1000)
    multiplexer = EventMultiplexer(tensor_size_guidance=sizes)
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    found = {}
    for plugin, kind in ((PLUGIN_NAME, "tensors"), ("text", "tensors"), ("scalars", "scalars")):
        told = {"experiment_id": "", "plugin_name": plugin}
        read = getattr(provider, f"read_{kind}")
        every = RunTagFilter()
        for series in read(
            RequestContext(), downsample=1000, run_tag_filter=every, **told
        ).values():
            found |= {tag: [point.step for point in points] for tag, points in series.items()}
    return found


def test_points_of_steps_that_come_again_are_hidden(tmp_path: Path) -> None:
    folder = EventFolder(tmp_path)
    folder.open(0)
    for step in (10, 20, 30):
        folder(surrogate(), step)
    folder.close()
    folder.open(20)
    for step in (30, 40):
        folder(surrogate(), step)
    folder.close()
    found = steps(tmp_path)
    assert "koopman/a-c/spectral_radius_all" in found
    assert of_series(tmp_path, "spectrum") == [10, 20, 30, 40], "one series, resumed or not"
    assert set(map(tuple, found.values())) == {(10, 20, 30, 40)}
    with_it = EventFolder(tmp_path).open(0)
    with_it(surrogate(), 10)
    with_it.close()
    assert set(map(tuple, steps(tmp_path).values())) == {(10,)}, "another training begins"


def test_tracks_are_the_columns_of_follow(tmp_path: Path) -> None:
    folder, tracker, spectra = EventFolder(tmp_path).open(0), ModeTracker(), []
    for step in (1, 2, 3):
        fit = surrogate(step)
        spectra.append(fit.spectrum())
        folder(fit, step, tracker.add(spectra[-1], step).tracks())
    folder.close()
    events = EventAccumulator(str(tmp_path), {"scalars": 0, "tensors": 0}).Reload()
    expected = tk.follow(spectra, [1, 2, 3])
    assert expected.indices.shape[1] > 1
    for column in range(expected.indices.shape[1]):
        points = events.Scalars(f"koopman/a-c/track/{column}/modulus")
        moduli = expected.eigenvalues[:, column].abs().tolist()
        assert [point.value for point in points] == pytest.approx(moduli, rel=1e-6)
    drift = [point.value for point in events.Scalars("koopman/a-c/drift")]
    assert drift == pytest.approx(expected.drift.tolist(), rel=1e-5)
    (series,) = (tag for tag in steps(tmp_path) if tag.startswith("koopman/a-c/tracks.v"))
    for row, event in enumerate(events.Tensors(series)):
        columns = make_ndarray(event.tensor_proto)
        for column, index in enumerate(expected.indices[row].tolist()):
            assert columns[index] == column
        assert torch.from_numpy(columns).isnan().sum() == len(columns) - expected.indices.shape[1]


def of_series(folder: Path, name: str) -> list[int]:
    (found,) = (each for tag, each in steps(folder).items() if f"/{name}.v" in tag)
    return found


def test_pseudospectra_come_once_in_so_many_spectra_resumed_or_not(tmp_path: Path) -> None:
    tracker = ModeTracker()
    for start, ends in ((0, (10, 20, 30)), (30, (40, 50, 60))):
        folder = EventFolder(tmp_path / "tracked", pseudospectrum_every=2).open(start)
        for step in ends:
            fit = surrogate()
            folder(fit, step, tracker.add(fit.spectrum(), step).tracks())
        folder.close()
    assert of_series(tmp_path / "tracked", "pseudospectrum") == [20, 40, 60]
    alone = EventFolder(tmp_path / "alone", pseudospectrum_every=3).open(0)
    for step in range(4):
        alone(surrogate(), step)
    alone.close()
    assert of_series(tmp_path / "alone", "pseudospectrum") == [2]
    with pytest.raises(ValueError, match="pseudospectrum_every=-1; give 1 or more"):
        EventFolder(tmp_path, pseudospectrum_every=-1)


def test_files_are_named_in_the_order_in_which_they_begin(tmp_path: Path) -> None:
    """TensorBoard reads them by name, and names of one second end with a process and a counter."""
    known: list[str] = []
    for _ in range(3):
        EventFolder(tmp_path).open(0).close()
        (new,) = {path.name for path in tmp_path.iterdir()} - set(known)
        known.append(new)
    assert known == sorted(known)
    assert len({name.split(".")[3] for name in known}) == 3, "each begins in a second of its own"


def test_two_at_once_in_one_folder_are_refused(tmp_path: Path) -> None:
    first = EventFolder(tmp_path).open(0)
    with pytest.raises(RuntimeError, match=r"another training.*folder of its own"):
        EventFolder(tmp_path).open(0)
    first.open(0).close()
    first.close()
    EventFolder(tmp_path).open(0).close()


def test_a_folder_is_the_same_by_another_name_and_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "other").symlink_to("runs")
    monkeypatch.chdir(tmp_path)
    folder = EventFolder("runs").open(0)
    with pytest.raises(RuntimeError, match="another training"):
        EventFolder("other").open(0)
    monkeypatch.chdir(tmp_path / "inside")
    folder(surrogate(), 10)
    folder.close()
    monkeypatch.chdir(tmp_path)
    EventFolder("runs").open(10).close()
    assert set(map(tuple, steps(tmp_path / "runs").values())) == {(10,)}
    assert not any((tmp_path / "inside").iterdir())


def test_a_folder_that_cannot_be_written_to_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match=r"event files cannot be written into .*file/runs"):
        EventFolder(tmp_path / "file" / "runs").open(0)
    with pytest.raises(RuntimeError, match="is not open"):
        EventFolder(tmp_path)(surrogate(), 1)


def test_what_was_logged_is_on_the_disk_when_the_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.integrations.test_events import EventFolder, surrogate\n"
        "EventFolder(Path(sys.argv[1])).open(0)(surrogate(), 10)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = completed([sys.executable, "-c", code, tmp_path])
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert set(map(tuple, steps(tmp_path).values())) == {(10,)}
