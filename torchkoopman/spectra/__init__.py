"""What eigenvalues of an operator are, how far to trust them, and how two operators compare."""

from torchkoopman.spectra.normality import non_normality

__all__ = [
    "non_normality",
]
