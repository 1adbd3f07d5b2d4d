"""What a training monitor is given: numbers, a fitter, and where it logs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torchkoopman.fitting.dmd import DMDFitter

if TYPE_CHECKING:
    from collections.abc import Collection

    from torchkoopman.koopman.surrogate import Surrogate
    from torchkoopman.spectra.tracks import ModeTracks

_RANK, _HALFLIFE = 32, 1000.0
"""Of the default fitter. The time of a spectrum grows with the cube of its modes, so they are few.
At the default intervals 640 rows come from one log to the next, so those of three logs ago weigh a
fourth: the spectrum is that of the network as it is now."""
_READING = ("layout", "output", "attention_mask", "gather")
_METHODS = ("update", "reset", "state_dict", "load_state_dict")


class Log(Protocol):
    """What a monitor tells of each spectrum."""

    def __call__(self, surrogate: Surrogate, step: int, /, *, tracks: ModeTracks) -> object:
        """The surrogate behind so many optimiser steps, and the modes followed until then."""


@runtime_checkable
class Record(Protocol):
    """Where a monitor logs to, if that is opened and closed with the training."""

    def open(self, step: int) -> object:
        """The training begins, or goes on, behind so many steps."""

    def close(self) -> object:
        """The training is over, or was interrupted."""


def require_settings(reading: Collection[str], **counts: Any) -> None:
    """Refuse what is no number of steps or rows, and options of ``attach`` that are not taken.

    Raises:
        TypeError: no whole number, or an option that is the monitor's own or nobody's.
        ValueError: less than 1.
    """
    unknown = sorted(set(reading) - set(_READING))
    if unknown:
        raise TypeError(
            f"TrainingMonitor got {unknown[0]}=, which it does not take; of the options of "
            f"attach() it takes {', '.join(_READING)}."
        )
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"TrainingMonitor got {name}={count!r}; give a whole number.")
        if count < 1:
            raise ValueError(f"TrainingMonitor got {name}={count}; give 1 or more.")


def checked_fitter(fitter: Any) -> Any:
    """A fitter that can learn, be stopped and begin again; the default for None.

    Raises:
        TypeError: it lacks a method, or is a class of fitters.
    """
    if fitter is None:
        return DMDFitter(_RANK, halflife=_HALFLIFE)
    lacking = [name for name in _METHODS if not callable(getattr(fitter, name, None))]
    if lacking or isinstance(fitter, type):
        raise TypeError(
            f"TrainingMonitor got {fitter!r} as the fitter, which "
            f"{'lacks ' + ', '.join(lacking) if lacking else 'is a class'}; give a DMDFitter(...), "
            "EDMDFitter(...), AutoencoderFitter(...), or one of yours with "
            f"{', '.join(_METHODS)} and surrogate."
        )
    return fitter
