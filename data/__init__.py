"""What a fresh machine runs on: a tiny model and the stores collected from it."""
