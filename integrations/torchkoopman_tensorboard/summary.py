"""What of a surrogate goes into an event file: scalars for everybody, tensors for a dashboard."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_TENSOR,
    Summary,
    SummaryMetadata,
)
from tensorboard.util.tensor_util import make_tensor_proto

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    from torch.utils.tensorboard import SummaryWriter

    from torchkoopman import Surrogate
    from torchkoopman.results import ModeTracks, Spectrum
    from torchkoopman_tensorboard.events import EventFolder

PLUGIN_NAME = "koopman"
"""Name of the plugin that the tensors of :func:`log` are for, as a dashboard finds them."""

SPECTRUM_COLUMNS = ("real", "imaginary", "residual", "energy", "error", "closure", "trusted")
"""Columns of the tensor ``<span>/spectrum``: λ over the span, ResDMD residual, share of energy,
standard error of λ, closure, and 1 where the mode is trusted; NaN where unknown."""
TRACKS_SHOWN = 8
"""Tracks whose moduli are scalars: those that have lived longest."""


def log(
    writer: SummaryWriter | EventFolder,
    surrogate: Surrogate,
    step: int,
    tag: str = "",
    *,
    tracks: ModeTracks | None = None,
) -> None:
    """Log a surrogate at a training step.

    Scalars, under ``koopman/<span>/``, of the trusted modes: ``spectral_radius`` over the span and
    ``spectral_radius_per_step``, their number ``trusted_modes``, the number outside the unit circle
    ``modes_outside``, and the ``largest_error`` of their λ. Without data these are left out; where
    no mode is trusted, the radii and the error are. Of all modes: ``spectral_radius_all``,
    ``modes_outside_all``, and ``largest_residual`` (of modes with at least a thousandth of the
    energy). Then ``r2/<layer>`` and ``loss/<term>``. Tensors, of the plugin ``koopman``, under
    ``<span>/``: ``spectrum`` ``(latent, 7)`` with the columns ``SPECTRUM_COLUMNS``,
    ``singular_values`` ``(latent,)`` of the operator, and ``r2`` ``(layers - 1,)`` in the order of
    depth, NaN where unknown. The notes of the fit are the text ``koopman/<span>/notes``.

    With ``tracks``, of the modes that live at this step: ``tracks_living`` and ``drift``, the mean
    distance by which their λ have moved since the latest spectrum; ``track/<k>/modulus``, ``|λ|``
    of the eight that have lived longest, k being the column in ``tracks``; and the tensor
    ``tracks`` ``(latent,)``, the column of each mode of ``spectrum``, NaN where it is on no track.

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
        surrogate: fitted to layers of the network that is trained.
        step: the global step of the curve.
        tag: name of the span; by default ``<first layer>-<last layer>``.
        tracks: of the spectra until now, of which this surrogate's is the last.
    """
    spectrum = surrogate.spectrum()
    layers = list(surrogate.layers)
    tag = tag or f"{layers[0]}-{layers[-1]}"
    scalars = {**_scalars(surrogate, spectrum), **({} if tracks is None else _of_tracks(tracks))}
    for name, value in scalars.items():
        writer.add_scalar(f"koopman/{tag}/{name}", value, step)
    operator = surrogate.operator.matrix(1.0).detach().cpu().double().numpy()
    r2 = [surrogate.record.r2.get(layer, math.nan) for layer in layers[1:]]
    tensors = {
        "spectrum": _columns(spectrum),
        "singular_values": np.linalg.svd(operator, compute_uv=False),
        "r2": np.array(r2),
    }
    if tracks is not None:
        tensors["tracks"] = _columns_of_modes(tracks, len(spectrum.eigenvalues))
    metadata = {"layers": layers, "times": list(surrogate.span.times), "tag": tag}
    for name, values in tensors.items():
        content = json.dumps(metadata).encode()
        _add(writer, f"{tag}/{name}", values.astype(np.float32), PLUGIN_NAME, content, step)
    if surrogate.record.notes:
        text = np.array("\n\n".join(surrogate.record.notes).encode(), dtype=object)
        _add(writer, f"{tag}/notes", text, "text", b"", step)


def _scalars(surrogate: Surrogate, spectrum: Spectrum) -> Mapping[str, float]:
    scalars: dict[str, float] = {
        "spectral_radius_all": spectrum.radius,
        "modes_outside_all": float(spectrum.outside()),
        **_of_trusted(spectrum),
    }
    if spectrum.residuals is not None and spectrum.energies is not None:
        # A mode that the data hardly excite has an arbitrary residual, so it does not count.
        carried = spectrum.residuals[spectrum.energies >= 1e-3].numpy()
        finite = carried[np.isfinite(carried)]
        if finite.size:
            scalars["largest_residual"] = float(finite.max())
    scalars |= {f"r2/{layer}": value for layer, value in surrogate.record.r2.items()}
    scalars |= {f"loss/{term}": value for term, value in surrogate.record.losses.items()}
    return scalars


def _of_trusted(spectrum: Spectrum) -> dict[str, float]:
    """What is claimed of the dynamics: nothing without data, no radius without a trusted mode."""
    if spectrum.residuals is None:
        return {}
    kept = spectrum.keep(spectrum.trusted())
    count = len(kept.eigenvalues)
    found = {"trusted_modes": float(count), "modes_outside": float(kept.outside())}
    if count:
        found["spectral_radius"] = kept.radius
        found["spectral_radius_per_step"] = kept.radius ** (1 / kept.steps)
    if kept.errors is not None:
        finite = kept.errors[kept.errors.isfinite()]
        if len(finite):
            found["largest_error"] = float(finite.max())
    return found


def _columns(spectrum: Spectrum) -> npt.NDArray[np.float64]:
    values = spectrum.eigenvalues.numpy()
    columns = [values.real, values.imag]
    trusted = None if spectrum.residuals is None else spectrum.trusted().double()
    known = (spectrum.residuals, spectrum.energies, spectrum.errors, spectrum.closures, trusted)
    for column in known:
        columns.append(np.full(len(values), np.nan) if column is None else column.numpy())
    return np.stack(columns, 1)


def _of_tracks(tracks: ModeTracks) -> Mapping[str, float]:
    living = (tracks.indices[-1] >= 0).nonzero().flatten().tolist()
    found = {"tracks_living": float(len(living))}
    if len(tracks.steps) > 1 and math.isfinite(drift := float(tracks.drift[-1])):
        found["drift"] = drift
    moduli = tracks.eigenvalues[-1].abs()
    return found | {f"track/{k}/modulus": float(moduli[k]) for k in living[:TRACKS_SHOWN]}


def _columns_of_modes(tracks: ModeTracks, modes: int) -> npt.NDArray[np.float64]:
    columns = np.full(modes, np.nan)
    for column, index in enumerate(tracks.indices[-1].tolist()):
        if index >= 0:
            columns[index] = column
    return columns


def _add(
    writer: SummaryWriter | EventFolder,
    tag: str,
    values: npt.NDArray[Any],
    plugin: str,
    content: bytes,
    step: int,
) -> None:
    """Write one tensor for a plugin.

    ``SummaryWriter.add_tensor`` would name another plugin and set no data class, without which
    TensorBoard's loaders drop the data silently.
    """
    metadata = SummaryMetadata(data_class=DATA_CLASS_TENSOR)
    metadata.plugin_data.plugin_name = plugin
    metadata.plugin_data.content = content
    tensor = make_tensor_proto(values)
    value = Summary.Value(tag=f"{PLUGIN_NAME}/{tag}", metadata=metadata, tensor=tensor)
    file_writer = writer._get_file_writer()
    file_writer.add_summary(Summary(value=[value]), step)
