"""Koopman: the linear system, from coordinates to spectrum."""
