"""Weights come back in the precision they were written in, into what they were written of."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchkoopman as tk
from torchkoopman.shipping import files

FORMAT_1 = Path(__file__).parents[1] / "koopman" / "format_1"


def network(activation: Any = nn.Tanh, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(3, 4), activation(), nn.Linear(4, 4), activation(), nn.Linear(4, 3)
        return nn.Sequential(*layers).to(dtype).eval()


def rows(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).to(dtype)


def surrogate(model: nn.Module, layers: Any = ("0", "1", "3"), **options: Any) -> tk.Surrogate:
    x = rows(next(model.parameters()).dtype)
    batches = [(part, torch.arange(50) % 2) for part in x.split(50)]
    return tk.fit(model, batches, list(layers), progress=False, **options)


METHODS: dict[str, dict[str, Any]] = {
    "dmd": {"method": "dmd"},
    "edmd": {"method": "edmd", "observables": [tk.RandomFeatures(6), tk.Monomials(2)]},
    "autoencoder": {"latent": 6, "hidden": (5,), "steps": 40},
}


@pytest.mark.parametrize("how", ["fx", "export", "eager"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_what_is_read_computes_the_same_bits_in_the_files_precision(
    method: str, how: str, given: torch.dtype, tmp_path: Path
) -> None:
    double = network(dtype=torch.float64)
    fitted = surrogate(double, **METHODS[method])
    x = rows(torch.float64)[:7]
    edited = tk.swap(double, fitted, "0", "3", how, x)
    path = tk.export(edited, tmp_path / "m.safetensors")
    read = tk.load(network(dtype=given), path, x.to(given))
    assert torch.equal(read(x), edited(x))
    assert {p.dtype for p in read.state_dict().values()} == {torch.float64}


def test_a_file_changed_or_cut_after_reading_changes_nothing(tmp_path: Path) -> None:
    fitted = surrogate(network(), method="dmd")
    edited = tk.swap(network(), fitted)
    weights = tk.export(edited, tmp_path / "weights.safetensors")
    own = fitted.save(tmp_path / "surrogate.safetensors")
    read, again = tk.load(network(), weights), tk.Surrogate.load(own)
    table, expected = str(again.spectrum()), read(rows())
    for path in (weights, own):
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
            file.truncate(10)
    assert torch.equal(read(rows()), expected)
    assert str(again.spectrum()) == table


@pytest.mark.parametrize("swapped", [False, True])
def test_weights_of_a_tanh_network_do_not_go_into_a_relu_network(
    swapped: bool, tmp_path: Path
) -> None:
    model = network()
    if swapped:
        model = tk.swap(model, surrogate(model, ("0", "1"), method="dmd"))
    path = tk.export(model, tmp_path / "m.safetensors")
    with pytest.raises(tk.FileError, match=r"'3' was Tanh\(\) and is ReLU\(\) here"):
        tk.load(network(nn.ReLU), path)
    assert torch.equal(tk.load(network(), path)(rows()), model(rows()))


class Called(nn.Module):
    """Its activation is in the forward, and in no module."""

    def __init__(self, activation: Any) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(torch.tanh(self.a(x)))
        return self.c(self.activation(h))


def test_what_a_forward_calls_is_compared_in_a_graph(tmp_path: Path) -> None:
    model = Called(torch.tanh).eval()
    edited = tk.swap(model, nn.Linear(4, 4), "a", "b", "fx")
    recorded = files.layers_of(edited)
    assert recorded["calls"] == ["tanh"]
    other = tk.swap(Called(torch.relu).eval(), nn.Linear(4, 4), "a", "b", "fx")
    with pytest.raises(tk.FileError, match="the model called tanh and calls relu here"):
        files.check_layers(tmp_path, recorded, other)
    files.check_layers(tmp_path, {**recorded, "torch": "another"}, other)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (nn.Dropout(0.5), nn.Dropout(0.1)),
        (nn.ReLU(), nn.ReLU(inplace=True)),
        (nn.LeakyReLU(0.1, inplace=True), nn.LeakyReLU(0.1)),
    ],
)
def test_settings_that_leave_outputs_alone_may_differ(
    written: nn.Module, read: nn.Module, tmp_path: Path
) -> None:
    path = tk.export(nn.Sequential(nn.Linear(3, 3), written).eval(), tmp_path / "m.safetensors")
    tk.load(nn.Sequential(nn.Linear(3, 3), read).eval(), path)


def test_settings_that_change_outputs_may_not(tmp_path: Path) -> None:
    path = tk.export(nn.Sequential(nn.LayerNorm(3, eps=1e-3)), tmp_path / "m.safetensors")
    with pytest.raises(tk.FileError, match=r"eps=0\.001.* and is .*eps=1e-05"):
        tk.load(nn.Sequential(nn.LayerNorm(3)), path)


def test_settings_by_another_torch_are_refused_and_the_error_names_both(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LayerNorm(3))
    recorded = {"modules": {"0": "LayerNorm(3)"}, "calls": [], "torch": "2.12"}
    with pytest.raises(tk.FileError, match=rf"torch 2\.12 and {re.escape(torch.__version__)} "):
        files.check_layers(tmp_path, recorded, model)
    recorded["torch"] = str(torch.__version__)
    with pytest.raises(tk.FileError, match=r"was written with\.$"):
        files.check_layers(tmp_path, recorded, model)


def test_a_model_that_cannot_be_swapped_as_recorded_is_another_than_the_files(
    tmp_path: Path,
) -> None:
    edited = tk.swap(network(), surrogate(network(), method="dmd"))
    path = tk.export(edited, tmp_path / "m.safetensors")
    wrapped = nn.Sequential(network())
    expected = r"m\.safetensors' records a swap.*no layer '\d'; nearest.*Give load\(\)"
    with pytest.raises(tk.FileError, match=expected) as caught:
        tk.load(wrapped, path)
    assert isinstance(caught.value, RuntimeError)


def test_tied_tensors_stay_tied_in_another_precision(tmp_path: Path) -> None:
    def tied(dtype: torch.dtype) -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).to(dtype)
        model[1].weight = model[0].weight
        return model

    model = tied(torch.float64)
    read = tk.load(tied(torch.float32), tk.export(model, tmp_path / "m.safetensors"))
    assert read[0].weight is read[1].weight
    assert torch.equal(read[1].weight, model[0].weight)


class WithParts(nn.Module):
    """Buffers that are parts of a parameter's and of a buffer's memory, or have their own."""

    def __init__(self, shared: bool = True) -> None:
        super().__init__()
        self.full = nn.Linear(4, 4)
        self.register_buffer("base", torch.randn(4, 4))
        for name, tensor in (("some", self.full.weight.detach()), ("few", self.base)):
            part = tensor[1:3]  # type: ignore[index]
            self.register_buffer(name, part if shared else part.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.full(x) + self.some.sum() + self.few.sum()  # type: ignore[operator]
        return out


def test_a_buffer_that_is_a_part_of_another_tensor_is_written_and_read(tmp_path: Path) -> None:
    model, path = WithParts(), tmp_path / "m.safetensors"
    for into in (WithParts(), WithParts(shared=False)):
        read = tk.load(into, tk.export(model, path))
        for name, tensor in model.state_dict().items():
            assert torch.equal(read.state_dict()[name], tensor), name
    apart = WithParts(shared=False)
    apart.base.add_(1)  # type: ignore[operator]
    tk.export(apart, path)
    assert torch.equal(tk.load(WithParts(shared=False), path).few, apart.few)
    with pytest.raises(tk.FileError, match=r"shares memory .* they were apart in the model"):
        tk.load(WithParts(), path)


def test_a_file_of_the_first_format_returns_into_its_architecture() -> None:
    expected = json.loads((FORMAT_1 / "expected.json").read_text())
    read = tk.load(network(), FORMAT_1 / "swapped.safetensors")
    found = read(torch.tensor(expected["inputs"]))
    torch.testing.assert_close(found, torch.tensor(expected["swapped"]), rtol=1e-5, atol=1e-6)
    assert tk.read_card(FORMAT_1 / "swapped.safetensors")["swaps"][0]["start"] == "0"


def test_a_surrogates_file_has_a_card_and_is_no_file_of_weights(tmp_path: Path) -> None:
    fitted = tk.unlearn(surrogate(network(), **METHODS["edmd"]), [1])
    path = fitted.save(tmp_path / "s.safetensors")
    card = tk.read_card(path)
    assert card["surrogate"] == json.loads(json.dumps(fitted.card()))
    assert card["surrogate"]["edits"][0]["classes"] == [1]
    assert (card["format"], card["swaps"]) == (2, [])
    old = tk.read_card(FORMAT_1 / "edmd.safetensors")
    assert (old["format"], old["version"]) == (1, "unknown")
    assert old["surrogate"]["method"] == "edmd"
    with pytest.raises(tk.FileError, match=r"holds a surrogate, no model.*Surrogate\.load"):
        tk.load(network(), path)


def test_all_readers_miss_a_file_alike(tmp_path: Path) -> None:
    path = tmp_path / "absent.safetensors"
    for read in (tk.read_card, tk.Surrogate.load, lambda path: tk.load(network(), path)):
        with pytest.raises(tk.FileError, match="there is no file"):
            read(path)
        with pytest.raises(FileNotFoundError):
            read(path)


WIDE: dict[str, dict[str, Any]] = {
    "dmd": {"method": "dmd", "rank": 3},
    "edmd": {"method": "edmd", "rank": 3, "observables": tk.RandomFeatures(6)},
    "autoencoder": {"rank": 3, "latent": 9, "hidden": (5,), "steps": 20},
    "low rank": {"operator": "LowRank", "operator_rank": 2, "latent": 9, "rank": 3, "steps": 20},
    "blocks": {"operator": "BlockDiagonal", "latent": 9, "hidden": (5,), "rank": 3, "steps": 20},
}


@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("thin", [True, False])
def test_files_of_thin_maps_are_read_and_those_in_which_all_is_multiplied_out(
    kind: str, thin: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latter are of version 0.1."""

    def wide() -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3)
            return nn.Sequential(*layers).eval()

    fitted = surrogate(wide(), ("1", "3"), **WIDE[kind])
    with monkeypatch.context() as patched:
        if not thin:
            folded = tk.Surrogate.replacement
            patched.setattr(
                tk.Surrogate, "replacement", lambda self, a, b: folded(self, a, b, thin=False)
            )
        edited = tk.swap(wide(), fitted, "1", "3", "fx", rows()[:7])
    path = tk.export(edited, tmp_path / "m.safetensors")
    read = tk.load(wide(), path, rows()[:7])
    torch.testing.assert_close(read(rows()), edited(rows()), rtol=0, atol=0)
    sizes = [sum(each.numel() for each in model.state_dict().values()) for model in (read, edited)]
    assert sizes[0] == sizes[1]
    smaller = sum(each.numel() for each in fitted.replacement().state_dict().values())
    assert (tk.swap_history(edited)[0].added == smaller) == thin
