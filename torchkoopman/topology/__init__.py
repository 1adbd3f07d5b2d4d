"""Topology: the shape of a layer's cloud of states, and of what a surrogate makes of it."""

from torchkoopman.topology.betti import betti_curve

__all__ = [
    "betti_curve",
]
