"""One function for each picture: it takes a result and matplotlib axes, and gives the axes back.

They are the ``.plot(ax)`` of the results, under the names that people look for. Each needs the
extra ``torchkoopman[plot]`` and makes a figure of its own where no axes are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

from torchkoopman.flows.fixed_points import FixedPoints
from torchkoopman.koopman.modes import Modes
from torchkoopman.koopman.paths import Paths
from torchkoopman.spectra.pseudospectrum import Pseudospectrum
from torchkoopman.spectra.spectrum import Spectrum
from torchkoopman.spectra.tracks import ModeTracks
from torchkoopman.topology.betti import BettiCurve
from torchkoopman.topology.report import LayerTopology, Topology
from torchkoopman.unlearning.report import Audit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from torchkoopman.flows.flow import Flow

Result = TypeVar("Result")


def plot_spectrum(spectrum: Spectrum, ax: Axes | None = None) -> Axes:
    """Eigenvalues and the unit circle, see :meth:`torchkoopman.results.Spectrum.plot`.

    Example:
        >>> tk.plots.plot_spectrum(surrogate.spectrum()).get_xlabel()
        'Re λ'

    Raises:
        TypeError: it is no spectrum.
        ImportError: matplotlib is not installed.
    """
    return _checked(spectrum, Spectrum, "surrogate.spectrum()").plot(ax)


def plot_modes(modes: Modes, ax: Axes | None = None, number: int = 4) -> Axes:
    """The largest modes over a layer's features, see :meth:`torchkoopman.results.Modes.plot`.

    Example:
        >>> tk.plots.plot_modes(surrogate.modes("9")).get_xlabel()
        'feature'

    Args:
        modes: of a surrogate at a layer.
        ax: axes to draw on.
        number: how many modes.

    Raises:
        TypeError: they are no modes.
        ImportError: matplotlib is not installed.
    """
    return _checked(modes, Modes, "surrogate.modes(layer)").plot(ax, number)


def plot_tracks(
    tracks: ModeTracks, ax: Axes | None = None, part: Literal["modulus", "angle"] = "modulus"
) -> Axes:
    """Eigenvalues through a training, see :meth:`torchkoopman.results.ModeTracks.plot`.

    Example:
        >>> tracks = tk.follow([surrogate.spectrum(), surrogate.spectrum()])
        >>> tk.plots.plot_tracks(tracks).get_ylabel()
        '|λ|'

    Raises:
        TypeError: they are no tracks.
        ValueError: there is no such part.
        ImportError: matplotlib is not installed.
    """
    return _checked(tracks, ModeTracks, "tk.follow(spectra)").plot(ax, part)


def plot_pseudospectrum(pseudospectrum: Pseudospectrum, ax: Axes | None = None) -> Axes:
    """Its contours, see :meth:`torchkoopman.results.Pseudospectrum.plot`.

    Example:
        >>> near = surrogate.pseudospectrum(points=11, rank=20)
        >>> tk.plots.plot_pseudospectrum(near).get_ylabel()
        'Im z'

    Raises:
        TypeError: it is no pseudospectrum.
        ImportError: matplotlib is not installed.
    """
    own = _checked(pseudospectrum, Pseudospectrum, "surrogate.pseudospectrum()")
    return own.plot(ax)


def plot_betti(curves: BettiCurve | LayerTopology | Topology, ax: Axes | None = None) -> Axes:
    """A Betti curve, a layer's two curves with their bands, or components by layer.

    Example:
        >>> shape = surrogate.topology(model, test.loader(500), points=100, dimensions=[0])
        >>> [tk.plots.plot_betti(each).get_ylabel() for each in (shape, shape.layers[0])]
        ['β0', 'β0']

    Raises:
        TypeError: it is none of these.
        ImportError: matplotlib is not installed.
    """
    kinds = (BettiCurve, LayerTopology, Topology)
    return _checked(curves, kinds, "surrogate.topology(model, loader)").plot(ax)


def plot_trajectories(paths: Paths, ax: Axes | None = None) -> Axes:
    """Samples through depth, true and predicted, see :meth:`torchkoopman.results.Paths.plot`.

    Example:
        >>> paths = surrogate.paths(model, test.loader(500), samples=50)
        >>> len(tk.plots.plot_trajectories(paths).collections) > 0
        True

    Raises:
        TypeError: they are no paths.
        ImportError: matplotlib is not installed.
    """
    return _checked(paths, Paths, "surrogate.paths(model, loader)").plot(ax)


def plot_forgetting(audit: Audit, ax: Axes | None = None) -> Axes:
    """What each class lost or gained, see :meth:`torchkoopman.results.Audit.plot`.

    Example:
        >>> edited = tk.swap(model, tk.unlearn(surrogate, classes=[2], model=model))
        >>> quick = {"samples": 200, "relearning": tk.Relearning(limit=5)}
        >>> found = tk.audit(model, edited, [2], train.loader(500), test.loader(500), **quick)
        >>> "points" in tk.plots.plot_forgetting(found).get_xlabel()
        True

    Raises:
        TypeError: it is no audit.
        ImportError: matplotlib is not installed.
    """
    return _checked(audit, Audit, "tk.audit(…)").plot(ax, "accuracy")


def plot_audit(audit: Audit, ax: Axes | None = None) -> Axes:
    """Where forgotten classes are still detected, see :meth:`torchkoopman.results.Audit.plot`.

    Example:
        >>> edited = tk.swap(model, tk.unlearn(surrogate, classes=[2], model=model))
        >>> quick = {"samples": 200, "layers": ("1", "9"), "relearning": tk.Relearning(limit=5)}
        >>> found = tk.audit(model, edited, [2], train.loader(500), test.loader(500), **quick)
        >>> len(tk.plots.plot_audit(found).get_yticks()) > 0
        True

    Raises:
        TypeError: it is no audit.
        ValueError: no state was looked into.
        ImportError: matplotlib is not installed.
    """
    return _checked(audit, Audit, "tk.audit(…)").plot(ax, "detection")


def plot_phase_portrait(
    found: FixedPoints,
    flow: Flow,
    ax: Axes | None = None,
    *,
    orbits: int = 0,
    steps: int = 100,
    readout: Tensor | None = None,
) -> Axes:
    """A flow with its fixed and slow points, see :meth:`torchkoopman.flows.FixedPoints.plot`.

    Example:
        >>> cell = tk.flows.GatedODECell(0, 2, widths=[16]).eval()
        >>> flow = tk.flows.Flow.of_cell(cell, torch.zeros(0))
        >>> found = flow.fixed_points(torch.randn(50, 2), search="newton")
        >>> tk.plots.plot_phase_portrait(found, flow, orbits=10).get_xlabel()
        'first coordinate'

    Args:
        found: fixed points of the flow.
        flow: the flow itself.
        ax: axes to draw on.
        orbits: of so many of the starts.
        steps: of each orbit.
        readout: weight of a linear read-out, ``(outputs, states)``.

    Raises:
        TypeError: they are no fixed points.
        ValueError: states of one number, or a read-out of other states.
        ImportError: matplotlib is not installed.
    """
    own = _checked(found, FixedPoints, "flow.fixed_points(starts)")
    return own.plot(flow, ax, orbits=orbits, steps=steps, readout=readout)


def _checked(result: Result, kind: type | tuple[type, ...], call: str) -> Result:
    """The result.

    Raises:
        TypeError: it is of another kind.
    """
    if not isinstance(result, kind):
        raise TypeError(f"this plot draws what {call} gives; it got a {type(result).__name__}.")
    return result
