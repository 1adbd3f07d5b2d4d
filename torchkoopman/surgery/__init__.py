"""Surgery: the linear system becomes a network again."""
