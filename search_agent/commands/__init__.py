"""Sub-commands of `autotts` that search and report."""
