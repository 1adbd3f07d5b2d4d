"""What panels draw: named series of arrays, and what the axes of each are.

=========================  ====================================  =================================
name                       shape of one step's array             ``about``
=========================  ====================================  =================================
``spectrum``               ``(modes, 8)``, the columns of        ``layers``, ``times``, ``steps``
                           ``SPECTRUM_COLUMNS``                  (layers the span leads over),
                                                                 ``frames``
``tracks``                 ``(modes,)``: the track that each
                           mode of ``spectrum`` is on, or NaN
``singular_values``        ``(latent,)``, descending
``r2``                     ``(layers,)``, NaN where unknown      ``layers`` (after the first); with
                                                                 ``of`` what is scored instead
``losses``                 ``(terms,)``                          ``terms``
``pseudospectrum``         ``(1 + imag, 1 + real)``: the first   ``kind``: ``"residual"`` or
                           row and column hold the axes          ``"matrix"``
``betti<d>``               ``(layers, 2, 4, scales)``: network   ``layers``, ``times``,
                           and surrogate; scale, value, low      ``dimension``, ``rows``, ``unit``
                           and high end of the band
``components``             ``(1 + layers, 2)``: ε twice, then    ``layers``, ``times``
                           β0 of network and surrogate at ε
``accuracy``               ``(networks, classes, 2)``: on        ``networks``, ``classes``,
                           unseen data, on training data         ``forgotten``
``audit``                  ``(measures, networks)``; infinite    ``networks``, ``measures``,
                           where relearning did not end in       ``limit``
                           ``limit`` steps
``trajectories``           ``(1 + samples, layers, systems,      ``layers``, ``times``,
                           2)``: the share of each system's      ``systems``, ``labels``
                           variance along the two axes, then     (one a sample, or None),
                           each sample's place                   ``forgotten`` (classes)
``flow``                   ``(starts, 3 + starts)``: attractors  ``starts`` (names)
                           reached, shares converged and
                           diverged, Chamfer distances to each
``changes``                ``(4,)``: attractors, born, gone,
                           median distance moved in spreads
``attractors``             ``(attractors, 5)``, the columns of
                           ``ATTRACTOR_COLUMNS``
``table:<key>``            ``(0,)``                              ``title``, ``head``, ``rows``
                                                                 (lists of text), ``text`` (columns
                                                                 aligned left), ``above``, ``below``
``notes``                  ``(0,)``                              ``notes``, a list of sentences
=========================  ====================================  =================================

A step's array may be smaller than another's: it is filled up with NaN. What a series says about
itself holds for all its steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from torchkoopman_panels.packing import Bits

SCHEMA = 1
"""Version of the table above. It is part of every name in an event file; a page that reads a later
version says so, and draws what it knows."""

SPECTRUM_COLUMNS = (
    "real",
    "imaginary",
    "residual",
    "energy",
    "error",
    "closure",
    "trusted",
    "condition",
)
"""λ over the span, ResDMD residual, share of energy, standard error of λ, closure, 1 where the mode
is trusted, and the condition number of λ; NaN where unknown. Older files have the first seven."""
ATTRACTOR_COLUMNS = ("track", "radius", "norm", "moved", "share")
"""Number that an attractor has through a training, largest modulus of its multipliers, spectral
norm of the Jacobian, distance moved in spreads, NaN for new ones, and its share of the starts."""
BITS: dict[str, Bits] = {
    "spectrum": (12, 12, 7, 7, 7, 7, 0, 7),
    "singular_values": 7,
    "tracks": 15,
    "attractors": (15, 12, 12, 7, 7),
}
"""Binary digits that values of a report keep after the leading one, where it is not all of them: λ,
radii and norms to 0.00013, the others to 0.4 %, and numbers of tracks exactly, up to 65 536."""


@dataclass(frozen=True)
class Series:
    """One array that a result gives at one step, under the name that panels know it by.

    Example:
        >>> import numpy as np
        >>> from torchkoopman_panels import Series
        >>> Series("r2", np.array([0.99, 0.97]), {"layers": ["3", "5"]}).name
        'r2'
    """

    name: str
    """As in the table of this file."""
    values: npt.NDArray[np.float64]
    """Of the shape that the name says."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What does not change from step to step, JSON-able: layers, columns, classes."""
