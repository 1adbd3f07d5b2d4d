"""``tk.report``: results as one HTML file, with the panels of TensorBoard's tab."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from torchkoopman_panels import Document, Series, page

from torchkoopman.flows.looks import FlowLook
from torchkoopman.koopman.paths import Paths
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.showing.dispatch import series_of
from torchkoopman.showing.tables import table_series
from torchkoopman.storage.whole import whole
from torchkoopman.tables import Tabular
from torchkoopman.topology.report import Topology
from torchkoopman.unlearning.report import Audit

if TYPE_CHECKING:
    from collections.abc import Iterator

Results = Any
"""A result; several of them; or run → either of these, or ``{step: either}``."""

_SUFFIXES = (".html", ".htm")
_ALONE = "tables"
"""Span of the tables of a run that has no other."""


@runtime_checkable
class Paged(Protocol):
    """A result whose steps are layers, such as a ``tk.results.Inspection``."""

    def add_to(self, document: Document, run: str) -> None:
        """Add what it shows."""
        ...


def report(path: str | Path, results: Results, *, title: str = "") -> Path:
    """Write results into one HTML file, with the panels of the TensorBoard tab.

    It needs no server, no network and nothing beside it, so it can be mailed, opened from a disk,
    or shown in a notebook's frame. Numbers are rounded and steps left out as
    :func:`torchkoopman_panels.page` does, and the page says so.

    Surrogates, topologies, audits, paths and looks at flows are drawn; other results are shown as
    their tables; an :class:`torchkoopman.results.Inspection` has a page by depth, whose steps are
    its blocks.

    Example:
        >>> inspection = tk.inspect(model, train.loader(500), progress=False)
        >>> tk.report("network.html", inspection).name
        'network.html'
        >>> ranking = tk.rank_spans(model, train.loader(500), layers, progress=False)
        >>> tk.report("span.html", {"tanh": [surrogate, ranking]}, title="One span").name
        'span.html'

    Args:
        path: of the file, ending in ``.html``; one that is there is replaced.
        results: a result, a list of them, or a mapping from names of runs to one of these or to
            ``{step: result or list}``, by which a slider goes.
        title: what the page is called; by default the file's name.

    Returns:
        The path.

    Raises:
        TypeError: what is no result, or a name of a run that is no text.
        ValueError: no results, another suffix, steps that are no numbers, or an inspection beside
            steps of a training.
        OSError: the file cannot be written. It is written whole or not at all.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"report() writes HTML, and got path={str(path)!r}; end it in '.html'.")
    document = document_of(results, title or path.stem)
    text = page(document)
    try:
        with whole(path) as place:
            place.write_text(text, "utf-8")
    except OSError as error:
        raise OSError(
            f"the report cannot be written to {str(path)!r}: {error}. Give the path of a file in a "
            "folder that exists and can be written to."
        ) from error
    return path


def document_of(results: Results, title: str) -> Document:
    """The series of all results.

    Raises:
        TypeError: what is no result, or a name of a run that is no text.
        ValueError: no results, steps that are no numbers, or two kinds of steps.
    """
    document = Document(title)
    tables: dict[str, list[Series]] = {}
    notes: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}
    paged = stepped = False
    for run, step, result in _listed(results):
        at = 0.0 if step is None else step
        stepped |= step is not None
        if isinstance(result, Surrogate | Topology | Audit | Paths | FlowLook):
            shown = series_of(result)
            span = _free(document, run, shown.span, at, shown.series)
            document.add(run, span, at, shown.series)
            if shown.notes:
                notes[run, span] = at, shown.notes
        elif isinstance(result, Paged):
            paged = True
            result.add_to(document, run)
        elif isinstance(result, Tabular):
            tables.setdefault(run, []).append(_table(result, step, len(tables.get(run, ()))))
        else:
            raise TypeError(
                f"report() got a {type(result).__name__}, which is no result: give surrogates, "
                "inspections, or what else torchkoopman gives back, a list of them, or {run: one "
                "of these or {step: one of these}}."
            )
    if paged and stepped:
        raise ValueError(
            "report() got inspections, whose steps are blocks, beside steps of a training: one "
            "slider cannot be both. Write two reports, or give inspections as runs of their own "
            "names, without steps."
        )
    document.axis = "layer" if paged else "step"
    for (run, span), (at, said) in notes.items():
        document.add(run, span, at, [Series("notes", np.empty(0), {"notes": list(said)})])
    for run, listed in tables.items():
        spans = dict.fromkeys(key[1] for key in document.arrays if key[0] == run) or {_ALONE: None}
        for span in spans:
            document.add(run, span, _first_step(document, run, span), listed)
    return document


def _listed(results: Results) -> Iterator[tuple[str, float | None, Any]]:
    """Run, step if there is one, and result, one after the other.

    Raises:
        TypeError: the name of a run is no text.
        ValueError: no results, or steps that are no numbers.
    """
    runs = results if isinstance(results, Mapping) else {"results": results}
    if not runs:
        raise ValueError(_EMPTY.format(results))
    for run, own in runs.items():
        if not isinstance(run, str):
            raise TypeError(
                f"report() got the run {run!r}; runs have names: {{'run': {{step: result}}}}."
            )
        steps = own if isinstance(own, Mapping) else {None: own}
        if not steps:
            raise ValueError(_EMPTY.format(results))
        for step, each in steps.items():
            if isinstance(own, Mapping):
                _check_step(step, run)
            several = each if isinstance(each, list | tuple) else [each]
            if not several:
                raise ValueError(_EMPTY.format(results))
            for result in several:
                yield run, step, result


_EMPTY = (
    "report() got results={!r}, in which a run or a step has none; give a result, a list of them, "
    "or {{run: result}}."
)


def _check_step(step: Any, run: str) -> None:
    """Refuse a step that is no number.

    Raises:
        ValueError: it is none.
    """
    if isinstance(step, bool) or not isinstance(step, int | float) or not np.isfinite(step):
        raise ValueError(
            f"report() got the step {step!r} in run {run!r}; steps of a training are numbers."
        )


def _free(document: Document, run: str, span: str, step: float, series: tuple[Series, ...]) -> str:
    """The span, or one with a number behind where these series have something at this step."""
    names, number = {each.name for each in series}, 1
    while True:
        name = span if number == 1 else f"{span} ({number})"
        taken = {
            key[2]
            for key, steps in document.arrays.items()
            if key[:2] == (run, name) and step in steps
        }
        if not names & taken:
            return name
        number += 1


def _table(result: Tabular, step: float | None, number: int) -> Series:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(result).__name__).capitalize()
    title = words if step is None else f"{words} at step {step:g}"
    return table_series(f"{number}", title, result.table())


def _first_step(document: Document, run: str, span: str) -> float:
    found = (min(steps) for key, steps in document.arrays.items() if key[:2] == (run, span))
    return min(found, default=0.0)
