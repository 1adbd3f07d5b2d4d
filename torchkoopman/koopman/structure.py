"""From a description to the parts of a surrogate, without building what no file has numbers for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchkoopman.koopman.coordinates import Coordinates
from torchkoopman.koopman.edits import Edit
from torchkoopman.koopman.learnt import LearntObservables
from torchkoopman.koopman.observables import Dictionary
from torchkoopman.koopman.operators import operator_from_config
from torchkoopman.koopman.span import FitRecord, Span
from torchkoopman.koopman.thin import FORMED

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 1000
"""Parts of a dictionary, and hidden layers, that a description may list."""
_STEPS = 2**20
"""Steps of an operator, each of which is one product."""
_KINDS: dict[str, type[Dictionary] | type[LearntObservables]] = {
    "dictionary": Dictionary,
    "learnt": LearntObservables,
}


def parts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a surrogate of the structure of ``config``; its tensors are still to be loaded.

    Raises:
        ValueError: a description from before layers had views.
    """
    observables = config["observables"]
    return {
        "span": Span.from_config(config["span"]),
        "coordinates": [Coordinates.zeros(size, features) for size, features in config["sizes"]],
        "observables": _KINDS[observables["kind"]].from_config(observables),
        "operator": operator_from_config(config["operator"]),
        "record": FitRecord.from_config(config["record"]),
        "edits": [Edit.from_card(card) for card in config["edits"]],
    }


def card_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of a surrogate of the structure of ``config``; JSON-able."""
    return {
        "layers": list(config["span"]["layers"]),
        "latent": config["operator"]["latent"],
        "operator": config["operator"]["family"],
        "observables": config["observables"]["kind"],
        **config["record"],
        "edits": list(config["edits"]),
    }


def outline(config: Mapping[str, Any], start: str, end: str) -> dict[str, Any]:
    """The least structure whose replacement between two layers is that of ``config``.

    An operator is then one free matrix, whatever it was fitted as, unless it has a form of its own
    in the replacement. A description of other kind, of a surrogate that is none of ours, stays as
    it is.
    """
    if "span" not in config:
        return dict(config)
    span = Span.from_config(config["span"])
    check_lists(config, len(config["sizes"]))
    operator = {"family": "Dense", "latent": config["operator"]["latent"], "steps": 1}
    if config["operator"]["family"] in FORMED:
        operator = {**config["operator"], "steps": 1}
    sizes = dict(zip(span.layers, config["sizes"], strict=True))
    return {
        **config,
        "span": span.between(start, end).config(),
        "sizes": [sizes[start], sizes[end]],
        "operator": operator,
        "edits": [],
    }


def filled(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The parts with their tensors, in the tensors' own precision.

    What ``config`` describes is compared with the tensors first, without memory for its sizes.

    Raises:
        ValueError: they do not fit each other.
    """
    check_lists(config, len(tensors))
    _check_rotation(config["operator"], tensors)
    with torch.device("meta"):
        expected = _held(parts_of(config)).state_dict()
    described = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(described.keys() | given.keys()):
        if described.get(name) != given.get(name):
            raise ValueError(
                f"its description gives the tensor {name!r} the shape {described.get(name)}, and "
                f"the file holds {given.get(name)}"
            )
        if not tensors[name].is_floating_point():
            raise ValueError(f"its tensor {name!r} is of type {tensors[name].dtype}")
    parts = parts_of(config)
    # Assigned, not copied, for the structure is float32 and the tensors may be float64.
    _held(parts).load_state_dict(dict(tensors), assign=True)
    return parts


def _held(parts: Mapping[str, Any]) -> nn.Module:
    """A module with the names that a surrogate gives its tensors."""
    holder = nn.Module()
    holder.coordinates = nn.ModuleList(parts["coordinates"])
    holder.observables, holder.operator = parts["observables"], parts["operator"]
    return holder


def check_lists(config: Mapping[str, Any], layers: int) -> None:
    """Bound what takes memory by its number rather than by its size.

    Raises:
        ValueError: more layers than ``layers``, or more parts or steps than make sense.
    """
    observables, operator = config["observables"], config["operator"]
    listed = [*observables.get("hidden", ()), *observables.get("parts", ())]
    if len(listed) > _MOST or len(config["sizes"]) > layers:
        raise ValueError(
            f"it describes {len(config['sizes'])} layers and {len(listed)} parts, at most {layers} "
            f"and {_MOST}"
        )
    steps = operator["steps"]
    if type(steps) is not int or not 1 <= steps <= _STEPS:
        raise ValueError(f"its operator takes steps={steps!r}")


def _check_rotation(operator: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    # The one family whose structure takes numbers to be built, so that it is not built without.
    rotation = tensors.get("operator.rotation.parametrizations.weight.original")
    shape = None if rotation is None else tuple(rotation.shape)
    if operator["family"] == "Orthogonal" and shape != (operator["latent"],) * 2:
        raise ValueError(
            f"its orthogonal operator has latent={operator['latent']!r}, and a tensor of {shape}"
        )
