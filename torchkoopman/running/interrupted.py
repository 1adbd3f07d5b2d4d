"""What an interrupted fit says: what was kept of it, and how to go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def way_on(
    rows: int, several: bool, path: Path | None, written: int | None, own: bool, inside: bool
) -> str:
    """What was kept of an interrupted run, and how to go on.

    Args:
        rows: that were streamed here.
        several: whether this is one of several processes.
        path: of the checkpoints; None for none.
        written: rows that the latest checkpoint holds; None before the first.
        own: whether the fitter is the user's, who still has it.
        inside: whether it was stopped in the middle of a batch.
    """
    here = " of this process" if several else ""
    stopped = f"the fit was stopped after {rows} rows{here}"
    if path is not None and written is not None:
        return (
            f"{stopped}. The checkpoint {str(path)!r} holds what was learnt of "
            f"{written} rows{here}; the same call of fit() goes on from there."
        )
    if path is not None:
        return (
            f"{stopped}, before the first checkpoint, so what was learnt is lost. Take a smaller "
            "every=, the rows from one checkpoint to the next."
        )
    if own and not inside:
        return (
            f"{stopped}. Your fitter keeps what it has learnt of them: look at its surrogate, or "
            "stream the batches that are left to it. The same call of fit() would count these "
            "rows again; with checkpoint=path it goes on instead."
        )
    if own:
        return (
            f"{stopped}, in the middle of a batch, of which your fitter may have learnt a part: "
            "reset() it. With checkpoint=path the same call of fit() goes on instead."
        )
    return (
        f"{stopped}, and what was learnt is lost. With checkpoint=path the same call of fit() "
        "goes on from the latest checkpoint."
    )
