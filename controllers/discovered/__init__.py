"""Controllers that searches found, each with a header that says where it came from."""
