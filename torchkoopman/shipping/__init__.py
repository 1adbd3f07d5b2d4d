"""Shipping: an edited model becomes a file that other programs can run."""
