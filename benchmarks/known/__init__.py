"""Systems and networks whose Koopman eigenvalues are known."""
