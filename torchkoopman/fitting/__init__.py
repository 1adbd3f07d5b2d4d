"""Fitting: numbers become the linear system."""
