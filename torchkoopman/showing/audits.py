"""What an audit shows: accuracy by class and network, and every measure of each network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from torchkoopman_panels import Series

from torchkoopman.showing.shown import Shown
from torchkoopman.unlearning.report import measured

if TYPE_CHECKING:
    from torchkoopman.unlearning.report import Audit


def audit_shown(audit: Audit, tag: str) -> Shown:
    """Its series and scalars, see :func:`torchkoopman.showing.series_of`."""
    columns = audit.columns
    classes = sorted(columns[next(iter(columns))].test)
    accuracy = [
        [[column.test.get(c, math.nan), column.train.get(c, math.nan)] for c in classes]
        for column in columns.values()
    ]
    measures = {row.name: row.values for row in measured(audit) if row.label is None}
    about = {"networks": list(columns)}
    of_classes = {**about, "classes": classes, "forgotten": list(audit.classes)}
    of_all = {**about, "measures": list(measures), "limit": audit.relearning.limit}
    series = (
        Series("accuracy", np.array(accuracy), of_classes),
        Series("audit", np.array(list(measures.values())), of_all),
    )
    scalars = {}
    for name, column in columns.items():
        scalars[f"forgotten/{name}"] = column.forgotten
        scalars[f"retained/{name}"] = column.retained
    scalars["edit_cost"] = audit.edit_cost
    if audit.swap_cost is not None:
        scalars["swap_cost"] = audit.swap_cost
    span = tag or f"forgetting-{'-'.join(map(str, audit.classes))}"
    return Shown(span, series, scalars, audit.notes)
