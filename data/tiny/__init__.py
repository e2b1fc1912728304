"""The tiny reasoning model: its problems, its worked solutions, its training and its process reward model."""
