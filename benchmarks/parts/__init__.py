"""The parts of the bench: each a module with ``jobs(quick)`` and ``table(results)``."""
