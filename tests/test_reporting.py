"""``tk.report``: a page holds all results under their names, or there is a refusal and no file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import torchkoopman as tk
from tests.panels.test_page import block_of, index_of
from tests.systems import normal
from torchkoopman.showing import series_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchkoopman.results import Inspection


def fitted(layers: tuple[str, ...] = ("a", "b", "c"), seed: int = 0) -> tk.Surrogate:
    states, turn = [normal(200, 3, seed=seed)], torch.linalg.qr(normal(3, 3, seed=seed + 1))[0]
    for _ in layers[1:]:
        states.append(0.9 * states[-1] @ turn)
    named = {layer: state[:, None] for layer, state in zip(layers, states, strict=True)}
    return tk.DMDFitter().update(tk.Trajectory(named)).surrogate


class Dead(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0 * super().forward(x)


def network(*, dead: bool = False) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = [m for _ in range(4) for m in (nn.Linear(3, 3), nn.Tanh())]
        if dead:
            blocks[4] = Dead(3, 3)
        return nn.ModuleDict({"blocks": nn.Sequential(*blocks)})["blocks"]


def inspected(layers: Any = None, **options: Any) -> Inspection:
    batches = [normal(60, 3, seed=k) for k in range(4)]
    return tk.inspect(network(**options), batches, layers, points=20, progress=False)


@pytest.fixture
def page(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], dict[Any, Any]]]:
    """Write a report and read it: its index, and (run, span, name) → step → values."""

    def written(results: Any, **options: Any) -> tuple[dict[str, Any], dict[Any, Any]]:
        text = tk.report(tmp_path / "r.html", results, **options).read_text("utf-8")
        index, found = index_of(text), dict[Any, Any]()
        for entry in index["series"]:
            header, values = block_of(text, entry["key"])
            place = found.setdefault((entry["run"], entry["span"], entry["name"]), {})
            assert not place.keys() & set(header["steps"])
            place.update(zip(header["steps"], values, strict=True))
        return index, found

    return written


def test_a_surrogate_is_written_as_what_it_shows(page: Any) -> None:
    surrogate = fitted()
    index, found = page(surrogate)
    assert index["title"] == "r"
    assert index["axis"] == "step"
    for series in series_of(surrogate).series:
        np.testing.assert_allclose(
            found["results", "a-c", series.name][0], series.values, rtol=4e-3, atol=1e-6
        )


def test_runs_and_steps_have_their_places(page: Any) -> None:
    first, second, third = (fitted(seed=seed) for seed in range(3))
    index, found = page({"one": {0: first, 10: [second]}, "two": third}, title="Both")
    assert index["title"] == "Both"
    assert list(found["one", "a-c", "spectrum"]) == [0, 10]
    assert list(found["two", "a-c", "spectrum"]) == [0]
    for values, surrogate in (
        (found["one", "a-c", "spectrum"][0], first),
        (found["one", "a-c", "spectrum"][10], second),
        (found["two", "a-c", "spectrum"][0], third),
    ):
        eigenvalues = surrogate.spectrum().eigenvalues.numpy()
        np.testing.assert_allclose(values[:, 0], eigenvalues.real, rtol=1e-3, atol=1e-6)


def test_results_of_one_span_do_not_replace_each_other(page: Any) -> None:
    both = [fitted(seed=0), fitted(seed=5)]
    _, found = page(both)
    for span, surrogate in zip(("a-c", "a-c (2)"), both, strict=True):
        eigenvalues = surrogate.spectrum().eigenvalues.numpy()
        values = found["results", span, "spectrum"][0]
        np.testing.assert_allclose(values[:, 0], eigenvalues.real, rtol=1e-3, atol=1e-6)


def test_other_results_are_tables_in_every_span_of_their_run(page: Any) -> None:
    spectrum = fitted().spectrum()
    index, _ = page({"a": [fitted(), fitted(("x", "y")), spectrum], "b": spectrum})
    tables = [entry for entry in index["series"] if entry["name"].startswith("table:")]
    assert [(each["run"], each["span"]) for each in tables] == [
        ("a", "a-c"),
        ("a", "x-y"),
        ("b", "tables"),
    ]
    table = spectrum.table()
    assert tables[0]["about"]["title"] == "Spectrum"
    assert tables[0]["about"]["rows"] == [list(row) for row in table.rows]
    assert tables[0]["about"]["above"] == list(table.above)


def test_tables_of_several_steps_are_told_apart(page: Any) -> None:
    index, _ = page({"a": {step: fitted(seed=step).spectrum() for step in (0, 7)}})
    titles = [entry["about"]["title"] for entry in index["series"]]
    assert titles == ["Spectrum at step 0", "Spectrum at step 7"]


def test_notes_are_those_of_the_latest_step(page: Any) -> None:
    surrogate = fitted()
    noted = [
        surrogate.with_(record=replace(surrogate.record, notes=(text,)))
        for text in ("first", "second")
    ]
    index, _ = page({"a": dict(enumerate(noted))})
    (notes,) = [entry for entry in index["series"] if entry["name"] == "notes"]
    assert notes["about"]["notes"] == ["second"]


def test_blocks_are_the_steps_of_an_inspection(page: Any) -> None:
    inspection = inspected()
    index, found = page(inspection, title="Net")
    assert index["axis"] == "layer"
    assert index["labels"] == {"1": "1 → 3", "2": "3 → 5", "3": "5 → 7", "0": "whole span"}
    spectra, r2 = (found["results", "blocks", name] for name in ("spectrum", "r2"))
    assert list(spectra) == list(r2) == [1, 2, 3]
    for step, block in enumerate(inspection.blocks, start=1):
        eigenvalues = block.spectrum.eigenvalues.numpy()
        np.testing.assert_allclose(spectra[step][:, 0], eigenvalues.real, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(r2[step], [block.skip, block.r2], rtol=1e-6)
    whole = found["results", "whole span, 1 → 7", "r2"][0]
    held_out = inspection.surrogate.record.held_out
    np.testing.assert_allclose(
        whole, [held_out.get(layer, np.nan) for layer in ("3", "5", "7")], rtol=1e-6
    )
    shape = found["results", "blocks", "components"][1]
    assert shape[1:, 0].tolist() == inspection.topology.network
    titles = [e["about"]["title"] for e in index["series"] if e["name"].startswith("table:")]
    assert titles == ["Blocks", "Spans worth replacing"]


def test_each_series_of_the_blocks_is_one_so_that_a_slider_goes_over_them(page: Any) -> None:
    index, _ = page(inspected())
    names = [entry["name"] for entry in index["series"] if entry["span"] == "blocks"]
    assert len(names) == len(set(names))


def test_a_block_without_a_spectrum_shows_none_and_not_the_one_before(page: Any) -> None:
    inspection = inspected(["1", "3", "4", "5"], dead=True)
    assert [block.spectrum is None for block in inspection.blocks] == [False, True, True]
    index, found = page(inspection)
    spectra = found["results", "blocks", "spectrum"]
    assert np.isfinite(spectra[1][:, 0]).all()
    assert np.isnan(spectra[2]).all()
    skipped = next(e for e in index["series"] if e["name"].startswith("table:3"))
    assert [row[1] for row in skipped["about"]["rows"]] == [each.why for each in inspection.skipped]


def test_inspections_stand_beside_each_other_as_runs(page: Any) -> None:
    index, found = page({"first": inspected(), "second": inspected(["1", "5", "7"])})
    assert list(found["first", "blocks", "spectrum"]) == [1, 2, 3]
    assert list(found["second", "blocks", "spectrum"]) == [1, 2]
    assert index["labels"]["1"] == "1 → 3 / 1 → 5"


def test_an_inspection_writes_its_own_page(tmp_path: Path) -> None:
    path = inspected().report(tmp_path / "net.html")
    assert path == tmp_path / "net.html"
    assert index_of(path.read_text("utf-8"))["title"] == "Sequential"


@pytest.mark.parametrize(
    ("results", "error", "words"),
    [
        ([], ValueError, "a run or a step has none"),
        ({}, ValueError, "a run or a step has none"),
        ({"a": []}, ValueError, "a run or a step has none"),
        ({"a": {}}, ValueError, "a run or a step has none"),
        ({"a": {3: []}}, ValueError, "a run or a step has none"),
        (None, TypeError, "a NoneType, which is no result"),
        ("spectrum", TypeError, "a str, which is no result"),
        ({"a": [torch.ones(3)]}, TypeError, "a Tensor, which is no result"),
        ({3: []}, TypeError, "got the run 3"),
        ({"a": {"last": None}}, ValueError, "got the step 'last' in run 'a'"),
        ({"a": {True: None}}, ValueError, "got the step True"),
        ({"a": {float("nan"): None}}, ValueError, "got the step nan"),
    ],
)
def test_what_is_no_result_is_refused_and_nothing_written(
    results: Any, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        tk.report(tmp_path / "r.html", results)
    assert list(tmp_path.iterdir()) == []


def test_steps_of_a_training_and_of_an_inspection_are_no_one_slider(tmp_path: Path) -> None:
    results = {"a": {0: fitted(), 1: fitted()}, "b": inspected()}
    with pytest.raises(ValueError, match="one slider cannot be both"):
        tk.report(tmp_path / "r.html", results)


@pytest.mark.parametrize("name", ["r.pdf", "r", "html"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end it in '\.html'"):
        tk.report(tmp_path / name, fitted())


def test_a_path_that_cannot_be_written_to_is_refused_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    surrogate, path = fitted(), tmp_path / "r.html"
    with pytest.raises(OSError, match="cannot be written to"):
        tk.report(tmp_path / "nowhere" / "r.html", surrogate)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OSError, match="cannot be written to"):
        tk.report(tmp_path / "folder.html", surrogate)
    path.write_text("before")

    def full(self: Path, text: str, encoding: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        tk.report(path, surrogate)
    assert path.read_text() == "before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder.html", "r.html"]


def test_an_operator_that_is_not_finite_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    broken = fitted()
    with torch.no_grad():
        broken.operator.rows[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        tk.report(tmp_path / "r.html", broken)
    assert list(tmp_path.iterdir()) == []
