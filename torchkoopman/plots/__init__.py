"""Pictures of results by functions, for who looks for them here; each result has ``.plot(ax)``."""

from torchkoopman.plots.functions import (
    plot_audit,
    plot_betti,
    plot_forgetting,
    plot_modes,
    plot_phase_portrait,
    plot_pseudospectrum,
    plot_spectrum,
    plot_tracks,
    plot_trajectories,
)

__all__ = [
    "plot_spectrum",
    "plot_modes",
    "plot_tracks",
    "plot_pseudospectrum",
    "plot_betti",
    "plot_trajectories",
    "plot_forgetting",
    "plot_audit",
    "plot_phase_portrait",
]
