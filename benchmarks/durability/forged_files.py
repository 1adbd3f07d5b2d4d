"""Files that ask for more than they hold, or claim to be what they are not; each must be refused.

Most are sealed as torchkoopman seals its own, so that no checksum stands before what they try.
"""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from benchmarks.durability.forging import (
    CARD,
    SURROGATE,
    header,
    put,
    raw,
    resealed,
    sealed_archive,
    sealed_onnx,
    tensor,
)
from torchkoopman.storage import onnx_files, seals, tensor_files

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEP = "[" * 100_000 + "]" * 100_000


def of_surrogates(folder: Path, made: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """Descriptions of surrogates that their tensors do not bear out."""
    big = 2**31
    parts = ("observables", "parts")
    changes: list[tuple[str, str, Any]] = [
        ("edmd", "sizes", put("sizes", 0, value=[20_000, 25_000])),
        ("edmd", "sizes of all", put("sizes", value=[[20_000, 25_000]] * 3)),
        ("edmd", "negative sizes", put("sizes", 0, value=[-4, -4])),
        ("edmd", "features", put("observables", "features", value=10**6)),
        ("edmd", "random features", put(*parts, 0, "count", value=big)),
        ("edmd", "degree", put(*parts, 1, "degree", value=10**9)),
        ("edmd", "a high degree", put(*parts, 1, "degree", value=90)),
        ("edmd", "many parts", put(*parts, value=[{"kind": "ContextMean"}] * 100_000)),
        ("edmd", "offsets", put(*parts, value=[{"kind": "Neighbours", "offsets": [1] * 10**6}])),
        ("edmd", "an unknown part", put(*parts, 0, "kind", value="__import__")),
        ("edmd", "latent", put("operator", "latent", value=200_000)),
        ("edmd", "steps", put("operator", "steps", value=10**12)),
        ("edmd", "steps of text", put("operator", "steps", value="3")),
        ("edmd", "a stable operator", put("operator", value=_family("Stable", 60_000))),
        ("edmd", "an orthogonal operator", put("operator", value=_family("Orthogonal", 30_000))),
        ("edmd", "blocks", put("operator", value=_family("BlockDiagonal", 10**9))),
        ("edmd", "low rank", put("operator", value=_family("LowRank", 10**7) | {"rank": 10**7})),
        ("edmd", "an unknown operator", put("operator", "family", value="eval")),
        ("autoencoder", "hidden", put("observables", "hidden", value=[10**6, 10**6])),
        ("autoencoder", "many hidden", put("observables", "hidden", value=[1] * 100_000)),
        ("autoencoder", "learnt latent", put("observables", "latent", value=10**8)),
        ("dmd", "layers", put("span", "layers", value=[str(k) for k in range(100_000)])),
        ("dmd", "layers of one name", put("span", "layers", value=["a", "a", "a"])),
        ("dmd", "times", put("span", "times", value=[0.0, 2.0, 1.0])),
        ("dmd", "sampled rows", put("evidence", "state", value=[0, 10**9])),
        ("dmd", "no sampled rows", tensor("evidence/end", None)),
        ("dmd", "a flat mean", tensor("statistics/class/0/mean/start", torch.zeros(10**6))),
        ("dmd", "no count", tensor("statistics/class/0/count", None)),
        ("dmd", "a class without number", tensor("statistics/class/x/count", torch.zeros(()))),
        ("dmd", "whole numbers", tensor("coordinates.0.mean", torch.zeros(4, dtype=torch.int64))),
        ("dmd", "a tensor more", tensor("operator.more", torch.zeros(3))),
        ("dmd", "a deep description", put("text", value=_DEEP)),
        ("dmd", "a list", put("text", value="[]")),
        ("dmd", "many values", put("text", value=f"[{'[],' * 3_000_000}0]")),
        ("dmd", "keys", put("text", value=json.dumps({f"{k:x}": k for k in range(10**6)}))),
        ("dmd", "digits", put("text", value="1" * 10_000)),
    ]
    for number, (source, name, change) in enumerate(changes):
        yield name, resealed(made[source], folder / f"surrogate{number}.safetensors", change)


def _family(name: str, latent: int) -> dict[str, Any]:
    return {"family": name, "latent": latent, "steps": 1}


def _inputs(card: Any, tensors: dict[str, Any]) -> None:
    """Inputs larger than memory, for a way that needs some."""
    card["swaps"][0] |= {"inputs": [[[10**6, 10**6], "float32"]], "how": "eager"}


def _wide(source: Path, count: int) -> dict[str, Any]:
    """The description of a surrogate with so many random features, in itself right."""
    with safe_open(source, "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()[SURROGATE])
    part = config["observables"]["parts"][0]
    config["operator"]["latent"] += count - part["count"]
    part["count"] = count
    ends = [0, len(config["sizes"]) - 1]
    span = config["span"]
    span |= {"layers": [span["layers"][k] for k in ends], "times": [0.0, 1.0]}
    return config | {"sizes": [config["sizes"][k] for k in ends]}


def of_weights(folder: Path, made: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """Records of swaps that would take memory, or are none."""
    config = ("swaps", 0, "config")
    changes: list[tuple[str, Any]] = [
        ("a swap's latent", put(*config, value=_wide(made["edmd"], 30_000))),
        ("a swap's sizes", put(*config, "sizes", value=[[4, 10**9]] * 2)),
        ("a swap's features", put(*config, value=_wide(made["edmd"], 10**9))),
        ("a swap's inputs", _inputs),
        ("a swap's way", put("swaps", 0, "how", value="os.system")),
        ("a swap's flags", put("swaps", 0, "keep_escapes", value="no")),
        ("inputs of no size", put("swaps", 0, "inputs", value=[[[-1], "float32"]])),
        ("swaps of text", put("swaps", value=["swap"] * 10)),
        ("no swaps", put("swaps", value=None)),
    ]
    for number, (name, change) in enumerate(changes):
        yield name, resealed(made["weights"], folder / f"weights{number}.safetensors", change)


def of_tensors(folder: Path) -> Iterator[tuple[str, Path]]:
    """Headers of safetensors files."""
    one = '"dtype":"F32","shape":[1],"data_offsets":[0,4]'
    huge = f'"dtype":"F32","shape":[{2**40}],"data_offsets":[0,{2**42}]'
    product = f'"dtype":"F32","shape":[{2**32},{2**32},{2**32}],"data_offsets":[0,4]'
    many = ",".join(f'"t{k}":{{{one}}}' for k in range(300_000))
    yield "a length beyond all", raw(folder / "h0.safetensors", "{}", length=2**63)
    yield "a length beyond the file", raw(folder / "h1.safetensors", "{}", length=99_000_000)
    yield "a huge tensor", raw(folder / "h2.safetensors", header(f',"a":{{{huge}}}'))
    yield "an overflow", raw(folder / "h3.safetensors", header(f',"a":{{{product}}}'), b"1234")
    yield (
        "two in one place",
        raw(folder / "h4.safetensors", header(f',"a":{{{one}}},"b":{{{one}}}'), b"1234"),
    )
    yield "many names", raw(folder / "h5.safetensors", header(f",{many}"), b"1234")
    yield "a deep header", raw(folder / "h6.safetensors", _DEEP)
    yield "lists", raw(folder / "h7.safetensors", header(f',"a":[{"[]," * 3_000_000}0]'))
    yield "metadata of numbers", raw(folder / "h8.safetensors", '{"__metadata__":{"a":1}}')
    yield "no text", raw(folder / "h9.safetensors", b'{"\xff\xfe":1}')
    shape = f'"dtype":"F32","shape":[{"1," * 4_000_000}1],"data_offsets":[0,4]'
    yield "many axes", raw(folder / "h10.safetensors", header(f',"a":{{{shape}}}'), b"1234")


def of_programs(folder: Path, made: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """Archives and ONNX files."""
    card = "x/extra/torchkoopman.json"
    path = folder / "bomb.pt2"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(card, "w") as file,
    ):
        for _ in range(400):
            file.write(b" " * 2**20)
    yield "a compressed card", sealed_archive(path)
    for number, text in enumerate((_DEEP, f"[{'[],' * 3_000_000}0]", "[]", "{}", "\0")):
        path = folder / f"card{number}.pt2"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(card, text)
        yield f"card {text[:4]!r}", sealed_archive(path)
    path = folder / "entries.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(card, "{}")
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02")
    entry, end = content[at:-22], bytearray(content[-22:])
    count = 400_000
    end[8:12] = struct.pack("<HH", 0xFFFF, 0xFFFF)
    end[12:16] = struct.pack("<I", count * len(entry))
    path.write_bytes(content[:at] + entry * count + end)
    yield "many entries", sealed_archive(path)
    yield "fields", sealed_onnx(folder / "fields.onnx", b"\x08\x01" * 5_000_000)
    yield "a long field", sealed_onnx(folder / "long.onnx", b"\x3a\xff\xff\xff\xff\x7f")
    yield "an endless number", sealed_onnx(folder / "endless.onnx", b"\xff" * 100)
    deep = onnx_files._entry("torchkoopman", _DEEP)
    yield "a deep card", sealed_onnx(folder / "deep.onnx", deep)
    beside = onnx_files._entry("torchkoopman.beside", json.dumps({"../dmd.safetensors": "0" * 64}))
    yield (
        "weights elsewhere",
        sealed_onnx(folder / "beside.onnx", made["onnx"].read_bytes() + beside),
    )


class Payload:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.trace,)  # type: ignore[return-value]


def with_code(folder: Path, made: dict[str, Path], trace: Path) -> Iterator[tuple[str, Path]]:
    """Pickles under all suffixes, and in the places where a reader might look."""
    code = pickle.dumps(Payload(trace))
    for suffix in (".safetensors", ".pt2", ".onnx"):
        plain, saved = folder / f"pickle{suffix}", folder / f"saved{suffix}"
        plain.write_bytes(code)
        yield f"a pickle as {suffix}", plain
        torch.save({"a": Payload(trace)}, saved)
        yield f"torch.save as {suffix}", saved
    path = folder / "inputs.pt2"
    with zipfile.ZipFile(made["pt2"]) as source, zipfile.ZipFile(path, "w") as archive:
        for entry in source.infolist():
            bad = entry.filename.endswith((".json", "model.pt"))
            archive.writestr(entry.filename, code if bad else source.read(entry))
    yield "a program of pickles", sealed_archive(path)


def versions(folder: Path, made: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """Files of formats and versions that do not exist yet, or are none."""
    for number, said in enumerate(
        ("3", "99", "0", "1", "-2", "2.0", "two", "", " 2", "0x2", "2e0")
    ):
        for source in ("dmd", "weights"):
            path = folder / f"version{number}{source}.safetensors"
            with safe_open(made[source], "pt") as file:
                texts = {**dict(file.metadata()), tensor_files.NUMBER: said}
            texts["torchkoopman.sha256"] = "0" * 64
            save_file(load_file(made[source]), path, texts)
            tensor_files.seal_tensors(path)
            yield f"format {said!r} of {source}", path
    for number, said in enumerate(("99.0", "0.2", "1000")):
        path = folder / f"weights.unnumbered{number}.safetensors"
        with safe_open(made["weights"], "pt") as file:
            card = json.loads(file.metadata()[CARD])
        del card["format"]
        card["version"] = said
        save_file(load_file(made["weights"]), path, {CARD: json.dumps(card)})
        yield f"version {said!r} without a format", path
    path = folder / "format3.pt2"
    path.write_bytes(made["pt2"].read_bytes().replace(b"format 2 sha256", b"format 3 sha256"))
    yield "format 3 of an archive", path
    path = folder / "format3.onnx"
    content = made["onnx"].read_bytes()[: -seals.DIGITS - len(onnx_files._mark())]
    own, later = (onnx_files._entry("torchkoopman.format", said) for said in "23")
    assert content.endswith(own)
    path.write_bytes(content.removesuffix(own) + later)
    seals.seal(path, onnx_files._mark())
    yield "format 3 of an ONNX file", path
