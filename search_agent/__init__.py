"""Who improves controllers: proposers, the loop, the archive, feedback and the report."""
