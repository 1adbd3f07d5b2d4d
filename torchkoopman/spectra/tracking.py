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
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from torchkoopman.spectra.matching import by_value, match
from torchkoopman.spectra.spectrum import Spectrum
from torchkoopman.spectra.tracks import ModeTracks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def follow(
    spectra: Sequence[Spectrum],
    steps: Sequence[float] | None = None,
    *,
    weight: float = 0.5,
    gate: float = 0.25,
    trusted: bool | None = None,
) -> ModeTracks:
    """Follow modes through spectra taken during training.

    Mode i of one spectrum and mode j of the next have the cost ``|λ_i - λ_j| + weight·(1 - |v_iᴴ
    v_j|)``, and the assignment of least total cost is taken. Complex eigenvalues move as conjugate
    pairs, unless a pair meets on the real axis and parts. Where two latent spaces differ in size,
    eigenvalues alone decide. An autoencoder's latent space turns as it trains, which looks like
    modes that turn.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> spectra = [tk.DMDFitter().update(tk.Trajectory.of(x, rate * x)).surrogate.spectrum()
        ...            for rate in (0.9, 0.8, 0.7)]
        >>> tk.follow(spectra, steps=[0, 100, 200]).eigenvalues.real.round(decimals=3)
        tensor([[1.0000, 0.9000],
                [1.0000, 0.8000],
                [1.0000, 0.7000]], dtype=torch.float64)

    Args:
        spectra: at least one, in order.
        steps: when each was taken; 0, 1, 2, … by default.
        weight: cost of a mode that becomes orthogonal to what it was, as a distance in the complex
            plane. With 0.5, modes decide between eigenvalues less than a half apart.
        gate: no mode moves further than this between two spectra: its track ends and another
            begins. A quarter of the unit circle's radius by default.
        trusted: whether a track begins only at a mode its spectrum trusts (see
            :meth:`Spectrum.trusted`); it goes on for as long as the mode is matched, trusted or
            not. None: yes, if every spectrum was made with data, since most modes of a large
            dictionary are spurious. False follows all modes.

    Raises:
        TypeError: something that is no spectrum.
        ValueError: ``trusted=True`` and a spectrum made without data; no spectra, as many steps as
            spectra are not given or do not ascend, eigenvalues that are not finite or not in
            conjugate pairs, or a negative weight or gate.
    """
    when = tuple(float(step) for step in (range(len(spectra)) if steps is None else steps))
    if not len(spectra):
        raise ValueError("follow() needs at least one spectrum; got none.")
    for each in spectra:
        if not isinstance(each, Spectrum):
            raise TypeError(
                "follow() takes spectra, such as surrogate.spectrum(); "
                f"got a {type(each).__name__}."
            )
    if len(when) != len(spectra):
        raise ValueError(f"{len(when)} steps were given for {len(spectra)} spectra.")
    if any(later <= earlier for earlier, later in pairwise(when)):
        raise ValueError(f"steps must ascend; got {when}.")
    tracker = ModeTracker(weight, gate)
    for step, spectrum in zip(when, spectra, strict=True):
        tracker.add(spectrum, step)
    return tracker.tracks(trusted)


@dataclass(frozen=True)
class _Seen:
    """What is kept of one spectrum."""

    step: float
    eigenvalues: Tensor
    tracks: list[int]
    """Number of each mode's track."""
    trusted: list[bool] | None
    """None for a spectrum made without data."""

    def tensors(self) -> dict[str, Any]:
        """The same in few objects."""
        trusted = None if self.trusted is None else torch.tensor(self.trusted, dtype=torch.bool)
        return {**vars(self), "tracks": torch.tensor(self.tracks), "trusted": trusted}

    @classmethod
    def of(cls, step: float, eigenvalues: Tensor, tracks: Tensor, trusted: Tensor | None) -> Self:
        """The inverse of :meth:`tensors`."""
        told = None if trusted is None else trusted.tolist()
        return cls(step, eigenvalues, tracks.tolist(), told)


class ModeTracker:
    """:func:`follow` for spectra that come one by one, of which only the latest is kept whole.

    Tracks are never renumbered: those of :meth:`tracks` stay in their columns when others follow.
    """

    def __init__(self, weight: float = 0.5, gate: float = 0.25) -> None:
        if not (weight >= 0 and gate >= 0):
            raise ValueError(f"weight={weight} and gate={gate} must not be negative.")
        self.weight = weight
        self.gate = gate
        self._seen: list[_Seen] = []
        self._latest: Spectrum | None = None
        self._count = 0

    def __len__(self) -> int:
        """Spectra until now."""
        return len(self._seen)

    def add(self, spectrum: Spectrum, step: float) -> Self:
        """Go on to the spectrum of a later step.

        Raises:
            ValueError: the step is not later or not finite, or eigenvalues are not finite or not in
                conjugate pairs.
        """
        if not math.isfinite(step):
            raise ValueError(f"steps must be finite; got {step:g}.")
        if self._seen and step <= self._seen[-1].step:
            raise ValueError(f"steps must ascend; got {step:g} after {self._seen[-1].step:g}.")
        _check(spectrum, step)
        before = self._seen[-1].tracks if self._seen else []
        matches = [] if self._latest is None else match(self._latest, spectrum, *self._costs)
        known = {j: before[i] for i, j in matches}
        for index in by_value(spectrum):
            if index not in known:
                known[index] = self._count
                self._count += 1
        places = [known[index] for index in range(len(spectrum.eigenvalues))]
        trusted = None if spectrum.residuals is None else spectrum.trusted().tolist()
        self._seen.append(_Seen(step, spectrum.eigenvalues.clone(), places, trusted))
        self._latest = spectrum
        return self

    def tracks(self, trusted: bool | None = None) -> ModeTracks:
        """What :func:`follow` says of all spectra until now.

        Raises:
            ValueError: none has come, or ``trusted=True`` and one of them was made without data.
        """
        if not self._seen:
            raise ValueError("no spectrum has come yet, so there is no mode to follow.")
        untold = [each.step for each in self._seen if each.trusted is None]
        if trusted and untold:
            raise ValueError(
                f"the spectrum of step {untold[0]:g} was made without data, so there are no "
                "residuals to judge its modes by; follow with trusted=False, or take spectra of "
                "surrogates that were fitted."
            )
        wanted = not untold if trusted is None else trusted
        columns: dict[int, int] = {}
        for each in self._seen:
            judged = each.trusted if wanted and each.trusted is not None else None
            told = [True] * len(each.tracks) if judged is None else judged
            begun = (track for track, yes in zip(each.tracks, told, strict=True) if yes)
            for track in sorted(begun):
                columns.setdefault(track, len(columns))
        return self._table(columns, wanted)

    def state_dict(self) -> dict[str, Any]:
        """The spectra until now, as tensors and plain types."""
        latest = self._latest
        return {
            "seen": [each.tensors() for each in self._seen],
            "modes": None if latest is None else latest.modes,
            "count": self._count,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Go on from what :meth:`state_dict` said."""
        self._seen = [_Seen.of(**each) for each in state["seen"]]
        self._latest, self._count = None, state["count"]
        if self._seen:  # eigenvalues and modes are all that is compared
            values, modes = self._seen[-1].eigenvalues, state["modes"]
            self._latest = Spectrum(values, modes, modes, None, None)
        return self

    @property
    def _costs(self) -> tuple[float, float]:
        return self.weight, self.gate

    def _table(self, columns: Mapping[int, int], trusted: bool) -> ModeTracks:
        """The tracks of these numbers, each from the spectrum on that it has a column from."""
        indices = torch.full((len(self._seen), len(columns)), -1)
        values = torch.full(indices.shape, complex(math.nan, math.nan), dtype=torch.complex128)
        trust = torch.zeros(indices.shape, dtype=torch.bool)
        begun: set[int] = set()
        for row, each in enumerate(self._seen):
            for index, track in enumerate(each.tracks):
                borne_out = trusted and each.trusted is not None and each.trusted[index]
                if track in columns and (track in begun or borne_out or not trusted):
                    begun.add(track)
                    indices[row, columns[track]] = index
                    values[row, columns[track]] = each.eigenvalues[index]
                    trust[row, columns[track]] = borne_out
        steps = tuple(float(each.step) for each in self._seen)
        known = trust if trusted else None
        return ModeTracks(steps, values, indices, known, self._count - len(columns))


def _check(spectrum: Spectrum, step: float) -> None:
    values = spectrum.eigenvalues
    if not values.isfinite().all():
        raise ValueError(f"the spectrum of step {step:g} has eigenvalues that are not finite.")
    above, below = int((values.imag > 0).sum()), int((values.imag < 0).sum())
    if above != below:
        raise ValueError(
            f"the spectrum of step {step:g} has {above} eigenvalues above the real axis and "
            f"{below} below; those of a real operator come in conjugate pairs."
        )
