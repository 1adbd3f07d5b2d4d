"""``tk.fit``: a model and a loader become a surrogate, with a progress bar and a report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from tqdm.auto import tqdm

from torchkoopman.fitting.autoencoder import AutoencoderFitter
from torchkoopman.fitting.dmd import DMDFitter
from torchkoopman.fitting.edmd import EDMDFitter
from torchkoopman.observe.batches import batches_in, check_loader
from torchkoopman.observe.watch import Watch
from torchkoopman.running.baselines import Baselines
from torchkoopman.running.evaluation import Evaluator
from torchkoopman.running.holdout import Holdout, Limited
from torchkoopman.running.starting import run_of
from torchkoopman.running.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import nn

    from torchkoopman.fitting.closed_form import Fitter
    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.observe.batches import Forward
    from torchkoopman.observe.processes import Group
    from torchkoopman.observe.selection import Layers
    from torchkoopman.observe.views import LayoutOption, OutputOption

Method = Literal["autoencoder", "edmd", "dmd"]

_ONLINE = 0.4
"""Share of the autoencoder's steps taken while the data stream; the rest follow from replay."""
_RIVAL_ROWS = 20_000
"""Rows after which the closed form of 500 features, there for comparison, has converged."""
_HELD_OUT = 2000
"""The most samples that are held out of a single pass."""


def fit(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Layers,
    *,
    method: Method | Fitter = "autoencoder",
    held_out: Iterable[Any] | None = None,
    epochs: int = 1,
    steps: int = 1000,
    layout: LayoutOption | None = None,
    output: OutputOption | None = None,
    positions: int | None = None,
    forward: Forward | None = None,
    gather: bool = False,
    progress: bool = True,
    group: Group = None,
    checkpoint: str | Path | None = None,
    every: int = 100_000,
    **options: Any,
) -> Surrogate:
    """Fit a surrogate of the chosen layers in one line.

    The model runs in eval mode without gradients and is given back as it was. The surrogate is
    evaluated on held-out rows, beside trivial baselines (skip, ridge map, PCA + linear) and, for
    the autoencoder, a closed form; ``progress`` prints this, and the surrogate's ``record`` has it.

    Example:
        >>> fitted = tk.fit(model, train.loader(500), ["1", "9"], method="edmd", progress=False)
        >>> fitted.layers, fitted.latent  # 1, 32 coordinates, 500 random features
        (('1', '9'), 533)
        >>> fitted.record.held_out["9"] > fitted.record.baselines["ridge map"]
        True

    Args:
        model: any eager module.
        loader: batches: a tensor, ``(inputs, labels)``, as many inputs as ``forward`` requires,
            ``(a, b, labels)`` or ``((a, b), labels)``, or a mapping of keyword arguments whose
            ``"labels"`` are the classes and whose ``"attention_mask"`` says which positions count.
            Labels are integers, ``(batch,)`` or ``(batch, 1)``; other targets are not used, and the
            record's notes say so.
        layers: as for :func:`torchkoopman.attach`.
        method: ``"autoencoder"``, ``"edmd"``, ``"dmd"``, or a fitter.
        held_out: batches that the fit does not see. By default every tenth sample of the loader is
            held out, up to 2 000.
        epochs: passes over the loader; more than one needs ``held_out``, since a shuffled second
            pass would show the fit what was held out of the first.
        steps: gradient steps of the autoencoder in all, two fifths of them while data stream.
        layout: einops pattern of the layers' outputs, as for :func:`torchkoopman.attach`.
        output: which tensor is the state where a layer returns several, as for
            :func:`torchkoopman.attach`. The surrogate keeps paths and layouts as its ``views``; of
            a function only the name.
        positions: take so many random positions of each sample instead of all.
        forward: how to call the model on a batch, if not as above.
        gather: assemble the parts of a layer that processes hold under tensor parallelism, as for
            :func:`torchkoopman.attach`; all of them call this with the same batches.
        progress: show a bar and print the evaluation; with many processes, in the first one.
        group: the processes of ``torch.distributed`` that fit one surrogate, each with its own
            shard in ``loader``: a process group, a ``DeviceMesh`` of one dimension, or None for
            all. All call this and get the same surrogate; shards may be uneven or empty. The
            autoencoder then takes all its steps after the stream, each on a batch of which every
            process has a part. A process that fits alone takes a group of its own.
        checkpoint: a file from which the same call goes on after Ctrl-C or a crash, and ends with
            the surrogate that it would have had, on the same machine bit by bit. The loader must
            give its batches in the same order again: a list; a DataLoader that does not shuffle, or
            has a seeded ``generator``; or one with ``state_dict`` and ``load_state_dict``. The
            latest checkpoint and the one before it are kept, also at the end: remove them to fit
            anew. The autoencoder's rows are in a file beside them, ``<checkpoint>.rows-…``, which
            grows: move it with them. With many processes each writes a file of its own beside it;
            they continue from the latest that all of them have, and must be as many as before.
        every: rows of a process from one checkpoint to the next; the end of the stream has one too.
        **options: of the fitter, such as ``latent=32``.

    Raises:
        ValueError: ``epochs`` without ``held_out``, an unknown method, a loader without batches or
            without a row that counts, or a model on the meta device; a checkpoint of another fit,
            or a loader whose order cannot be repeated.
        TypeError: options together with a fitter; a Dataset, a tensor or one batch in place of the
            loader; batches that the model does not take; one number as labels; with many processes
            a fitter without ``sync``; with a checkpoint one without ``state_dict``.
        RuntimeError: torchrun started many processes that are in no process group, or one died;
            another fit writes its checkpoints to the same file.
        KeyboardInterrupt: Ctrl-C; many processes with checkpoints all stop after the same one. The
            message says how to go on.
    """
    if epochs > 1 and held_out is None:
        raise ValueError(
            f"epochs={epochs} visits the loader again, so rows held out of the first pass would be "
            "seen in the next. Give held_out=a loader of other data; one pass is usually enough, "
            "since the autoencoder replays."
        )
    check_loader(held_out, "held_out")
    length = batches_in(loader, epochs)
    together = Together(group)
    progress = progress and together.leads
    if method == "autoencoder" and (length is not None or together.size > 1):
        online = 0 if together.size > 1 else _ONLINE * steps / max(1, length or 0)
        options = {"steps_per_update": online, **options}
    fitter = _fitter(method, options)
    autoencoder = fitter if isinstance(fitter, AutoencoderFitter) else None
    baselines = Baselines(fitter.delays if isinstance(fitter, DMDFitter) else 0)
    rival = None if autoencoder is None else EDMDFitter(rank=autoencoder.rank, dynamics="span")
    kept = Holdout(0 if held_out is not None else _HELD_OUT // together.size, [fitter, baselines])
    kept.listeners += [] if rival is None else [Limited(rival, _RIVAL_ROWS // together.size)]
    watch = Watch(model, layers, layout, positions, forward, output, classes=True, gather=gather)
    rivals = [] if rival is None else [rival]
    own, taken = not isinstance(method, str), None if autoencoder is None else steps
    how = epochs, fitter, kept, checkpoint, every, own, together, rivals
    run = run_of(watch, loader, *how, steps=taken)
    with run:
        if progress and run.resumed:
            tqdm.write(run.resumed)
        bar = tqdm(run.batches(), "stream", length, disable=not progress, initial=run.done)
        streamed = run.watching(watch).stream(bar, kept)
        note = run.targets.note
        note = together.noted(note) if run.resumed else together.required(streamed, "loader")
        together.sync(fitter)
        together.over(baselines)
        if autoencoder is not None:
            autoencoder.train(0)  # what was due before the calibration ended
            autoencoder.train(max(steps - autoencoder.steps, 0), progress=progress)
    surrogate = fitter.surrogate
    instant, notes = ({}, ()) if rival is None else _instant(rival, together)
    evaluator = Evaluator(surrogate, baselines.maps(surrogate.latent), instant, notes)
    for trajectory in kept.held:
        evaluator.update(trajectory)
    if held_out is not None:
        together.required(watch.stream(held_out, evaluator), "held_out")
    together.over(evaluator)
    evaluation = evaluator.result()
    if progress:
        tqdm.write(str(evaluation))
    record = surrogate.record
    said = () if note is None else (note,)
    record = replace(
        record,
        held_out=evaluation.layers,
        baselines=evaluation.baselines,
        outside=evaluation.outside,
        notes=(*record.notes, *said),
    )
    return surrogate.with_(record=record)


def _instant(rival: EDMDFitter, together: Together) -> tuple[dict[str, Surrogate], tuple[str, ...]]:
    """The closed form to compare with, or why there is none: too few rows for its observables."""
    try:
        together.sync(rival)
        return {"EDMD": rival.surrogate}, ()
    except ValueError as error:
        return {}, (f"no EDMD beside it: {error}",)


def _fitter(method: Method | Fitter, options: dict[str, Any]) -> Fitter:
    """The fitter meant; a string is a kind, anything else already one."""
    kinds: dict[Any, Callable[..., Fitter]] = {
        "autoencoder": AutoencoderFitter,
        "edmd": EDMDFitter,
        "dmd": DMDFitter,
    }
    if not isinstance(method, str):
        if options:
            raise TypeError(
                f"options {sorted(options)} go to the fitter when you make it yourself."
            )
        return method
    if method not in kinds:
        raise ValueError(f"method={method!r} is unknown; choose one of {list(kinds)}.")
    return kinds[method](**options)
