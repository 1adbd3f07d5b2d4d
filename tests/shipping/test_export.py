"""Exports: a file agrees with the model, also in a process that does not know this package."""

import json
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

from tests.processes import completed
from torchkoopman.observe.probes import attach
from torchkoopman.shipping.export import export, load, read_card
from torchkoopman.surgery.history import SurrogateLike
from torchkoopman.surgery.swap import swap, swap_history
from torchkoopman.undo import undo


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
    monkeypatch.setattr("torchkoopman.shipping.files.Surrogate", Surrogate)


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


def words(batch: int, tokens: int) -> dict[str, Tensor]:
    """What a tokenizer gives: the last word of the first sample is padding."""
    generator = torch.Generator().manual_seed(batch * tokens)
    ids = torch.randint(0, 31, (batch, tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 1:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def bert() -> BertModel:
    config = BertConfig(
        vocab_size=31,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=12,
    )
    return BertModel(config).eval()


def gpt2(**config: Any) -> GPT2Model:
    plain = {"bos_token_id": 0, "eos_token_id": 0, "vocab_size": 31, "n_positions": 12}
    return GPT2Model(GPT2Config(**plain, n_embd=32, n_layer=2, n_head=2, **config)).eval()


def run_elsewhere(code: str, folder: Path, *blocked: str) -> str:
    """What a fresh process prints that cannot import some packages."""
    head = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    done = completed([sys.executable, "-c", head + code], cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_needs_no_example_when_the_surrogate_saw_the_inputs(tmp_path: Path) -> None:
    model = swapped()
    path = export(model, tmp_path / "model.pt2")
    program = torch.export.load(path).module()
    model.eval()
    for batch in (2, 7, 64):
        torch.testing.assert_close(program(rows(batch)), model(rows(batch)), rtol=1e-5, atol=1e-6)


def test_programs_run_where_neither_this_package_nor_the_models_code_can_be_imported(
    tmp_path: Path,
) -> None:
    net, language = swapped().eval(), gpt2()
    export(net, tmp_path / "net.pt2", {"x": rows()})
    inputs = {**words(2, 5), "use_cache": False}
    export(language, tmp_path / "gpt2.pt2", inputs, dynamic_axes={"tokens": 1})
    with torch.no_grad():
        states = language(**words(3, 7), use_cache=False).last_hidden_state
        pairs = {"net": ({"x": rows(3)}, net(rows(3))), "gpt2": (words(3, 7), states)}
    torch.save(pairs, tmp_path / "pairs.pt")
    code = (
        "import torch\n"
        "for name, (inputs, expected) in torch.load('pairs.pt').items():\n"
        "    found = torch.export.load(name + '.pt2').module()(**inputs)\n"
        "    found = found['last_hidden_state'] if isinstance(found, dict) else found\n"
        "    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)\n"
        "    print(name, 'agrees')\n"
    )
    printed = run_elsewhere(code, tmp_path, "torchkoopman", "transformers")
    assert printed == "net agrees\ngpt2 agrees\n"


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


class Sizes(nn.Module):
    """Its output for one sample is not the formula for many."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if x.shape[0] > 1 else 3 * x


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.count = nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x + self.count


class Options(nn.Module):
    """Takes everything there is to take."""

    def forward(self, x: Tensor, kind: str, y: Any = None, *, scale: float = 1.0) -> Tensor:
        return (x if kind == "plain" else -x) * scale + (0 if y is None else y)


class Anything(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


class Loose(Options):
    def forward(self, x: Tensor, kind: str = "plain", **kwargs: Any) -> Tensor:
        return super().forward(x, kind)


@dataclass
class Answer:
    score: Tensor
    why: Any = None


class Answering(nn.Module):
    def forward(self, x: Tensor) -> Answer:
        return Answer(2 * x, (x, [{"sum": x.sum(1)}, None]))


class Opaque(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return {"h": x, "cache": object()}


@pytest.mark.parametrize(
    ("model", "given", "error", "message"),
    [
        (Net(), {"path": "m.pth"}, ValueError, "suffix '.pth'.*'.pt2'.*'.onnx'.*'.safetensors'"),
        (Net(), {"path": "no/m.pt2"}, FileNotFoundError, "no folder .*make it first"),
        (Net().state_dict(), {}, TypeError, "it got a OrderedDict"),
        (Net(), {}, ValueError, "pass example_inputs"),
        (Net(), {"example_inputs": "x"}, TypeError, "example_inputs is a str"),
        (Net(), {"example_inputs": {"y": rows()}}, ValueError, "forward.. of Net .* are x"),
        (Net(), {"example_inputs": (rows(), 1)}, ValueError, "does not take .*too many"),
        (Net(), {"example_inputs": rows(3)[:, :2]}, RuntimeError, "Net fails on the example"),
        (Net(), {"example_inputs": rows()[:0]}, ValueError, "'batch' is empty"),
        (Pairs(), {"example_inputs": (rows(2), rows(3))}, ValueError, r"\('x', 2\), \('y', 3\)"),
        (Random(), {"example_inputs": rows()}, RuntimeError, "random in eval mode"),
        (Counting(), {"example_inputs": rows()}, RuntimeError, "keep a state"),
        (Sizes(), {"example_inputs": rows()}, RuntimeError, r"\(1, 4\).*dynamic_batch=False"),
        (Branching(), {"example_inputs": rows()}, RuntimeError, "cannot export this Branching"),
        (FixedBatch(), {"example_inputs": rows()}, RuntimeError, "fails on .*dynamic_batch=False"),
        (Opaque(), {"example_inputs": rows()}, TypeError, "at 'cache' is of type object"),
        (gpt2(), {"example_inputs": words(2, 3)}, TypeError, "use_cache = False"),
    ],
)
def test_what_cannot_be_exported_is_explained_and_leaves_no_file(
    model: Any, given: dict[str, Any], error: type, message: str, tmp_path: Path
) -> None:
    arguments = dict(given)
    path = tmp_path / arguments.pop("path", "m.pt2")
    with pytest.raises(error, match=message):
        export(model, path, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = export(nn.Linear(4, 4), tmp_path / "m.pt2", rows())
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="random in eval mode"):
        export(Random(), path, rows())
    assert [file.name for file in tmp_path.iterdir()] == ["m.pt2"]
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"t": [1]}, "must give a number"),
        ({"t": {"input": "1"}}, "must give a number"),
        ({"t": 2}, r"not there; .*'input': \(5, 4\)"),
        ({"t": {"input": 2}}, "not there"),
        ({"t": {"y": 1}}, "speaks of 'y', and the example's tensors are 'input'"),
        ({"t": 0}, "both 'batch' and 't'"),
        ({"two words": 1}, "must be a word"),
    ],
)
def test_axes_that_are_not_there_are_named(axes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        export(nn.Linear(4, 4), tmp_path / "m.pt2", rows(), dynamic_axes=axes)


def test_an_axis_that_the_model_fixes_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"fails on .*\(4, 3\).*leave 't' out of dynamic_axes"):
        export(nn.Linear(4, 4), tmp_path / "m.pt2", rows(), dynamic_axes={"t": 1})
    series = torch.randn(2, 6, 4)
    with pytest.raises(RuntimeError, match="specialized it to be a constant"):
        export(nn.GRU(4, 3, batch_first=True), tmp_path / "m.pt2", series, dynamic_axes={"t": 1})


def test_images_of_all_sizes_go_through_a_convolution(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).eval()
    path = tmp_path / "m.pt2"
    export(model, path, torch.randn(1, 1, 9, 9), dynamic_axes={"height": 2, "width": 3})
    image = torch.randn(3, 1, 12, 17)
    torch.testing.assert_close(torch.export.load(path).module()(image), model(image))


def test_outputs_become_tuples_lists_and_dictionaries(tmp_path: Path) -> None:
    path = export(Answering(), tmp_path / "m.pt2", rows())
    found = torch.export.load(path).module()(rows(3))
    expected = {"score": 2 * rows(3), "why": (rows(3), [{"sum": rows(3).sum(1)}, None])}
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("model", [Options(), Anything(Options())])
def test_arguments_without_tensors_become_part_of_the_program(
    model: nn.Module, tmp_path: Path
) -> None:
    given = {"y": rows(), "kind": "other", "x": rows(), "scale": 3.0}
    program = torch.export.load(export(model, tmp_path / "m.pt2", given)).module()
    torch.testing.assert_close(program(y=rows(2), x=rows(2)), -2 * rows(2))


def test_keywords_that_forward_does_not_name_have_a_dynamic_batch(tmp_path: Path) -> None:
    given = {"y": rows(), "x": rows()}
    program = torch.export.load(export(Anything(Pairs()), tmp_path / "m.pt2", given)).module()
    assert program(x=rows(2), y=rows(2))[0].shape == (2, 4)
    with pytest.raises(ValueError, match=r"Loose names no argument 'z' .*x, kind\."):
        export(Loose(), tmp_path / "loose.pt2", {"x": rows(), "z": rows()})


def test_a_compiled_model_is_exported_as_what_it_was_made_from(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    path = export(torch.compile(model, backend="eager"), tmp_path / "m.safetensors")
    assert torch.equal(load_file(path)["0.weight"], model[0].weight)
    assert read_card(path)["model"] == "Sequential"


def test_a_graph_of_torch_export_is_exported_again(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).eval()
    batch = {0: torch.export.Dim("batch")}
    graph = torch.export.export(model, (rows(),), dynamic_shapes=(batch,)).module()
    program = torch.export.load(export(graph, tmp_path / "m.pt2", rows())).module()
    torch.testing.assert_close(program(rows(7)), model(rows(7)))


@pytest.mark.filterwarnings("ignore:the probe has passed nothing on")
def test_probes_see_nothing_of_an_export_and_are_not_in_it(tmp_path: Path) -> None:
    model, seen = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), []
    with attach(model, ["0", "1"]) as probe:
        probe.stream_to(seen.append)
        path = export(model, tmp_path / "m.pt2", rows())
    graph = torch.export.load(path).graph
    calls = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert not seen
    assert calls == ["aten.linear.default", "aten.relu.default"]


def test_the_examples_values_are_not_in_the_file(tmp_path: Path) -> None:
    secret = torch.full((3, 4), 1234.5678)
    path = export(nn.Linear(4, 4), tmp_path / "m.pt2", secret)
    with zipfile.ZipFile(path) as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    assert not any(secret[0, :1].numpy().tobytes() in content for content in contents)
    assert torch.equal(secret, torch.full((3, 4), 1234.5678))


def test_a_transformer_takes_all_batches_and_lengths_up_to_its_own_limit(tmp_path: Path) -> None:
    model, path = bert(), tmp_path / "bert.pt2"
    export(model, path, words(1, 5), dynamic_axes={"tokens": 1})
    program = torch.export.load(path).module()
    for batch, tokens in ((1, 1), (2, 7), (3, 12)):
        inputs = words(batch, tokens)
        found, expected = program(**inputs), model(**inputs)
        assert list(found) == list(expected) == ["last_hidden_state", "pooler_output"]
        torch.testing.assert_close(found, dict(expected), rtol=1e-5, atol=1e-5)
    with pytest.raises(AssertionError, match=r"Guard failed.*<= 12"):
        program(**words(2, 13))


@pytest.mark.parametrize("how", ["export", "eager"])
def test_an_edited_transformer_is_exported_whatever_the_way_of_the_swap(
    how: str, tmp_path: Path
) -> None:
    layer = nn.Linear(32, 32)
    ends = ("encoder.layer.0", "encoder.layer.1")
    model = swap(bert(), layer, *ends, how=how, example_inputs=words(2, 5))
    path = tmp_path / "m.pt2"
    export(model, path, words(2, 5), dynamic_axes={"tokens": 1})
    found = torch.export.load(path).module()(**words(3, 7))
    expected = model(**words(3, 7))
    torch.testing.assert_close(found["pooler_output"], expected["pooler_output"])
    assert [entry["how"] for entry in read_card(path)["swaps"]] == [how]


def test_weights_return_into_the_original_architecture(tmp_path: Path) -> None:
    model = swapped().eval()
    restored = load(Net().eval(), export(model, tmp_path / "model.safetensors"))
    assert torch.equal(restored(rows()), model(rows()))
    assert swap_history(restored) == swap_history(model)
    with pytest.raises(RuntimeError, match="read from a file"):
        undo(restored)


def test_several_swaps_are_done_again_in_order(tmp_path: Path) -> None:
    model = swap(swap(Net(), Surrogate(("layers.0", "layers.1"))), Surrogate(("layers.2", "norm")))
    restored = load(Net(), export(model, tmp_path / "model.safetensors"))
    assert torch.equal(restored.eval()(rows()), model.eval()(rows()))
    assert swap_history(restored) == swap_history(model)


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
    assert card == read_card(path)
    assert card["swaps"][0]["config"] == {"layers": ["layers.1", "layers.3"], "width": 4}
    assert card["swaps"][0]["card"] == {"kind": "linear"}
    assert "koopman_layers_1_to_layers_3.0.weight" in names
    assert "layers.2.weight" not in names


def test_reading_a_programs_card_unpickles_nothing(tmp_path: Path) -> None:
    path = export(swapped(), tmp_path / "model.pt2")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "card.pt2", "w") as bare:
        (name,) = [name for name in archive.namelist() if name.endswith("torchkoopman.json")]
        bare.writestr(name, archive.read(name))
    card = read_card(tmp_path / "card.pt2")
    assert card == read_card(path)
    assert card["torch"] == torch.__version__
    assert card["swaps"][0]["start"] == "layers.1"


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
    ("name", "content", "message"),
    [
        ("m.safetensors", None, "there is no file"),
        ("m.safetensors", b"not a tensor file", "not a safetensors file"),
        ("m.pt2", b"", "torch.export.load.path..module.. runs '.pt2'"),
    ],
)
def test_files_that_are_not_ours_are_named(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(Net(), path)


def test_cards_are_not_found_in_other_files(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(nn.Linear(4, 4), (rows(),)), path)
    with pytest.raises(ValueError, match="no 'torchkoopman' card"):
        read_card(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"not an archive of torch\.export"):
        read_card(path)
    with pytest.raises(ValueError, match=r"ends in '\.pth'"):
        read_card("m.pth")


def test_records_of_another_version_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = export(swapped(), tmp_path / "m.safetensors")
    card = read_card(path)
    card["version"] = "99"
    card["swaps"][0]["colour"] = "red"
    save_file(load_file(path), path, {"torchkoopman": json.dumps(card)})
    with pytest.raises(ValueError, match=r"written by torchkoopman 99.*colour"):
        load(Net(), path)


def test_a_swap_that_kept_the_class_returns_into_the_original_architecture(tmp_path: Path) -> None:
    surrogate = Surrogate(("encoder.layer.0", "encoder.layer.1"), width=32, inputs=())
    model = swap(bert(), surrogate, how="eager", example_inputs=words(2, 5))
    path = export(model, tmp_path / "m.safetensors")
    restored = load(bert(), path, words(2, 3))
    assert type(restored) is type(model)
    assert torch.equal(restored(**words(3, 7))[0], model(**words(3, 7))[0])
    assert swap_history(restored) == swap_history(model)
    with pytest.raises(RuntimeError, match="read from a file"):
        undo(restored)
    with pytest.raises(ValueError, match="example of the model's inputs is needed"):
        load(bert(), path)


def test_plain_weights_without_a_card_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    save_model(Net(), str(tmp_path / "plain.safetensors"))
    with pytest.raises(ValueError, match="no 'torchkoopman' card"):
        load(Net(), tmp_path / "plain.safetensors")
