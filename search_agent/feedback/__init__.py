"""Feedback: what an evaluation teaches, from episodes and their logs to figures and a bounded text."""
