"""Live episodes: the same controllers, frames and meanings as in replay, with a model in place of a store."""
