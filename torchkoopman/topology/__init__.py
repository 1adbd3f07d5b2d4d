"""Topology: the shape of a layer's cloud of states, and of what a surrogate makes of it."""
