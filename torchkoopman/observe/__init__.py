"""Observe: a running model becomes numbers."""
