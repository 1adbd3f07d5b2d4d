"""ONNX files: onnxruntime computes with them what the model computes, and knows its names."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from tests.processes import completed
from torchkoopman.fitting.autoencoder import AutoencoderFitter
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.fitting.edmd import EDMDFitter
from torchkoopman.koopman.feature_maps import RandomFeatures
from torchkoopman.observe.probes import attach
from torchkoopman.shipping import onnx_programs
from torchkoopman.shipping.export import export, read_card
from torchkoopman.surgery.swap import swap, swap_history
from torchkoopman.unlearning.edit import unlearn

SUFFIXES = (".pt2", ".onnx", ".safetensors")
MOVES = {
    "Concat", "Reshape", "Shape",
    "cat", "reshape", "sym_size",
}  # fmt: skip
"""Operations that compute nothing."""
AROUND = {"wrap_with_autocast", "<built-in function getitem>"}
"""What keeps autocast away from the replacement, which is a graph within the graph."""
IN_TORCH = {"Gemm": "linear", "MatMul": "linear", "LeakyRelu": "leaky_relu", "Tanh": "tanh"}
"""ONNX's names of what torch.export has other names for; a MatMul has its bias as an Add."""


def rows(batch: int = 5) -> Tensor:
    return torch.randn(batch, 4, generator=torch.Generator().manual_seed(batch))


def perceptron() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = [layer for _ in range(3) for layer in (nn.Linear(6, 6), nn.Tanh())]
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *inner, nn.Linear(6, 3)).eval()


def forgetful(kind: str) -> nn.Module:
    """A perceptron whose inner layers were replaced by a surrogate that forgot a class."""
    model = perceptron()
    fitters: dict[str, Any] = {
        "edmd": EDMDFitter(RandomFeatures(20), calibration=200),
        "autoencoder": AutoencoderFitter(5, hidden=(7,), steps_per_update=1, calibration=200),
    }
    with attach(model, ["1", "3", "5", "7"]) as probe:
        probe.stream_to(fitters[kind])
        for seed in range(3):
            inputs = torch.randn(200, 4, generator=torch.Generator().manual_seed(seed))
            with probe.labels((inputs[:, 0] > 0).long()):
                model(inputs)
    return swap(model, unlearn(fitters[kind].surrogate, classes=[1]))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[nn.Module, Path]]:
    """Kind of surrogate → the edited model, and its path without a suffix."""
    made = {}
    for kind in ("edmd", "autoencoder"):
        made[kind] = (forgetful(kind), tmp_path_factory.mktemp("files") / kind)
        for suffix in SUFFIXES:
            export(made[kind][0], made[kind][1].with_suffix(suffix))
    return made


def computed(path: Path, **inputs: Tensor) -> dict[str, Tensor]:
    """What onnxruntime makes of a file, by name."""
    session = onnxruntime.InferenceSession(path)
    values = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    names = [entry.name for entry in session.get_outputs()]
    return {name: torch.as_tensor(value) for name, value in zip(names, values, strict=True)}


@pytest.mark.parametrize("kind", ["edmd", "autoencoder"])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_onnxruntime_agrees_with_the_model_on_all_batches(
    kind: str, batch: int, files: dict[str, tuple[nn.Module, Path]]
) -> None:
    model, path = files[kind]
    found = computed(path.with_suffix(".onnx"), input=rows(batch))
    torch.testing.assert_close(found, {"output": model(rows(batch))}, rtol=1e-5, atol=1e-5)


def arithmetic(path: Path) -> Counter[str]:
    """The operations of a program that compute, in torch's words."""
    if path.suffix == ".pt2":
        graphs = torch.export.load(path).graph_module.modules()
        nodes = [node for graph in graphs for node in graph.graph.nodes]
        kinds = {node.op for node in nodes}
        assert kinds == {"placeholder", "call_function", "get_attr", "output"}
        targets = [str(node.target) for node in nodes if node.op == "call_function"]
        names = [target.split(".")[1] for target in targets if target not in AROUND]
    else:
        names = [node.op_type for node in onnx.load(path).graph.node]
    found = Counter(IN_TORCH.get(name, name.lower()) for name in names if name not in MOVES)
    found["add"] -= names.count("MatMul")
    return +found


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # random features, and one matrix that decodes as well
        ("edmd", {"linear": 2, "tanh": 1}),
        # encoder and decoder, each a linear map beside a perceptron of two; one matrix between
        ("autoencoder", {"linear": 3 + 1 + 3, "leaky_relu": 2, "add": 2}),
    ],
)
def test_nothing_but_encoder_matrix_and_decoder_is_left_at_run_time(
    kind: str, expected: dict[str, int], suffix: str, files: dict[str, tuple[nn.Module, Path]]
) -> None:
    outside = {"linear": 2, "tanh": 1}  # the perceptron's first layer and its head
    found = arithmetic(files[kind][1].with_suffix(suffix))
    assert found == Counter(expected) + Counter(outside)


@pytest.mark.parametrize("kind", ["edmd", "autoencoder"])
def test_a_program_refuses_autocast_in_which_its_replacement_would_be_rounded_to_eight_bits(
    kind: str, files: dict[str, tuple[nn.Module, Path]]
) -> None:
    program = torch.export.load(files[kind][1].with_suffix(".pt2")).module()
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(RuntimeError, match="must have the same dtype"),
    ):
        program(rows())


@pytest.mark.parametrize("kind", ["edmd", "autoencoder"])
def test_all_formats_carry_the_same_card(
    kind: str, files: dict[str, tuple[nn.Module, Path]]
) -> None:
    cards = [read_card(files[kind][1].with_suffix(suffix)) for suffix in SUFFIXES]
    assert cards[0] == cards[1] == cards[2]
    (swapped,) = cards[0]["swaps"]
    assert (swapped["start"], swapped["end"]) == ("1", "7")
    assert swapped["card"]["method"] == kind
    assert swapped["card"]["rows"] == 600
    assert [edit["classes"] for edit in swapped["card"]["edits"]] == [[1]]


def test_an_onnx_file_runs_without_torch(
    tmp_path: Path, files: dict[str, tuple[nn.Module, Path]]
) -> None:
    model, path = files["edmd"]
    np.save(tmp_path / "expected.npy", model(rows(3)).detach().numpy())
    np.save(tmp_path / "rows.npy", rows(3).numpy())
    code = (
        "import sys, json\n"
        "sys.modules['torch'] = sys.modules['torchkoopman'] = None\n"
        "import numpy, onnxruntime\n"
        f"session = onnxruntime.InferenceSession({str(path.with_suffix('.onnx'))!r})\n"
        "(found,) = session.run(['output'], {'input': numpy.load('rows.npy')})\n"
        "assert abs(found - numpy.load('expected.npy')).max() < 1e-5\n"
        "print(session.get_modelmeta().custom_metadata_map['torchkoopman'])\n"
    )
    done = completed([sys.executable, "-c", code], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == read_card(path.with_suffix(".onnx"))


def test_bert_takes_all_batches_and_lengths(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = BertModel(BertConfig(vocab_size=31, intermediate_size=48, **sizes)).eval()
    ids = torch.arange(28).reshape(4, 7)
    mask = torch.ones_like(ids)
    mask[1, 2:] = 0
    given = {"input_ids": ids[:2, :5], "attention_mask": mask[:2, :5]}
    path = export(model, tmp_path / "bert.onnx", given, dynamic_axes={"tokens": 1})
    for batch, tokens in ((1, 1), (4, 7)):
        inputs = {"attention_mask": mask[:batch, :tokens], "input_ids": ids[:batch, :tokens]}
        expected = dict(model(**inputs))
        torch.testing.assert_close(computed(path, **inputs), expected, rtol=1e-5, atol=1e-5)
    shapes = [entry.shape for entry in onnxruntime.InferenceSession(path).get_inputs()]
    assert shapes == [["batch", "tokens"]] * 2


def test_an_edited_vision_transformer_that_kept_its_class(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = ViTConfig(image_size=8, patch_size=4, intermediate_size=48, **sizes)
    model, images = ViTModel(config).eval(), torch.randn(4, 3, 8, 8)
    given = {"pixel_values": images[:2]}
    ends = ("layers.0", "layers.2")
    edited = swap(model, nn.Linear(32, 32), *ends, how="eager", example_inputs=given)
    assert isinstance(edited, ViTModel)
    found = computed(export(edited, tmp_path / "vit.onnx", given), pixel_values=images)
    expected = dict(edited(pixel_values=images))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class Clashing(nn.Module):
    """Its outputs are named like its input, its parameter, and an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"x": x, "weight": x * self.weight, "add": [x + 1, None, x + 2]}


def test_names_that_clash_are_kept_apart(tmp_path: Path) -> None:
    path = export(Clashing(), tmp_path / "m.onnx", rows())
    found = computed(path, x=rows(2))
    expected = {"x_out": rows(2), "weight": rows(2), "add.0": rows(2) + 1, "add.2": rows(2) + 2}
    torch.testing.assert_close(found, expected)


def test_the_exporter_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    export(nn.Linear(4, 4), tmp_path / "m.onnx", rows())
    assert capfd.readouterr() == ("", "")
    assert not [entry for entry in caplog.records if entry.levelname != "DEBUG"]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_way_to_get_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"package {package}, .*torchkoopman\[onnx\]"):
        export(nn.Linear(4, 4), tmp_path / "m.onnx", rows())
    assert not list(tmp_path.iterdir())


class Counted(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, 3


class Spectral(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


@pytest.mark.parametrize(
    ("model", "given", "error", "message"),
    [
        (Counted(), rows(), TypeError, "at '1' is of type int, which an ONNX program"),
        (Spectral(), rows(), RuntimeError, "cannot translate this Spectral.*'.pt2' file"),
        (Random(), rows(), RuntimeError, "random in eval mode"),
        (nn.Linear(4, 4).bfloat16(), rows().bfloat16(), RuntimeError, r"model\.float\(\)"),
    ],
)
def test_what_onnx_cannot_hold_is_explained_and_leaves_no_file(
    model: nn.Module, given: Tensor, error: type, message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        export(model, tmp_path / "m.onnx", given)
    assert not list(tmp_path.iterdir())


def test_weights_beyond_one_file_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = "torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD"
    monkeypatch.setattr(limit, 1024)
    model = nn.Linear(100, 100)
    path = export(model, tmp_path / "m.onnx", torch.randn(2, 100))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert path.stat().st_size < 5000
    inputs = torch.randn(3, 100)
    torch.testing.assert_close(computed(path, input=inputs)["output"], model(inputs))
    assert read_card(path)["model"] == "Linear"


def test_a_file_that_is_not_onnx_has_no_card(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not a protobuf")
    with pytest.raises(ValueError, match="not an ONNX file"):
        read_card(path)
    onnx.save(onnx.ModelProto(), path)
    with pytest.raises(ValueError, match="no 'torchkoopman' card"):
        read_card(path)


def test_all_needed_packages_are_in_the_extra() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = {line.split(">=")[0] for line in project["optional-dependencies"]["onnx"]}
    assert extra == set(onnx_programs.NEEDED)


@pytest.mark.parametrize(
    ("family", "suffix"), [("dmd", ".onnx"), ("BlockDiagonal", ".onnx"), ("LowRank", ".pt2")]
)
def test_thin_maps_are_thin_in_files_too(family: str, suffix: str, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        tail = [nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3)]
        model = nn.Sequential(nn.Linear(4, 40), nn.Tanh(), *tail).eval()
    fitter: DMDFitter | AutoencoderFitter = DMDFitter(3)
    if family != "dmd":
        more = {"operator_rank": 2} if family == "LowRank" else {}
        fitter = AutoencoderFitter(9, hidden=[6], operator=family, rank=3, **more)  # type: ignore[arg-type]
    with torch.no_grad(), attach(model, ["1", "3"]).stream_to(fitter):
        model(rows(300))
    edited = swap(model, fitter.surrogate, example_inputs=rows(4))
    path = export(edited, tmp_path / f"thin{suffix}", example_inputs=rows(4))
    for size in (1, 7):
        expected = edited(rows(size))
        if suffix == ".pt2":
            found = torch.export.load(path).module()(rows(size))
        else:
            found = computed(path, input=rows(size))["output"]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (record,) = swap_history(edited)
    assert record.added < record.removed / 2
    before = sum(each.numel() for each in model.parameters())
    if suffix == ".pt2":
        held = sum(each.numel() for each in torch.export.load(path).state_dict.values())
    else:
        held = sum(np.prod(each.dims) for each in onnx.load(path).graph.initializer)
    assert held <= before - record.removed + record.added + 20  # and shapes
