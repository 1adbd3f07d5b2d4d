"""Modes followed through training: which eigenvalue of one spectrum became which of the next.

Consecutive spectra are matched by optimal assignment of eigenvalues and modes together, so that two
eigenvalues that cross keep their identity. Modes are born and die where a latent space changes size
or an eigenvalue leaps further than a gate. All modes are matched, but by default a track begins at
a trusted mode only; trusted at some checkpoints and not at others, it is one track all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchkoopman.spectra.matching import by_value, match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchkoopman.spectra.spectrum import Spectrum


@dataclass(frozen=True)
class ModeTracks:
    """Eigenvalues over a sequence of spectra, one column per mode that was followed."""

    steps: tuple[float, ...]
    """When each spectrum was taken, such as training steps; ascending."""
    eigenvalues: Tensor
    """λ of each track at each step; complex128, shape ``(steps, tracks)``, NaN where absent. Tracks
    in order of birth, at one birth the one matched for longest, then the largest modulus first."""
    indices: Tensor
    """Where each mode is in its step's spectrum; integer, shape ``(steps, tracks)``, -1 where
    absent."""
    trusted: Tensor | None = None
    """Whether each mode is trusted in its step's spectrum; bool, shape ``(steps, tracks)``, False
    where absent. None where trust was not asked for or some spectra were made without data."""
    dropped: int = 0
    """Tracks left out because no spectrum trusts their mode."""

    @property
    def births(self) -> Tensor:
        """Position in ``steps`` of each track's first spectrum; shape ``(tracks,)``."""
        return (self.indices >= 0).int().argmax(0)

    @property
    def deaths(self) -> Tensor:
        """Position in ``steps`` of the first spectrum without it, ``len(steps)`` for survivors."""
        return self.births + (self.indices >= 0).sum(0)

    @property
    def travelled(self) -> Tensor:
        """Length of each track's path in the complex plane; shape ``(tracks,)``."""
        return self._moves().nansum(0)

    @property
    def drift(self) -> Tensor:
        """Mean distance the living modes moved between consecutive spectra; shape ``(steps - 1,)``.

        NaN where no mode lived on. It tends to 0 where the dynamics settles.
        """
        return self._moves().nanmean(1)

    def summary(self, tracks: int = 10) -> str:
        """A table of the tracks that live longest: life, first and last λ, path length.

        Where trust is known, also the share of its spectra that trust the mode.
        """
        count = self.indices.shape[1]
        survive = int((self.deaths == len(self.steps)).sum())
        whole = int(((self.births == 0) & (self.deaths == len(self.steps))).sum())
        last = f"{self.drift[-1]:.4f}" if len(self.steps) > 1 else "unknown"
        kind, ending, column = "modes", "", ""
        if self.trusted is not None:
            kind, column = "trusted modes", f" {'trusted':>8}"
            ending = f"; {self.dropped} never trusted, left out"
        lines = [
            f"{count} {kind} over {len(self.steps)} spectra: {whole} throughout, "
            f"{int((self.births > 0).sum())} born, {count - survive} died; latest drift {last}"
            f"{ending}",
            f"{'born':>8} {'last seen':>9} {'λ at birth':>19} {'λ last':>19} {'travelled':>9}"
            f"{column}",
        ]
        lives = self.deaths - self.births
        for track in lives.argsort(descending=True, stable=True)[:tracks].tolist():
            first, last_seen = int(self.births[track]), int(self.deaths[track]) - 1
            values = (self.eigenvalues[step, track] for step in (first, last_seen))
            numbers = [f"{value.real:+.4f} {value.imag:+.4f}i" for value in values]
            share = ""
            if self.trusted is not None:
                share = f" {self.trusted[:, track].sum() / lives[track]:8.0%}"
            lines.append(
                f"{self.steps[first]:>8g} {self.steps[last_seen]:>9g} {numbers[0]:>19} "
                f"{numbers[1]:>19} {self.travelled[track]:9.4f}{share}"
            )
        if count > tracks:
            lines.append(f"… and {count - tracks} more")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.summary()

    def _moves(self) -> Tensor:
        """|λ(k + 1) - λ(k)|, shape ``(steps - 1, tracks)``, NaN where it did not live on."""
        return self.eigenvalues.diff(dim=0).abs()


def follow(
    spectra: Sequence[Spectrum],
    steps: Sequence[float] | None = None,
    *,
    weight: float = 0.5,
    gate: float = 0.25,
    trusted: bool | None = None,
) -> ModeTracks:
    """Follow modes through spectra taken during training.

    A mode i of one spectrum and j of the next cost ``|λ_i - λ_j| + weight·(1 - |v_iᴴ v_j|)``, and
    the assignment of least total cost is taken. Complex eigenvalues move as pairs: what was
    conjugate stays conjugate, unless the pair meets on the real axis and parts. Where two latent
    spaces differ in size, directions cannot be compared and eigenvalues alone decide. An
    autoencoder's latent space turns as it trains, which the overlap sees as modes that turn.

    Args:
        spectra: at least one, in order.
        steps: when each was taken; 0, 1, 2, … by default.
        weight: what it costs a mode to become orthogonal to itself, in units of the complex plane.
            With 0.5, modes decide between eigenvalues less than a half apart.
        gate: no mode moves further than this between two spectra: its track ends and another
            begins. A quarter of the unit circle's radius by default.
        trusted: whether a track begins only at a mode its spectrum trusts (see
            :meth:`Spectrum.trusted`); it goes on for as long as the mode is matched, trusted or
            not. None: yes, if every spectrum was made with data, for most modes of a large
            dictionary are spurious. False follows everything.

    Raises:
        ValueError: ``trusted=True`` and a spectrum made without data; no spectra, as many steps as
            spectra are not given or do not ascend, eigenvalues that are not finite or not in
            conjugate pairs, or a negative weight or gate.
    """
    when = tuple(float(step) for step in (range(len(spectra)) if steps is None else steps))
    _check(spectra, when, weight, gate)
    if trusted is None:
        trusted = all(spectrum.residuals is not None for spectrum in spectra)
    tracks = _tracks(spectra, weight, gate)
    begun = tracks
    borne_out = [spectrum.trusted().tolist() for spectrum in spectra] if trusted else []
    if trusted:
        begun = [_from_trust(places, borne_out) for places in tracks]
        begun = sorted((places for places in begun if places), key=min)
    indices = torch.full((len(spectra), len(begun)), -1)
    values = torch.full(indices.shape, complex(math.nan, math.nan), dtype=torch.complex128)
    trust = torch.zeros(indices.shape, dtype=torch.bool)
    for column, places in enumerate(begun):
        for step, index in places.items():
            indices[step, column] = index
            values[step, column] = spectra[step].eigenvalues[index]
            trust[step, column] = bool(trusted) and borne_out[step][index]
    known = trust if trusted else None
    return ModeTracks(when, values, indices, known, len(tracks) - len(begun))


def _tracks(spectra: Sequence[Spectrum], weight: float, gate: float) -> list[dict[int, int]]:
    """Every mode of every spectrum in one track: position in ``spectra`` → index there."""
    tracks: list[dict[int, int]] = []
    living = _begin(tracks, spectra[0], 0, set())
    for step, (before, after) in enumerate(pairwise(spectra), 1):
        matches = match(before, after, weight, gate)
        survivors = {j: living[i] for i, j in matches}
        for index, track in survivors.items():
            tracks[track][step] = index
        living = survivors | _begin(tracks, after, step, set(survivors))
    return tracks


def _from_trust(places: dict[int, int], borne_out: list[list[bool]]) -> dict[int, int]:
    """The track from the first spectrum that trusts its mode; empty if none does."""
    first = next((step for step, index in places.items() if borne_out[step][index]), None)
    if first is None:
        return {}
    return {step: index for step, index in places.items() if step >= first}


def _begin(
    tracks: list[dict[int, int]], spectrum: Spectrum, step: int, known: set[int]
) -> dict[int, int]:
    """Open a track for each mode that has none; index in the spectrum → track."""
    new = [index for index in by_value(spectrum) if index not in known]
    opened = {index: len(tracks) + place for place, index in enumerate(new)}
    tracks.extend({step: index} for index in new)
    return opened


def _check(
    spectra: Sequence[Spectrum], steps: tuple[float, ...], weight: float, gate: float
) -> None:
    if not len(spectra):
        raise ValueError("follow() needs at least one spectrum; got none.")
    if len(steps) != len(spectra):
        raise ValueError(f"{len(steps)} steps were given for {len(spectra)} spectra.")
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError(f"steps must ascend; got {steps}.")
    if not (weight >= 0 and gate >= 0):
        raise ValueError(f"weight={weight} and gate={gate} must not be negative.")
    for step, spectrum in zip(steps, spectra, strict=True):
        values = spectrum.eigenvalues
        if not values.isfinite().all():
            raise ValueError(f"the spectrum of step {step:g} has eigenvalues that are not finite.")
        above, below = int((values.imag > 0).sum()), int((values.imag < 0).sum())
        if above != below:
            raise ValueError(
                f"the spectrum of step {step:g} has {above} eigenvalues above the real axis and "
                f"{below} below; those of a real operator come in conjugate pairs."
            )
