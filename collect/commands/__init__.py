"""Sub-commands of `autotts` that make stores."""
