"""Process reward models: how good each step of a path is, and how far to trust that."""
