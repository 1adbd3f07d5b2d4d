"""What a surrogate shows: its spectrum, singular values, quality and losses, and mode tracks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from torchkoopman_panels import Series

from torchkoopman.showing.shown import Shown, span_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.spectra.pseudospectrum import Kind, Pseudospectrum
    from torchkoopman.spectra.spectrum import Spectrum
    from torchkoopman.spectra.tracks import ModeTracks

TRACKS_SHOWN = 8
"""Tracks whose moduli are scalars: those that have lived longest."""


def surrogate_shown(
    surrogate: Surrogate, tag: str, tracks: ModeTracks | None, pseudospectrum: bool
) -> Shown:
    """Its series and scalars, see :func:`torchkoopman.showing.series_of`.

    Raises:
        ValueError: an operator that is not finite.
    """
    spectrum, layers = surrogate.spectrum(), list(surrogate.layers)
    operator = surrogate.operator.matrix(1.0).detach().cpu().double().numpy()
    about = {
        "layers": layers,
        "times": list(surrogate.span.times),
        "steps": spectrum.steps,
        "frames": spectrum.frames,
    }
    record = surrogate.record
    # R² on rows that the fit has seen stands only where nothing better is known.
    r2, losses = record.held_out or record.r2, record.losses
    qualities = np.array([r2.get(layer, math.nan) for layer in layers[1:]])
    series = [
        Series("spectrum", _columns(spectrum), about),
        Series("singular_values", np.linalg.svd(operator, compute_uv=False)),
        Series("r2", qualities, {"layers": layers[1:]}),
    ]
    if losses:
        terms = {"terms": list(losses)}
        series.append(Series("losses", np.array(list(losses.values()), dtype=float), terms))
    if tracks is not None:
        series.append(Series("tracks", _columns_of_modes(tracks, len(spectrum.eigenvalues))))
    if pseudospectrum:
        kind: Kind = "matrix" if surrogate.statistics is None else "residual"
        series.append(_levels(surrogate.pseudospectrum(kind)))
    scalars = {
        **_of_all(spectrum),
        **_of_trusted(spectrum),
        **{f"r2/{layer}": value for layer, value in r2.items()},
        **{f"loss/{term}": value for term, value in losses.items()},
        **({} if tracks is None else _of_tracks(tracks)),
    }
    return Shown(span_of(layers, tag), tuple(series), scalars, tuple(surrogate.record.notes))


def _of_all(spectrum: Spectrum) -> dict[str, float]:
    found = {
        "spectral_radius_all": spectrum.radius,
        "modes_outside_all": float(spectrum.outside()),
    }
    if spectrum.residuals is not None and spectrum.energies is not None:
        # A mode that the data hardly excite has an arbitrary residual, so it does not count.
        carried = spectrum.residuals[spectrum.energies >= 1e-3].numpy()
        finite = carried[np.isfinite(carried)]
        if finite.size:
            found["largest_residual"] = float(finite.max())
    return found


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
    """As ``torchkoopman_panels.schema.SPECTRUM_COLUMNS``."""
    values = spectrum.eigenvalues.numpy()
    columns = [values.real, values.imag]
    trusted = None if spectrum.residuals is None else spectrum.trusted().double()
    of_fit = (spectrum.residuals, spectrum.energies, spectrum.errors, spectrum.closures)
    for column in (*of_fit, trusted, spectrum.conditions):
        columns.append(np.full(len(values), np.nan) if column is None else column.numpy())
    return np.stack(columns, 1)


def _of_tracks(tracks: ModeTracks) -> dict[str, float]:
    living = (tracks.indices[-1] >= 0).nonzero().flatten().tolist()
    found = {"tracks_living": float(len(living))}
    if len(tracks.steps) > 1 and math.isfinite(drift := float(tracks.drift[-1])):
        found["drift"] = drift
    moduli = tracks.eigenvalues[-1].abs()
    return found | {f"track/{k}/modulus": float(moduli[k]) for k in living[:TRACKS_SHOWN]}


def _columns_of_modes(tracks: ModeTracks, modes: int) -> npt.NDArray[np.float64]:
    """Mode of the latest spectrum → the column of its track, NaN where it is on none."""
    columns = np.full(modes, np.nan)
    for column, index in enumerate(tracks.indices[-1].tolist()):
        if index >= 0:
            columns[index] = column
    return columns


def _levels(found: Pseudospectrum) -> Series:
    """Values over the plane, with the axes in the first row and column."""
    values = np.full((1 + len(found.imag), 1 + len(found.real)), np.nan)
    values[0, 1:], values[1:, 0] = found.real.numpy(), found.imag.numpy()
    values[1:, 1:] = found.residuals.numpy()
    return Series("pseudospectrum", values, {"kind": found.kind})
