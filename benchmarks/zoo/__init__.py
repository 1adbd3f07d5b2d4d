"""Swaps in the architectures people have."""
