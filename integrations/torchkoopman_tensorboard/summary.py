"""What of a result goes into an event file: scalars for everybody, tensors for the Koopman tab."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_TENSOR,
    Summary,
    SummaryMetadata,
)
from tensorboard.util.tensor_util import make_tensor_proto
from torchkoopman_panels import SCHEMA

from torchkoopman_tensorboard import PLUGIN_NAME

if TYPE_CHECKING:
    import numpy.typing as npt
    from torchkoopman_panels import Series

    from torchkoopman import Surrogate
    from torchkoopman.flows import FlowLook
    from torchkoopman.results import Audit, ModeTracks, Paths, Topology


class FileWriter(Protocol):
    """What puts summaries into an event file."""

    def add_summary(self, summary: Any, global_step: int, /) -> None:
        """Write one summary at one step."""
        ...


class Writer(Protocol):
    """A ``torch.utils.tensorboard.SummaryWriter``, or what stands for one."""

    def _get_file_writer(self) -> FileWriter: ...


def log(
    writer: Writer,
    result: Surrogate | Topology | Audit | Paths | FlowLook,
    step: int,
    tag: str = "",
    *,
    tracks: ModeTracks | None = None,
    pseudospectrum: bool = False,
) -> None:
    """Log a result at a training step: scalars for any dashboard, series of arrays for the tab.

    All is under ``koopman/<span>/``; scalars are:

    * of a surrogate's trusted modes ``spectral_radius`` over the span and
      ``spectral_radius_per_step``, their number ``trusted_modes``, the number outside the unit
      circle ``modes_outside``, and the ``largest_error`` of their λ (without data these are left
      out; where no mode is trusted, the radii and the error are); of all modes
      ``spectral_radius_all``, ``modes_outside_all``, and ``largest_residual`` (of modes with at
      least a thousandth of the energy); then ``r2/<layer>``, on held-out rows where
      the record has them, else on the latest batch, and ``loss/<term>``. With ``tracks``,
      of the modes that live at this step: ``tracks_living`` and ``drift``, the mean distance by
      which their λ have moved since the latest spectrum, and ``track/<k>/modulus``, ``|λ|`` of the
      eight that have lived longest, k being the column in ``tracks``;
    * of a topology ``beta0/network/<layer>`` and ``beta0/surrogate/<layer>`` at its ε, and
      ``beta<dimension>_l1/<layer>``, the curves' relative L1 distance;
    * of an audit ``forgotten/<network>``, the share of unseen samples of the forgotten classes that
      are still given their class, ``retained/<network>``, the accuracy on the other classes, and
      ``edit_cost`` and ``swap_cost``, the accuracy lost on these;
    * of paths ``variance_shown/<layer>``, the share of variance in the plane, and
      ``paths_r2/<layer>``, R² of the prediction on these samples;
    * of a look at a flow ``attractors``, ``born``, ``gone``, the median distance ``moved``,
      ``largest_radius`` and ``largest_norm``; by set of starts ``attractors_from/<starts>``,
      ``converged/<starts>``, ``diverged/<starts>`` and ``chamfer/<starts>-<starts>``.

    Series are tensors of the plugin ``koopman``, float32; what each has along its axes is in
    ``torchkoopman_panels.schema``. Notes are the text ``notes``. Everything is one event, so that a
    step is written whole or not at all.

    Example:
        >>> from torch.utils.tensorboard import SummaryWriter
        >>> from torchkoopman_tensorboard import log
        >>> linear = tk.fit(model, train.loader(500), ["1", "9"], method="dmd", progress=False)
        >>> with SummaryWriter("runs") as writer:
        ...     log(writer, linear, step=100)
        >>> from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        >>> "koopman/1-9/trusted_modes" in EventAccumulator("runs").Reload().Tags()["scalars"]
        True

    Args:
        writer: ``torch.utils.tensorboard.SummaryWriter``, or an :class:`EventFolder`.
        result: a surrogate fitted to layers of the network that is trained, its topology or its
            paths, an audit, or a look of a :class:`torchkoopman.flows.FlowMonitor`.
        step: the global step of the curve.
        tag: name of the span; by default ``<first layer>-<last layer>``, of an audit
            ``forgetting-<classes>``, and of a look ``flow``.
        tracks: of the spectra until now, of which this surrogate's is the last.
        pseudospectrum: whether to compute and log the surrogate's, which takes seconds.

    Raises:
        TypeError: another writer, a step that is no integer, and as
            :func:`torchkoopman.showing.series_of` does.
        ValueError: an operator that is not finite.
    """
    # TensorBoard's own process, which imports this file, never loads torch.
    from torchkoopman.showing import series_of

    if not hasattr(writer, "_get_file_writer"):
        raise TypeError(
            f"log() got a {type(writer).__name__} to write with; give a "
            "torch.utils.tensorboard.SummaryWriter or an EventFolder."
        )
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise TypeError(f"log() got step={step!r}; a step of a training is an integer.")
    shown = series_of(result, tag=tag, tracks=tracks, pseudospectrum=pseudospectrum)
    values = [
        Summary.Value(tag=f"{PLUGIN_NAME}/{shown.span}/{name}", simple_value=value)
        for name, value in shown.scalars.items()
    ]
    values += [_of_series(shown.span, series) for series in shown.series]
    if shown.notes:
        text = np.array("\n\n".join(shown.notes).encode(), dtype=object)
        values.append(_tensor(f"{shown.span}/notes", text, "text", b""))
    writer._get_file_writer().add_summary(Summary(value=values), int(step))


def _of_series(span: str, series: Series) -> Any:
    """A series as a tensor.

    TensorBoard keeps the metadata of a tag's first event only. So the tag has the version of the
    schema and a digest of the metadata: where these change, as the layers of a resumed training
    may, another series begins.
    """
    about = dict(series.about)
    told = {"schema": SCHEMA, "span": span, "name": series.name, "about": about}
    content = json.dumps(told, sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()[:6]
    with np.errstate(over="ignore"):  # beyond float32 is infinite
        values = series.values.astype(np.float32)
    return _tensor(f"{span}/{series.name}.v{SCHEMA}.{digest}", values, PLUGIN_NAME, content)


def _tensor(tag: str, values: npt.NDArray[Any], plugin: str, content: bytes) -> Any:
    """One tensor for a plugin.

    ``SummaryWriter.add_tensor`` would name another plugin and set no data class, without which
    TensorBoard's loaders drop the data silently.
    """
    metadata = SummaryMetadata(data_class=DATA_CLASS_TENSOR)
    metadata.plugin_data.plugin_name = plugin
    metadata.plugin_data.content = content
    tensor = make_tensor_proto(values)
    return Summary.Value(tag=f"{PLUGIN_NAME}/{tag}", metadata=metadata, tensor=tensor)
