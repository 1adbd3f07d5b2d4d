"""Surrogates on disk: safetensors with a JSON description, no pickled code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open
from safetensors.torch import save_file

from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.observe.class_moments import LabelledMoments
from torchkoopman.observe.moments import layer_pairs
from torchkoopman.spectra.evidence import Evidence
from torchkoopman.storage.whole import whole

if TYPE_CHECKING:
    from torch import Tensor

_CONFIG = "torchkoopman.surrogate"
_STATISTICS = "statistics/"
_EVIDENCE = "evidence/"


def save_surrogate(surrogate: Surrogate, path: str | Path) -> Path:
    """Write a surrogate with its statistics and sampled rows; the undo of its edits stays behind.

    Args:
        surrogate: any; its tensors are written from the CPU.
        path: ends in ``.safetensors``.

    Raises:
        ValueError: another suffix.
    """
    path = _checked(path)
    tensors = dict(surrogate.state_dict())
    if surrogate.statistics is not None:
        tensors |= {f"{_STATISTICS}{n}": t for n, t in surrogate.statistics.tensors().items()}
    if surrogate.evidence is not None:
        rows = {"start": surrogate.evidence.start, "end": surrogate.evidence.end}
        tensors |= {f"{_EVIDENCE}{name}": tensor for name, tensor in rows.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole(path) as unfinished:
        save_file(plain, unfinished, {_CONFIG: json.dumps(surrogate.config())})
    return path


def load_surrogate(path: str | Path) -> Surrogate:
    """The surrogate that :func:`save_surrogate` wrote, on the CPU.

    Raises:
        ValueError: a file that holds no surrogate, or one written before layers had views.
        FileNotFoundError: no such file.
    """
    path = _checked(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    with safe_open(path, "pt") as file:
        config = (file.metadata() or {}).get(_CONFIG)
        if config is None:
            raise ValueError(
                f"{path} holds no surrogate; files of edited models are for load(model, path)."
            )
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    described = json.loads(config)
    try:
        surrogate = Surrogate.from_config(described)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    moments = {n.removeprefix(_STATISTICS): t for n, t in tensors.items() if _is_moment(n)}
    rows = {end: tensors.pop(f"{_EVIDENCE}{end}", None) for end in ("start", "end")}
    evidence = statistics = None
    if described.get("evidence") and rows["start"] is not None and rows["end"] is not None:
        start, end = rows["start"], rows["end"]
        evidence = Evidence.from_config(described["evidence"], start, end)
    own = {name: tensor for name, tensor in tensors.items() if not _is_moment(name)}
    # Assigned, not copied, for the structure is float32 and the tensors may be float64.
    surrogate.load_state_dict(own, assign=True)
    if moments:
        pairs = layer_pairs(("start", "end"), "ends")
        statistics = LabelledMoments(pairs).load(moments)
    return surrogate.with_(statistics=statistics, evidence=evidence).requires_grad_(False)


def _is_moment(name: str) -> bool:
    return name.startswith(_STATISTICS)


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} must end in .safetensors, the one format of surrogates.")
    return path
