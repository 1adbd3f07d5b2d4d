"""A folder of event files as one HTML file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from torchkoopman_panels import Document, Series, page

from torchkoopman_tensorboard import PLUGIN_NAME
from torchkoopman_tensorboard.notes import TEXT, notes_in, without_numbers
from torchkoopman_tensorboard.reading import LoggedSeries, arrays_in, series_in


def report(logdir: str | Path, path: str | Path) -> Path:
    """Write what a folder of event files holds into one HTML file, with the panels of the tab.

    It needs no server and no network, and neither torch nor the network that was trained. All steps
    are read; numbers are rounded and steps left out as in ``torchkoopman_panels.page``, and the
    page says so. ``python -m torchkoopman_tensorboard LOGDIR REPORT.html`` does the same.

    Example:
        >>> from torch.utils.tensorboard import SummaryWriter
        >>> from torchkoopman_tensorboard import log, report
        >>> linear = tk.fit(model, train.loader(500), ["1", "9"], method="dmd", progress=False)
        >>> with SummaryWriter("runs") as writer:
        ...     log(writer, linear, step=100)
        >>> report("runs", "report.html").name
        'report.html'

    Args:
        logdir: as TensorBoard's ``--logdir``: each folder in it that has event files is a run.
        path: of the file; one that is there is replaced.

    Returns:
        The path.

    Raises:
        FileNotFoundError: there is no folder ``logdir``.
        ValueError: nothing that :func:`log` wrote is in it.
        OSError: the file cannot be written. It is written whole or not at all.
    """
    path = Path(path)
    document = _document(Path(logdir))
    text = page(document)
    unfinished = path.parent / f".{path.name}.{os.getpid()}"
    try:
        unfinished.write_text(text, "utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise OSError(
            f"the report cannot be written to {str(path)!r}: {error}. Give the path of a file in a "
            "folder that exists and can be written to."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return path


def _document(logdir: Path) -> Document:
    if not logdir.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(logdir)!r} to report on; give the folder that you would give "
            "to tensorboard --logdir."
        )
    multiplexer = EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: 0})  # all steps
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    asked: dict[str, Any] = {"experiment_id": "", "plugin_name": PLUGIN_NAME}
    texts = {**asked, "plugin_name": TEXT}
    series, warnings = series_in(provider.list_tensors(RequestContext(), **asked))
    if not series:
        found = "; ".join(warnings) or "it holds no event files with series of the Koopman tab."
        raise ValueError(
            f"there is nothing to report on in {str(logdir)!r}: {found} "
            "torchkoopman_tensorboard.log(writer, surrogate, step) writes them."
        )
    everything = 2**31 - 1
    read = provider.read_tensors(RequestContext(), downsample=everything, **asked)
    said = provider.read_tensors(RequestContext(), downsample=everything, **texts)
    document = Document(title=logdir.resolve().name, warnings=warnings)
    for each in series:
        _add(document, each, read[each.run][each.tag])
    for each in notes_in(said, series):
        (step,) = without_numbers(said[each.run][each.tag])
        document.add(each.run, each.span, step, [Series(each.name, np.zeros(0), each.about)])
    return document


def _add(document: Document, series: LoggedSeries, data: list[Any]) -> None:
    """One series; one that cannot be read is left out, and the page says so."""
    try:
        arrays = arrays_in(data)
    except ValueError as error:
        document.warnings.append(f"{series.name} of run {series.run!r} is left out: {error}")
        return
    for step, array in arrays.items():
        document.add(series.run, series.span, step, [Series(series.name, array, series.about)])
