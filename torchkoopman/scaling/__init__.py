"""A trajectory inside one layer, after layer scaling (arXiv 2409.01308)."""
