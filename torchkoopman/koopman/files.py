"""Surrogates on disk: safetensors with a JSON description, no pickled code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchkoopman.koopman.structure import filled
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.pairs import layer_pairs, regressions
from torchkoopman.spectra.evidence import Evidence
from torchkoopman.storage.errors import FileError, understood
from torchkoopman.storage.formats import parsed
from torchkoopman.storage.tensor_files import read_metadata, read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

SUFFIX = ".safetensors"
_CONFIG = "torchkoopman.surrogate"
_STATISTICS, _EVIDENCE = "statistics/", "evidence/"
_PAIRS = layer_pairs(("start", "end"), "ends")


def write_surrogate(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    statistics: LabelledMoments | None,
    evidence: Evidence | None,
) -> None:
    """Write the parts of a surrogate."""
    named = dict(tensors)
    if statistics is not None:
        named |= {f"{_STATISTICS}{name}": t for name, t in statistics.tensors().items()}
    if evidence is not None:
        named |= {f"{_EVIDENCE}{name}": t for name, t in evidence.tensors().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, named, {_CONFIG: json.dumps(config)})


def read_surrogate(path: Path) -> dict[str, Any]:
    """The parts of the surrogate in a file, arguments of its constructor.

    Raises:
        MissingFileError: there is no such file.
        FileError: it holds no surrogate, is damaged, or of a format that is not known.
    """
    metadata, tensors = read_tensors(path)
    if not is_surrogate(metadata):
        raise FileError(
            f"{str(path)!r} holds no surrogate; files of edited models are for load(model, path)."
        )
    config = parsed(path, metadata[_CONFIG], "its description")
    with understood(path, "the surrogate's description"):
        data = {n: tensors.pop(n) for n in list(tensors) if n.startswith((_STATISTICS, _EVIDENCE))}
        latent = config["operator"]["latent"]
        parts = filled(config, tensors)
        return parts | {
            "statistics": _statistics(data, latent),
            "evidence": _evidence(config.get("evidence"), data, latent),
        }


def described_surrogate(path: Path) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """The description of the surrogate in a file, None if it holds none, and the metadata.

    Raises:
        MissingFileError: there is no such file.
        FileError: no safetensors file, damaged, or of a format that is not known.
    """
    metadata = read_metadata(path)
    if not is_surrogate(metadata):
        return None, metadata
    config = parsed(path, metadata[_CONFIG], "its description")
    if not isinstance(config, dict):
        raise FileError(f"{str(path)!r}: the surrogate's description is a {type(config).__name__}.")
    return config, metadata


def is_surrogate(metadata: Mapping[str, str]) -> bool:
    """Whether the metadata are those of a surrogate's file."""
    return _CONFIG in metadata


def surrogates_path(path: str | Path) -> Path:
    """A path with the one suffix of surrogates.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path} must end in {SUFFIX}, the one format of surrogates.")
    return path


def _statistics(tensors: Mapping[str, Tensor], latent: int) -> LabelledMoments | None:
    """The moments, if there are any, of states of this size."""
    named = {
        n.removeprefix(_STATISTICS): t for n, t in tensors.items() if n.startswith(_STATISTICS)
    }
    if not named:
        return None
    for name, tensor in named.items():
        _, _, kind = name.removeprefix("class/").rpartition("/")
        axes = 0 if kind == "count" else 2 if "/scatter/" in name else 1
        if tuple(tensor.shape) != (latent,) * axes or not tensor.is_floating_point():
            raise ValueError(
                f"its statistics {name!r} have shape {tuple(tensor.shape)} and type "
                f"{tensor.dtype}, for latent={latent}"
            )
    kept = any(name.endswith("scatter/end/end") for name in named) or len(named) == 1
    return LabelledMoments(_PAIRS if kept else regressions(_PAIRS)).load(named)


def _evidence(
    config: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], latent: int
) -> Evidence | None:
    """The sampled rows, if there are any, of states of this size."""
    start, end = (tensors.get(f"{_EVIDENCE}{place}") for place in ("start", "end"))
    if config is None and start is None and end is None:
        return None
    if config is None or start is None or end is None:
        raise ValueError("its sampled rows are incomplete")
    first, stop = config["state"]
    if start.shape != end.shape or start.shape[1:] != (latent,) or not 0 <= first < stop <= latent:
        raise ValueError(
            f"its sampled rows have shapes {tuple(start.shape)} and {tuple(end.shape)} and hold "
            f"the state from {first} to {stop}, for latent={latent}"
        )
    told = {n: tensors.get(f"{_EVIDENCE}{n}") for n in ("samples", "shares", "weights")}
    for name, known in told.items():
        if known is not None and (
            known.shape != start.shape[:1] or known.is_floating_point() != (name != "samples")
        ):
            raise ValueError(
                f"its {name} have shape {tuple(known.shape)} and type {known.dtype}, for "
                f"{len(start)} sampled rows"
            )
    return Evidence.from_config(dict(config), start, end, **told)
