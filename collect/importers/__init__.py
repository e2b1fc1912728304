"""Readers of other formats: each turns files into a store."""
