"""Tables that results are shown as: aligned text where they are printed, HTML in a notebook."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Table:
    """Columns of cells, with sentences above and below."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    above: Sequence[str] = ()
    below: Sequence[str] = ()
    text: Sequence[int] = (0,)
    """Columns that hold text and are aligned to the left; numbers are aligned to the right."""

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        lines = [self._line(cells, widths) for cells in (self.head, *self.rows)]
        return "\n".join([*self.above, *lines, *self.below])

    def html(self) -> str:
        """The same for a notebook; what cells hold is shown as it is, never read as HTML."""
        sides = ["left" if k in self.text else "right" for k in range(len(self.head))]
        body = "".join(f"<tr>{_cells('td', row, sides)}</tr>" for row in self.rows)
        return (
            f"{_sentences(self.above)}<table><thead><tr>{_cells('th', self.head, sides)}</tr>"
            f"</thead><tbody>{body}</tbody></table>{_sentences(self.below)}"
        )

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        aligned = [
            cell.ljust(width) if k in self.text else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()


class Tabular:
    """A result that is shown as a table."""

    def table(self) -> Table:
        """What is shown."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


def complex_number(value: complex) -> str:
    """An eigenvalue as a cell."""
    return f"{value.real:+.4f} {value.imag:+.4f}i"


def qualities(*values: float) -> list[str]:
    """R² as cells of one column: four decimals, and where one is near 1 as many as tell it from 1.

    Two digits of ``1 - R²`` are shown, to eight decimals at most.
    """
    left = [1 - value for value in values if 0 < 1 - value < 1]
    decimals = max([4, *(1 - math.floor(math.log10(each)) for each in left)])
    return [f"{value:.{min(decimals, 8)}f}" for value in values]


def more(count: int, shown: int) -> list[str]:
    """A sentence for rows that are left out, if any are."""
    return [f"… and {count - shown} more"] if count > shown else []


def _cells(kind: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    return "".join(
        f'<{kind} style="text-align: {side}">{escape(cell)}</{kind}>'
        for cell, side in zip(cells, sides, strict=True)
    )


def _sentences(lines: Sequence[str]) -> str:
    return "".join(f"<p>{escape(line)}</p>" for line in lines)
