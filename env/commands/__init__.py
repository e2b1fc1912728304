"""Sub-commands of `autotts` that measure."""
