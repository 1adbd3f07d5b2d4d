"""What eigenvalues of an operator are, how far to trust them, and how two operators compare."""
