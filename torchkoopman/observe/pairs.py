"""Which pairs of variables moments are kept of."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


Pair = tuple[str, str]


PairKind = Literal["ends", "chain", "adjacent", "all"]


def layer_pairs(layers: Sequence[str], kind: PairKind) -> list[Pair]:
    """The pairs of variables whose covariances a fit over ``layers`` needs.

    Every layer with itself, and across layers: the first with the last (``"ends"``); besides that
    each with the next (``"chain"``), also with the first and with the last (``"adjacent"``); or all
    (``"all"``).
    """
    own = [(layer, layer) for layer in layers]
    from_first = [(layers[0], later) for later in layers[1:]]
    to_last = [(earlier, layers[-1]) for earlier in layers[:-1]]
    match kind:
        case "ends":
            return [*own, *to_last[:1]]
        case "chain":
            return [*own, *dict.fromkeys([*pairwise(layers), *to_last[:1]])]
        case "adjacent":
            return [*own, *dict.fromkeys([*pairwise(layers), *from_first, *to_last])]
        case "all":
            later = ((a, b) for depth, a in enumerate(layers) for b in layers[depth + 1 :])
            return [*own, *later]
    raise ValueError(f"pairs={kind!r} is unknown; choose 'ends', 'chain', 'adjacent' or 'all'.")


def regressions(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Those of the pairs that regressions of later variables on earlier ones are made of.

    All but the covariance with itself of a variable that nothing is regressed on; all where no two
    variables are paired.
    """
    pairs = tuple(dict.fromkeys(pairs))
    starts = {a for a, b in pairs if a != b}
    return tuple((a, b) for a, b in pairs if a in starts) if starts else pairs


def roles(pairs: Collection[Pair], end: str) -> list[Pair]:
    """The pairs of ``"start"`` and ``"end"``, less the end's own if ``(end, end)`` was not kept."""
    known = layer_pairs(("start", "end"), "ends")
    return [pair for pair in known if pair != ("end", "end") or (end, end) in pairs]
