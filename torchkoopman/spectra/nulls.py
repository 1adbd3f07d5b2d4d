"""What a distance of two operators is held against: chance on the far side, sampling on the near.

Three hypotheses that a pair's distance can contradict:

* **unrelated**: the two share their singular values and nothing else. Operators of one kind seldom
  are so, whatever they have learnt: networks of one architecture on the same data are nearer.
* **beside**: the two are no more alike than pairs that the user names, such as networks that were
  not trained, or trained ones and untrained ones. Only such pairs share what is common to all.
* **one system**: the two are fits to different rows of the same system; see ``refits.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from torchkoopman.spectra.alignment import random_orthogonal
from torchkoopman.spectra.compared import comparable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from torchkoopman.spectra.compared import Compared, Fitted, Functions


def unrelated(pair: Compared, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random matrices of the pair's singular values."""
    found = []
    for matrix in (pair.first, pair.second):
        left, right = random_orthogonal(len(matrix), 2, generator)
        found.append(left * torch.linalg.svdvals(matrix) @ right)
    return found[0], found[1]


def named(
    pair: Compared,
    beside: Sequence[tuple[Fitted | Tensor, Fitted | Tensor]],
    rank: int,
    functions: Functions,
    less_identity: bool | None,
) -> Iterator[Compared]:
    """The matrices of the pairs that the user names; the arguments are those of ``compare``.

    Raises:
        ValueError: no pair, or one of which something else is compared than of ``pair``.
    """
    for number, both in enumerate(beside):
        name = f"beside[{number}]"
        if not isinstance(both, tuple | list) or len(both) != 2:
            raise ValueError(
                f"{name} is a {type(both).__name__}; expected a pair of surrogates or matrices, "
                "as in beside=[(one, other), …]."
            )
        names = f"{name}[0]", f"{name}[1]"
        found = comparable(*both, rank, functions, less_identity, names)
        if found.subject != pair.subject:
            raise ValueError(
                f"of {name} the {found.subject.rstrip(',')} would be compared, and of the pair "
                f"itself the {pair.subject.rstrip(',')}: name pairs that were fitted alike, or "
                "give functions= and less_identity= for all."
            )
        yield found


def one_system(
    pair: Compared, which: int, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """Two fits to rows of one of the pair's systems, as many as each had; None if not known."""
    refits = pair.refits[which]
    if refits is None or not all(each and each.rows for each in pair.refits):
        return None
    one, other = (refits.drawn(each.rows, generator) for each in pair.refits if each)
    return one, other
