"""Unlearning: an edit of the operator redirects a class."""
