"""Shipping: an edited model leaves the house as a file."""
