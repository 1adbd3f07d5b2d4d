"""States as files: nested containers come back as they were, and nothing else is taken."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from torchkoopman.storage.errors import FileError
from torchkoopman.storage.states import read_state, write_state

STATE: dict[str, Any] = {
    "numbers": [1, -2.5, math.inf, True, None, "text"],
    "tuple": (1, (2, [3])),
    7: {("a", 1): "a key that is no text"},
    "tensors": [torch.eye(2, dtype=torch.float64), {"half": torch.ones(3, dtype=torch.bfloat16)}],
    "complex": torch.tensor([[1 + 2j], [3 - 1j]], dtype=torch.complex128),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "bytes": torch.Generator().manual_seed(3).get_state(),
    "empty": [torch.zeros(0, 3), [], {}, ()],
    "flags": torch.tensor([True, False]),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        parts = type(one) is type(other) and len(one) == len(other)
        return parts and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, "a state", STATE)
    assert same(read_state(path, "a state"), STATE)


def test_not_a_number_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, "a state", {"loss": math.nan})
    assert math.isnan(read_state(path, "a state")["loss"])


def test_the_state_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, "a state", STATE)
    with pytest.raises(FileError, match="does not hold another, but 'a state'"):
        read_state(path, "another")


def test_what_is_neither_tensor_nor_plain_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(TypeError, match="got <object object"):
        write_state(path, "a state", {"deep": [object()]})
    assert not path.exists()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    write_state(path, "a state", STATE)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="checksum"):
        read_state(path, "a state")
