"""Surrogates come back from their files as they were, but for the undo of edits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import torchkoopman as tk
from torchkoopman.datasets import yin_yang
from torchkoopman.koopman.feature_maps import ContextMean, RandomFeatures

FORMAT_1 = Path(__file__).parent / "format_1"
"""Files as torchkoopman wrote them before they had a number and a checksum."""


def fitted() -> tuple[tk.Surrogate, torch.Tensor]:
    data = yin_yang(600, 50).train
    end = torch.tanh(data.inputs @ torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    fitter = tk.EDMDFitter([RandomFeatures(20), ContextMean()], calibration=100)
    fitter.update(tk.Trajectory.of(data.inputs, end, labels=data.labels))
    return fitter.surrogate, data.inputs[:, None]


@pytest.mark.parametrize("name", ["dmd", "edmd", "float64", "autoencoder"])
def test_files_of_the_first_format_are_read_as_they_were(name: str) -> None:
    expected = json.loads((FORMAT_1 / "expected.json").read_text())
    surrogate = tk.Surrogate.load(FORMAT_1 / f"{name}.safetensors")
    states = torch.tensor(expected["states"][name], dtype=next(surrogate.parameters()).dtype)
    torch.testing.assert_close(
        surrogate(states[:, None])[:, 0].tolist(), expected[name], rtol=1e-5, atol=1e-6
    )
    assert surrogate.statistics is not None
    assert surrogate.spectrum().residuals is not None
    assert [edit.classes for edit in surrogate.edits] == ([(1,)] if name == "edmd" else [])


@pytest.mark.parametrize("name", ["dmd", "edmd", "float64", "autoencoder"])
def test_files_that_kept_what_is_unexplained_are_read_as_r2(name: str) -> None:
    path = FORMAT_1 / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        written = json.loads(file.metadata()["torchkoopman.surrogate"])["record"]
    record = tk.Surrogate.load(path).record
    assert written["fvu"], "the file was written before R² was"
    assert record.r2 == {layer: 1 - left for layer, left in written["fvu"].items()}
    for kind in ("held_out", "baselines"):
        assert getattr(record, kind) == {n: 1 - left for n, left in written[kind].items()}


def test_a_surrogate_read_from_its_file_predicts_the_same_bits(tmp_path: Path) -> None:
    surrogate, states = fitted()
    read = tk.Surrogate.load(surrogate.save(tmp_path / "deep" / "s.safetensors"))
    assert torch.equal(read(states), surrogate(states))
    assert read.record == surrogate.record
    assert read.record.r2["1"] > 0.5
    assert str(read.spectrum()) == str(surrogate.spectrum())


def test_a_surrogate_of_float64_states_is_read_in_float64(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    fitter = tk.EDMDFitter([RandomFeatures(20), tk.Monomials(2)], calibration=100)
    surrogate = fitter.update(tk.Trajectory.of(x, x.sin())).surrogate
    read = tk.Surrogate.load(surrogate.save(tmp_path / "s.safetensors"))
    assert torch.equal(read(x[:, None]), surrogate(x[:, None]))
    assert {p.dtype for p in read.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in read.parameters())


def test_a_surrogate_read_from_its_file_forgets_as_the_one_written(tmp_path: Path) -> None:
    surrogate, states = fitted()
    read = tk.Surrogate.load(surrogate.save(tmp_path / "s.safetensors"))
    expected, found = (tk.unlearn(each, [2])(states) for each in (surrogate, read))
    assert torch.equal(found, expected)


def test_a_file_keeps_the_edits_but_no_undo(tmp_path: Path) -> None:
    surrogate, states = fitted()
    edited = tk.unlearn(surrogate, [2], strength=0.5)
    read = tk.Surrogate.load(edited.save(tmp_path / "s.safetensors"))
    assert torch.equal(read(states), edited(states))
    assert [edit.card() for edit in read.edits] == [edit.card() for edit in edited.edits]
    with pytest.raises(ValueError, match="no undo"):
        tk.undo(read)
    with pytest.raises(ValueError, match=r"after \[2\] leaves no class"):
        tk.unlearn(read, [0, 1])


def test_files_that_hold_no_surrogate_are_refused(tmp_path: Path) -> None:
    surrogate, _ = fitted()
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        surrogate.save(tmp_path / "s.pt")
    with pytest.raises(FileNotFoundError, match="no file"):
        tk.Surrogate.load(tmp_path / "absent.safetensors")
    tk.export(torch.nn.Linear(2, 2), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="holds no surrogate"):
        tk.Surrogate.load(tmp_path / "model.safetensors")


def test_a_file_keeps_how_each_layer_was_read(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Conv1d(3, 3, 1))
    maps = torch.randn(60, 2, 4, generator=torch.Generator().manual_seed(0))
    layout = {"0": "b c t -> b t c", "1": "b c t -> b (t) c"}
    surrogate = tk.fit(model, [maps], "*", method="dmd", layout=layout, progress=False)
    read = tk.Surrogate.load(surrogate.save(tmp_path / "s.safetensors"))
    assert read.views == surrogate.views
    assert [view.layout.pattern for view in read.views.values()] == list(layout.values())
    with torch.no_grad():
        start = model[0](maps)
        assert torch.equal(read.replacement()(start), surrogate.replacement()(start))


def test_a_file_from_before_views_is_refused_with_the_cause_and_the_way_out(tmp_path: Path) -> None:
    path = fitted()[0].save(tmp_path / "old.safetensors")
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    config = json.loads(metadata["torchkoopman.surrogate"])
    config["span"]["layouts"] = config["span"].pop("views")
    save_file(load_file(path), path, {"torchkoopman.surrogate": json.dumps(config)})
    with pytest.raises(
        ValueError, match=r"old\.safetensors.*earlier version.*'layouts'.*Fit it again"
    ):
        tk.Surrogate.load(path)


def test_what_would_not_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred classes, with as little room as is else for many more; the old file stays."""
    x = torch.randn(600, 1, generator=torch.Generator().manual_seed(0))
    path = tk.Trajectory.of(x, 0.9 * x, labels=torch.arange(600) % 300)
    surrogate, place = tk.DMDFitter(dynamics="span").update(path).surrogate, tmp_path / "s"
    place = surrogate.with_(statistics=None).save(place.with_suffix(".safetensors"))
    before = place.read_bytes()
    monkeypatch.setattr("torchkoopman.storage.formats._ROOM", 2**19)
    with pytest.raises(ValueError, match=r"was not written.*with_\(statistics=None\)"):
        surrogate.save(place)
    assert place.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [place.name]
    monkeypatch.undo()
    found = tk.Surrogate.load(surrogate.save(place)).statistics
    assert found is not None
    assert found.classes == tuple(range(300))
