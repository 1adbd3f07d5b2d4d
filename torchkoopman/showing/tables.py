"""A result's table, as a series: text that a page shows as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torchkoopman_panels import Series

if TYPE_CHECKING:
    from torchkoopman.tables import Table


def table_series(key: str, title: str, table: Table) -> Series:
    """The series ``table:<key>``.

    Args:
        key: tells it from the other tables of its span.
        title: what the page calls it.
        table: what is shown.
    """
    about = {
        "title": title,
        "head": list(table.head),
        "rows": [list(row) for row in table.rows],
        "text": list(table.text),
        "above": list(table.above),
        "below": list(table.below),
    }
    return Series(f"table:{key}", np.empty(0), about)
