"""Exports: a file agrees with the model, also in a process that does not know this package."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from torchkoopman.surgery.export import export, load
from torchkoopman.surgery.record import SurrogateLike
from torchkoopman.surgery.swap import swap, swap_back, swaps


class Surrogate(nn.Module):
    """A surrogate that is one linear map."""

    def __init__(
        self, layers: tuple[str, ...], width: int = 4, inputs: Any = (((1, 4), "float32"),)
    ) -> None:
        super().__init__()
        self.layers, self.inputs, self.fc = layers, inputs, nn.Linear(width, width)

    def replacement(self, start: str | None = None, end: str | None = None) -> nn.Module:
        return nn.Sequential(self.fc, nn.Tanh())

    def card(self) -> dict[str, Any]:
        return {"kind": "linear"}

    def config(self) -> dict[str, Any]:
        return {"layers": self.layers, "width": self.fc.in_features}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Surrogate":
        return cls(tuple(config["layers"]), config["width"])


@pytest.fixture(autouse=True)
def _surrogate_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchkoopman.surgery.export.Surrogate", Surrogate)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
        self.norm, self.dropout = nn.BatchNorm1d(4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.dropout(self.norm(x))


class Tied(nn.Module):
    """Words in, scores of words out, with one matrix for both."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.b(torch.tanh(self.a(self.embed(words)))))


def swapped(model: nn.Module | None = None) -> nn.Module:
    surrogate = Surrogate(("layers.1", "layers.3"))
    assert isinstance(surrogate, SurrogateLike)
    return swap(model or Net(), surrogate)


def rows(batch: int = 5) -> Tensor:
    return torch.randn(batch, 4, generator=torch.Generator().manual_seed(batch))


def test_a_program_needs_no_example_when_the_surrogate_saw_the_inputs(tmp_path: Path) -> None:
    model = swapped()
    path = export(model, tmp_path / "model.pt2")
    program = torch.export.load(path).module()
    model.eval()
    for batch in (2, 7, 64):
        torch.testing.assert_close(program(rows(batch)), model(rows(batch)), rtol=1e-5, atol=1e-6)


def test_a_program_runs_where_this_package_cannot_be_imported(tmp_path: Path) -> None:
    model = swapped()
    path = export(model, tmp_path / "model.pt2", rows())
    torch.save({"x": rows(3), "y": model.eval()(rows(3)).detach()}, tmp_path / "pair.pt")
    code = (
        "import sys; sys.modules['torchkoopman'] = None\n"
        "import torch\n"
        f"pair = torch.load({str(tmp_path / 'pair.pt')!r})\n"
        f"y = torch.export.load({str(path)!r}).module()(pair['x'])\n"
        "torch.testing.assert_close(y, pair['y'], rtol=1e-5, atol=1e-5)\n"
        "print('agrees')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "agrees\n", done.stderr


def test_export_leaves_the_model_its_mode_values_and_random_state(tmp_path: Path) -> None:
    model, state = swapped(), torch.get_rng_state()
    mean = model.get_buffer("norm.running_mean").clone()
    export(model, tmp_path / "model.pt2")
    assert model.training
    assert torch.equal(model.get_buffer("norm.running_mean"), mean)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_program_of_words_has_a_dynamic_batch(tmp_path: Path) -> None:
    surrogate = Surrogate(("a", "b"), inputs=(((1, 3), "int64"),))
    model = swap(Tied(), surrogate).eval()
    program = torch.export.load(export(model, tmp_path / "tied.pt2")).module()
    words = torch.arange(12).reshape(4, 3) % 7
    torch.testing.assert_close(program(words), model(words), rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_is_kept_when_asked(tmp_path: Path) -> None:
    path = export(swapped(), tmp_path / "model.pt2", rows(3), dynamic_batch=False)
    with pytest.raises(AssertionError, match="Guard failed"):
        torch.export.load(path).module()(rows(4))


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        h = self.b(self.a(x))
        return h, (h * y).sum(1) > 0


def test_two_inputs_share_the_batch_and_outputs_keep_their_structure(tmp_path: Path) -> None:
    model = swap(Pairs(), nn.Tanh(), "a", "b")
    program = torch.export.load(export(model, tmp_path / "p.pt2", (rows(), rows()))).module()
    found, expected = program(rows(6), rows(6)), model(rows(6), rows(6))
    torch.testing.assert_close(found, expected)


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(5, 2, 2)


@pytest.mark.parametrize(
    ("model", "given", "error", "message"),
    [
        (Net(), {"path": "m.onnx"}, ValueError, "suffix '.onnx'.*'.pt2'.*'.safetensors'"),
        (Net(), {"path": "m.pt2"}, ValueError, "pass example_inputs"),
        (Pairs(), {"example_inputs": (rows(2), rows(3))}, ValueError, "first axes differ"),
        (Random(), {"example_inputs": rows()}, RuntimeError, "random in eval mode"),
        (Branching(), {"example_inputs": rows()}, RuntimeError, "cannot export this Branching"),
        (FixedBatch(), {"example_inputs": rows()}, RuntimeError, "dynamic_batch=False"),
    ],
)
def test_what_cannot_be_exported_is_explained_and_leaves_no_file(
    model: nn.Module, given: dict[str, Any], error: type, message: str, tmp_path: Path
) -> None:
    path = tmp_path / given.pop("path", "m.pt2")
    with pytest.raises(error, match=message):
        export(model, path, **given)
    assert not path.exists()


def test_weights_return_into_the_original_architecture(tmp_path: Path) -> None:
    model = swapped().eval()
    restored = load(Net().eval(), export(model, tmp_path / "model.safetensors"))
    assert torch.equal(restored(rows()), model(rows()))
    assert swaps(restored) == swaps(model)
    with pytest.raises(RuntimeError, match="read from a file"):
        swap_back(restored)


def test_several_swaps_are_done_again_in_order(tmp_path: Path) -> None:
    model = swap(swap(Net(), Surrogate(("layers.0", "layers.1"))), Surrogate(("layers.2", "norm")))
    restored = load(Net(), export(model, tmp_path / "model.safetensors"))
    assert torch.equal(restored.eval()(rows()), model.eval()(rows()))
    assert swaps(restored) == swaps(model)


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model = swap(Tied(), Surrogate(("a", "b")))
    path = export(model, tmp_path / "tied.safetensors")
    restored = load(Tied(), path)
    words = torch.arange(7)
    assert torch.equal(restored(words), model(words))
    assert restored.get_parameter("head.weight") is restored.get_parameter("embed.weight")
    assert len({"head.weight", "embed.weight"} & set(load_file(path))) == 1


def test_the_file_holds_tensors_and_a_readable_card(tmp_path: Path) -> None:
    path = export(swapped(), tmp_path / "model.safetensors")
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["torchkoopman"])
        names = set(file.keys())
    assert card["swaps"][0]["config"] == {"layers": ["layers.1", "layers.3"], "width": 4}
    assert card["swaps"][0]["card"] == {"kind": "linear"}
    assert "koopman_layers_1_to_layers_3.0.weight" in names
    assert "layers.2.weight" not in names


def test_loading_does_not_change_the_given_model(tmp_path: Path) -> None:
    path, model = export(swapped(), tmp_path / "model.safetensors"), Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_plain_module_cannot_be_loaded_and_the_way_out_works(tmp_path: Path) -> None:
    model = swap(Net().eval(), nn.Linear(4, 4), "layers.1", "layers.3")
    path = export(model, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="a module of your own"):
        load(Net(), path)
    from safetensors.torch import load_model

    again = swap(Net().eval(), nn.Linear(4, 4), "layers.1", "layers.3")
    load_model(again, path)
    assert torch.equal(again(rows()), model(rows()))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    path, other = export(swapped(), tmp_path / "model.safetensors"), Net()
    other.extra = nn.Linear(4, 4)
    other.norm = nn.Identity()
    with pytest.raises(RuntimeError, match=r"norm\.weight"):
        load(other, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "found no file"), (b"not a tensor file", "not a safetensors file")],
)
def test_files_that_are_not_ours_are_named(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(Net(), path)


def test_plain_weights_without_a_card_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    save_model(Net(), str(tmp_path / "plain.safetensors"))
    with pytest.raises(ValueError, match="no 'torchkoopman' card"):
        load(Net(), tmp_path / "plain.safetensors")
