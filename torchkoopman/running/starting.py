"""How a run of ``tk.fit`` starts: what its checkpoints must agree in, or why there can be none."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchkoopman.fitting.resuming import Resumable
from torchkoopman.fitting.snapshots import fingerprint
from torchkoopman.observe.selection import select
from torchkoopman.observe.views import View
from torchkoopman.running.checkpoints import Checkpoints
from torchkoopman.running.loaders import described
from torchkoopman.running.meetings import Meetings
from torchkoopman.running.orders import Passes
from torchkoopman.running.run import Run
from torchkoopman.running.shared_checkpoints import SharedCheckpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torchkoopman.fitting.closed_form import Fitter
    from torchkoopman.observe.watch import Watch
    from torchkoopman.running.holdout import Holdout
    from torchkoopman.running.together import Together


def run_of(
    watch: Watch,
    loader: Iterable[Any],
    epochs: int,
    fitter: Fitter,
    holdout: Holdout,
    path: str | Path | None,
    every: int,
    own: bool,
    together: Together,
    rivals: Sequence[Any],
    **settings: Any,
) -> Run:
    """A run over a loader, with checkpoints if there is a path for them.

    Args:
        watch: how the model is run.
        loader: batches.
        epochs: passes over them.
        fitter: what learns.
        holdout: what is given the stream.
        path: of the checkpoints, or None.
        every: rows from one to the next.
        own: whether the fitter is the user's.
        together: the processes that stream.
        rivals: fitters beside it.
        **settings: of the fit, which must be the same for whoever goes on.

    Raises:
        ValueError: with a path: the loader's order cannot be repeated, ``every`` is no positive
            number, or other processes have none.
        TypeError: with a path: a fitter without ``state_dict`` and ``load_state_dict``; in many
            processes one without ``sync``.
    """
    processes = together.processes
    if processes is not None:
        _all_or_none(processes.gather(path is not None))

    def made() -> Run:
        meetings = Meetings(together.group, together.size, fitter, *rivals)
        passes = Passes(loader, epochs, repeatable=path is not None)
        told: dict[str, Any] = {}
        files: Checkpoints | SharedCheckpoints | None = None
        if path is not None:
            _check_resumable(fitter, every)
            _check_path(path)
            told = {"processes": together.size, "held_out": holdout.limit, "epochs": epochs}
            told |= _described(watch, loader, fitter) | settings
            files = Checkpoints(path) if processes is None else SharedCheckpoints(path, processes)
        return Run(passes, holdout, told, files, every, own, watch.forward is not None, meetings)

    if processes is None:
        return made()
    runs: list[Run] = []
    processes.each(lambda: runs.append(made()))
    return runs[0]


def _check_resumable(fitter: Fitter, every: int) -> None:
    """Refuse checkpoints that could not be written.

    Raises:
        ValueError: ``every`` is no positive number.
        TypeError: ``every`` is no number; a fitter without ``state_dict`` and ``load_state_dict``.
    """
    if isinstance(every, bool) or not isinstance(every, Real):
        raise TypeError(f"every={every!r} is a {type(every).__name__}; give a number of rows.")
    if not every > 0:
        raise ValueError(f"every={every} must be a positive number of rows between checkpoints.")
    if not (hasattr(fitter, "state_dict") and hasattr(fitter, "load_state_dict")):
        raise TypeError(
            f"checkpoint= needs a fitter with state_dict() and load_state_dict(); "
            f"{type(fitter).__name__} does not have both. Write them, or leave checkpoint= out."
        )


def _check_path(path: object) -> None:
    """Refuse what is no path of a file.

    Raises:
        TypeError: it is no path.
        ValueError: it has no name.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"checkpoint={path!r} is a {type(path).__name__}; give the path of a file.")
    if not Path(path).name:
        raise ValueError(f"checkpoint={str(path)!r} names no file; give the path of one.")


def _described(watch: Watch, loader: Iterable[Any], fitter: Fitter) -> dict[str, Any]:
    """What must be the same for whoever goes on."""
    return {
        "fitter": type(fitter).__name__,
        **(fitter._options() if isinstance(fitter, Resumable) else {}),
        "layers": [each.name for each in select(watch.model, watch.layers)],
        "layout": _told(watch.layout),
        "output": _told(watch.output),
        "positions": watch.positions,
        "forward": _told(watch.forward),
        **described(loader),
        "model": fingerprint(watch.model),
    }


def _all_or_none(given: Sequence[bool]) -> None:
    """See that all processes write checkpoints, or none does.

    Raises:
        ValueError: some do; in all of them.
    """
    if any(given) and not all(given):
        without = [rank for rank, each in enumerate(given) if not each]
        raise ValueError(
            f"processes {without} got no checkpoint=, and the others did: they wait for each other "
            "when one is due. Give it to all of them, or to none."
        )


def _told(option: Any) -> Any:
    """An option in plain types: a function by its name, a view by its description."""
    if isinstance(option, View):
        return option.config()
    if isinstance(option, Mapping):
        return {str(key): _told(value) for key, value in option.items()}
    if callable(option):
        return getattr(option, "__qualname__", type(option).__qualname__)
    return option
