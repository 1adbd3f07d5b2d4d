"""Good files, and the means to forge bad ones of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import torchkoopman as tk
from torchkoopman.storage import archives, onnx_files, tensor_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SURROGATE, CARD = "torchkoopman.surrogate", "torchkoopman"
"""Names of the texts in safetensors files that describe a surrogate, and an edited model."""


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Three layers to fit on, of width 4, always with the same numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)
        return nn.Sequential(*layers).to(dtype).eval()


def originals(folder: Path) -> dict[str, Path]:
    """One file of each kind, as torchkoopman writes them."""
    model, generator = network(), torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator)
    batches = [(part, torch.arange(50) % 2) for part in torch.split(x, 50)]
    parts = [tk.RandomFeatures(8), tk.Monomials(2)]
    options: dict[str, dict[str, Any]] = {
        "dmd": {"method": "dmd"},
        "edmd": {"method": "edmd", "observables": parts},
        "autoencoder": {"latent": 6, "hidden": (5,), "steps": 50},
    }
    made = {}
    for name, given in options.items():
        fitted = tk.fit(model, batches, ["0", "1", "3"], progress=False, **given)
        made[name] = fitted.save(folder / f"{name}.safetensors")
        if name == "edmd":
            edited = tk.swap(model, tk.unlearn(fitted, [1]), "0", "3")
            made["weights"] = tk.export(edited, folder / "weights.safetensors")
            made["pt2"] = tk.export(edited, folder / "program.pt2", x[:3])
            made["onnx"] = tk.export(edited, folder / "program.onnx", x[:3])
    return made


def resealed(source: Path, path: Path, change: Callable[[Any, dict[str, Any]], None]) -> Path:
    """A copy with another description, or other tensors, sealed as torchkoopman would seal it."""
    with safe_open(source, "pt") as file:
        texts = dict(file.metadata())
    key = SURROGATE if SURROGATE in texts else CARD
    described, tensors = json.loads(texts[key]), load_file(source)
    change(described, tensors)
    text = described["text"] if "text" in described else json.dumps(described)
    save_file(tensors, path, tensor_files.unsealed({**texts, key: text}))
    tensor_files.seal_tensors(path)  # write_tensors() refuses what would not be read
    return path


def raw(path: Path, header: str | bytes, data: bytes = b"", length: int | None = None) -> Path:
    """A safetensors file of any header; sealed if the header leaves room for it."""
    text = header.encode() if isinstance(header, str) else header
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    if b"torchkoopman.sha256" in text and length is None:
        tensor_files.seal_tensors(path)
    return path


def header(rest: str, metadata: str = "") -> str:
    """A header with room for a seal."""
    texts = json.dumps(tensor_files.unsealed({}), separators=(",", ":"))[1:-1]
    return f'{{"__metadata__":{{{texts}{metadata}}}{rest}}}'


def put(*steps: str | int, value: Any) -> Callable[[Any, dict[str, Any]], None]:
    """A change of one entry of a description."""

    def change(described: Any, tensors: dict[str, Any]) -> None:
        for step in steps[:-1]:
            described = described[step]
        described[steps[-1]] = value

    return change


def tensor(name: str, value: torch.Tensor | None) -> Callable[[Any, dict[str, Any]], None]:
    """A change of one tensor; None takes it out."""

    def change(described: Any, tensors: dict[str, Any]) -> None:
        if value is None:
            tensors.pop(name)
        else:
            tensors[name] = value

    return change


def sealed_archive(path: Path) -> Path:
    archives.seal_archive(path)
    return path


def sealed_onnx(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    onnx_files.seal_onnx(path)
    return path
