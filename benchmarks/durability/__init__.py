"""Processes that are killed and files that are damaged: what must be resumed, and what refused."""
