"""Which function shows which result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchkoopman.flows.looks import FlowLook
from torchkoopman.koopman.paths import Paths
from torchkoopman.koopman.surrogate import Surrogate
from torchkoopman.showing.audits import audit_shown
from torchkoopman.showing.flows import look_shown
from torchkoopman.showing.samples import paths_shown
from torchkoopman.showing.surrogates import surrogate_shown
from torchkoopman.showing.topologies import topology_shown
from torchkoopman.topology.report import Topology
from torchkoopman.unlearning.report import Audit

if TYPE_CHECKING:
    from torchkoopman.showing.shown import Shown
    from torchkoopman.spectra.tracks import ModeTracks


def series_of(
    result: Surrogate | Topology | Audit | Paths | FlowLook,
    *,
    tag: str = "",
    tracks: ModeTracks | None = None,
    pseudospectrum: bool = False,
) -> Shown:
    """The numbers that panels and event files show of a result.

    Example:
        >>> linear = tk.fit(model, train.loader(500), ["1", "9"], method="dmd", progress=False)
        >>> scalars = tk.showing.series_of(linear).scalars
        >>> scalars["trusted_modes"] > 0, scalars["modes_outside"] <= scalars["trusted_modes"]
        (True, True)
        >>> tk.showing.series_of(linear.spectrum())
        Traceback (most recent call last):
            ...
        TypeError: a Spectrum has no series of its own; give one of Surrogate, Topology, Audit, ...

    Args:
        result: a surrogate, :class:`torchkoopman.results.Topology`,
            :class:`torchkoopman.results.Audit`, :class:`torchkoopman.results.Paths`, or a
            :class:`torchkoopman.flows.FlowLook`.
        tag: name of the span; by default ``<first layer>-<last layer>``, of an audit
            ``forgetting-<classes>``, and of a look ``flow``.
        tracks: of the spectra until now, of which this surrogate's is the last.
        pseudospectrum: whether to compute the surrogate's, which takes seconds; without data that
            of the matrix.

    Raises:
        TypeError: another result, or ``tracks`` or ``pseudospectrum`` of one that is no surrogate.
        ValueError: an operator that is not finite.
    """
    if isinstance(result, Surrogate):
        return surrogate_shown(result, tag, tracks, pseudospectrum)
    if not isinstance(result, Topology | Audit | Paths | FlowLook):
        raise TypeError(
            f"a {type(result).__name__} has no series of its own; give one of Surrogate, Topology, "
            "Audit, Paths and FlowLook, such as the surrogate that it comes from."
        )
    if tracks is not None or pseudospectrum:
        raise TypeError(
            "tracks= and pseudospectrum= go with a Surrogate; the result is of the class "
            f"{type(result).__name__}."
        )
    if isinstance(result, Topology):
        return topology_shown(result, tag)
    if isinstance(result, Paths):
        return paths_shown(result, tag)
    if isinstance(result, FlowLook):
        return look_shown(result, tag)
    return audit_shown(result, tag)
