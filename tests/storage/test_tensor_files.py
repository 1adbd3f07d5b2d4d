"""Files of tensors: sealed, numbered, and the reader's own once read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import torchkoopman as tk
from torchkoopman.storage import onnx_files
from torchkoopman.storage.errors import MissingFileError
from torchkoopman.storage.tensor_files import read_metadata, read_tensors, write_tensors

TENSORS = {
    "double": torch.linspace(0, 1, 7, dtype=torch.float64),
    "half": torch.ones(2, 3, dtype=torch.bfloat16),
    "whole": torch.tensor(-5),
    "empty": torch.zeros(0, 4),
}
quiet = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def written(folder: Path, **metadata: str) -> Path:
    path = folder / "t.safetensors"
    write_tensors(path, TENSORS, {"said": 'ünïcode "torchkoopman.sha256":"', **metadata})
    return path


def test_what_is_read_is_what_was_written_bit_by_bit(tmp_path: Path) -> None:
    path = written(tmp_path)
    metadata, tensors = read_tensors(path)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert metadata["said"].startswith("ünïcode")
    assert metadata["torchkoopman.format"] == "2"
    assert read_metadata(path) == metadata
    assert load_file(path).keys() == TENSORS.keys(), "safetensors reads it too"


def test_equal_tensors_make_equal_files(tmp_path: Path) -> None:
    first = written(tmp_path).read_bytes()
    assert written(tmp_path).read_bytes() == first


@given(data=st.data())
@settings(quiet, max_examples=60)
def test_any_changed_byte_is_seen(data: st.DataObject, tmp_path: Path) -> None:
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    for read in (read_tensors, read_metadata):
        with pytest.raises(tk.FileError):
            read(path)


@given(content=st.binary(max_size=300), length=st.integers(0, 200))
@settings(quiet, max_examples=80)
def test_any_bytes_at_all_are_read_or_refused(content: bytes, length: int, tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + content)
    with pytest.raises(tk.FileError):
        read_tensors(path)
    for suffix in (".pt2", ".onnx"):
        other = path.with_suffix(suffix)
        other.write_bytes(content)
        with pytest.raises(tk.FileError):
            tk.read_card(other)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e3, 1e3) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(data=st.data(), value=json_values)
@settings(quiet, max_examples=80)
def test_any_change_of_a_description_is_read_or_refused(
    data: st.DataObject, value: Any, tmp_path: Path
) -> None:
    """Sealed again, so that the description itself is what is tested."""
    source = Path(__file__).parents[1] / "koopman" / "format_1" / "edmd.safetensors"
    metadata, tensors = read_tensors(source)
    config = json.loads(metadata["torchkoopman.surrogate"])
    place = config
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    place[key] = value
    path = tmp_path / "s.safetensors"
    write_tensors(path, tensors, {"torchkoopman.surrogate": json.dumps(config)})
    try:
        read = tk.Surrogate.load(path)
    except tk.FileError as error:
        said, read = str(error), None
    assert str(path) in said if read is None else read.latent == len(read.operator.matrix(1.0))


def test_seals_taken_from_a_file_are_missed(tmp_path: Path) -> None:
    path = written(tmp_path)
    metadata, tensors = read_tensors(path)
    for gone in ("torchkoopman.sha256", "torchkoopman.format"):
        save_file(tensors, path, {k: v for k, v in metadata.items() if k != gone})
        with pytest.raises(tk.FileError, match="damaged: its checksum"):
            read_tensors(path)


def test_files_without_number_and_seal_are_read_as_they_always_were(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "old.safetensors", {"said": "this"})
    metadata, tensors = read_tensors(tmp_path / "old.safetensors")
    assert metadata == {"said": "this"}
    assert torch.equal(tensors["double"], TENSORS["double"])


def test_a_missing_file_is_both_a_file_error_and_not_found(tmp_path: Path) -> None:
    for read in (read_tensors, read_metadata):
        with pytest.raises(MissingFileError, match="there is no file") as caught:
            read(tmp_path / "absent.safetensors")
        assert isinstance(caught.value, tk.FileError)
        assert isinstance(caught.value, FileNotFoundError)


def test_weights_beside_an_onnx_file_are_sealed_with_it(tmp_path: Path) -> None:
    path, beside = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    path.write_bytes(onnx_files._entry("card", "text"))
    beside.write_bytes(bytes(1000))
    onnx_files.seal_onnx(path)
    assert onnx_files.text_in_onnx(path, "card") == "text"
    beside.write_bytes(bytes(999) + b"\1")
    with pytest.raises(tk.FileError, match=r"m\.onnx\.data' is damaged"):
        onnx_files.text_in_onnx(path, "card")
    beside.unlink()
    with pytest.raises(tk.FileError, match=r"m\.onnx\.data' is damaged"):
        onnx_files.text_in_onnx(path, "card")
