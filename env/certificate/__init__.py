"""Certificates: did replay tell the truth about a model as it is served? Holds, fails, or undecided."""
