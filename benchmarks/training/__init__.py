"""Networks watched while they are trained."""
