"""Mode tracks: eigenvalues through a training, one column for each mode that was followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torchkoopman.spectra.plotting import draw_tracks
from torchkoopman.tables import Table, Tabular, complex_number, more

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor


@dataclass(frozen=True)
class ModeTracks(Tabular):
    """Eigenvalues over a sequence of spectra, one column per mode that was followed; print it.

    Example:
        >>> x = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
        >>> spectra = [tk.DMDFitter().update(tk.Trajectory.of(x, rate * x)).surrogate.spectrum()
        ...            for rate in (0.9, 0.8, 0.7)]
        >>> tracks = tk.follow(spectra)
        >>> tracks.travelled.round(decimals=3), tracks.deaths  # both live to the end
        (tensor([0.0000, 0.2000], dtype=torch.float64), tensor([3, 3]))
    """

    steps: tuple[float, ...]
    """When each spectrum was taken, such as training steps; ascending."""
    eigenvalues: Tensor
    """λ of each track at each step; complex128, shape ``(steps, tracks)``, NaN where absent. Tracks
    are in the order of their births; of one birth, the one matched for longest comes first, then
    the one of largest modulus."""
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

        NaN where no mode was matched. It tends to 0 where the dynamics settles.
        """
        return self._moves().nanmean(1)

    def table(self, tracks: int = 10) -> Table:
        """The tracks that live longest: life, first and last λ, path length.

        Where trust is known, also the share of its spectra that trust the mode.
        """
        count = self.indices.shape[1]
        survive = int((self.deaths == len(self.steps)).sum())
        whole = int(((self.births == 0) & (self.deaths == len(self.steps))).sum())
        last = f"{self.drift[-1]:.4f}" if len(self.steps) > 1 else "unknown"
        kind = "modes" if self.trusted is None else "trusted modes"
        ending = "" if self.trusted is None else f"; {self.dropped} never trusted, left out"
        above = [
            f"{count} {kind} over {len(self.steps)} spectra: {whole} throughout, "
            f"{int((self.births > 0).sum())} born, {count - survive} died; latest drift {last}"
            f"{ending}"
        ]
        head = ["born", "last seen", "λ at birth", "λ last", "travelled"]
        head += [] if self.trusted is None else ["trusted"]
        lives, rows = self.deaths - self.births, []
        for track in lives.argsort(descending=True, stable=True)[:tracks].tolist():
            ends = int(self.births[track]), int(self.deaths[track]) - 1
            cells = [f"{self.steps[step]:g}" for step in ends]
            cells += [complex_number(complex(self.eigenvalues[step, track])) for step in ends]
            cells.append(f"{self.travelled[track]:.4f}")
            if self.trusted is not None:
                cells.append(f"{self.trusted[:, track].sum() / lives[track]:.0%}")
            rows.append(cells)
        return Table(head, rows, above, more(count, tracks), text=())

    def summary(self, tracks: int = 10) -> str:
        """The same as text."""
        return str(self.table(tracks))

    def plot(self, ax: Axes | None = None, part: Literal["modulus", "angle"] = "modulus") -> Axes:
        """Each track over the steps, with dots where its mode is trusted and rings where not.

        Args:
            ax: matplotlib axes to draw on; None for a new figure.
            part: ``"modulus"`` draws ``|λ|``, ``"angle"`` the turns that λ makes over the span.

        Raises:
            ImportError: matplotlib is not installed (the extra ``torchkoopman[plot]``).
            ValueError: there is no such part.
        """
        return draw_tracks(self.steps, self.eigenvalues, self.trusted, part, ax)

    def _moves(self) -> Tensor:
        """|λ(k + 1) - λ(k)|, shape ``(steps - 1, tracks)``, NaN where it did not live on."""
        return self.eigenvalues.diff(dim=0).abs()
