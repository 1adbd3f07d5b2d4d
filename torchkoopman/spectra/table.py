"""The table of a spectrum: trusted modes first, one row a mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from torchkoopman.spectra.trust import Judged, doubts
from torchkoopman.tables import Table, complex_number, more

if TYPE_CHECKING:
    from torch import Tensor

_HEAD = ["λ (span)", "± error", "|λ|", "decay", "turns", "residual", "closure", "condition"]
_HEAD += ["energy", ""]


class _Listed(Judged, Protocol):
    """What is printed: a ``tk.results.Spectrum``, which documents each of these."""

    @property
    def eigenvalues(self) -> Tensor: ...
    @property
    def steps(self) -> int: ...
    @property
    def frames(self) -> str: ...
    @property
    def decays(self) -> Tensor: ...
    @property
    def frequencies(self) -> Tensor: ...
    @property
    def radius(self) -> float: ...
    def outside(self) -> int: ...
    def trusted(self) -> Tensor: ...


def table_of(spectrum: _Listed, modes: int) -> Table:
    """How many modes there are and are trusted, what λ means, and ``modes`` rows of them."""
    order, trusted = _order(spectrum)
    columns = (spectrum.errors, spectrum.residuals, spectrum.closures)
    rows = []
    for k in order[:modes]:
        error, residual, closure = (_cell(column, k) for column in columns)
        rows.append(
            [
                complex_number(complex(spectrum.eigenvalues[k])),
                error,
                f"{spectrum.moduli[k]:.4f}",
                f"{spectrum.decays[k]:+.4f}",
                f"{spectrum.frequencies[k]:+.4f}",
                residual,
                closure,
                "" if spectrum.conditions is None else f"{spectrum.conditions[k]:.3g}",
                "" if spectrum.energies is None else f"{spectrum.energies[k]:.1%}",
                "" if trusted[k] else "?",
            ]
        )
    above = [_head(spectrum), *_meaning(spectrum.frames)]
    return Table(_HEAD, rows, above, more(len(order), modes), text=())


def _head(spectrum: _Listed) -> str:
    head = f"{len(spectrum.eigenvalues)} modes"
    if spectrum.residuals is not None:
        trusted = spectrum.trusted()
        against = {name: int(each.sum()) for name, each in doubts(spectrum).items()}
        why = ", ".join(f"{name} {count}" for name, count in against.items() if count)
        head += f", {int(trusted.sum())} trusted" + (f" (?: {why})" if why else "")
        if trusted.any():
            head += f", the largest trusted |λ| {spectrum.moduli[trusted].max():.4f}"
    head += f"; spectral radius {spectrum.radius:.4f}"
    if spectrum.steps > 1:
        head += f", {spectrum.radius ** (1 / spectrum.steps):.4f} per step of {spectrum.steps}"
    return f"{head}; {spectrum.outside()} outside the unit circle"


def _meaning(frames: str) -> list[str]:
    match frames:
        case "shared":
            return ["one frame for all layers: λ is that of the map between the layers"]
        case "aligned":
            return ["each layer has its own frame: λ depends on these, it is not the system's"]
    return []


def _order(spectrum: _Listed) -> tuple[list[int], Tensor]:
    """Modes in the order of the lines, and which are trusted (all, without data)."""
    trusted = torch.ones_like(spectrum.moduli, dtype=torch.bool)
    if spectrum.residuals is None or spectrum.energies is None:
        return list(range(len(trusted))), trusted
    trusted, energies = spectrum.trusted(), spectrum.energies.nan_to_num(0).tolist()
    order = sorted(range(len(energies)), key=lambda k: (not trusted[k], -energies[k]))
    return order, trusted


def _cell(column: Tensor | None, k: int) -> str:
    return "" if column is None else f"{column[k]:.4f}"
