"""Compute-optimal policies: who plays depends on how hard a problem seems and on what may be spent.

Snell et al. 2024 (arXiv:2408.03314) and Liu et al. 2025 (arXiv:2502.06703) sort problems by difficulty, find
the strategy that does best at each difficulty and budget, and play that. Here strategies are controllers,
and what comes out is a controller too: `scouting` says how hard a problem seems, `fitting` who is to play,
`assemble` writes the file.
"""
