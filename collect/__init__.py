"""Whatever talks to a model, and importers: everything that makes a store."""
