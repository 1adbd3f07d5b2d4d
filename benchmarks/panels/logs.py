"""Documents of the panels as event files, as ``log`` writes its series."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torchkoopman_panels import Document, Series
from torchkoopman_tensorboard.summary import _of_series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def logged(document: Document, folder: Path) -> Path:
    """All series of a document, a folder below this one for each run."""
    steps: dict[tuple[str, float], list[tuple[str, Series]]] = {}
    for (run, span, name, about), arrays in document.arrays.items():
        for step, values in arrays.items():
            series = Series(name, values, json.loads(about))
            steps.setdefault((run, step), []).append((span, series))
    for run in dict.fromkeys(run for run, _ in steps):
        summaries = {
            s: [_of_series(*e) for e in each] for (r, s), each in steps.items() if r == run
        }
        write(folder / run, summaries)
    return folder


def write(folder: Path, summaries: Mapping[float, Iterable[Summary.Value]]) -> Path:
    """An event at each step."""
    writer = EventFileWriter(str(folder))
    for step, values in summaries.items():
        event = Event(wall_time=time.time(), step=int(step), summary=Summary(value=values))
        writer.add_event(event)
    writer.close()
    return folder
