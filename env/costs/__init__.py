"""What a wave of episodes cost, each cost a function of the engine's action log and of nothing else.

`log` lays the action log out as columns, `catalogue` has the costs, a function each, `registry` finds the
one that `--cost` names, `sharing` and `shapes` hold what several of them need.

The docstring of every cost works it out for one and the same episode, on a prompt of 100 tokens:

    round 0  opens branch 0 (10 tokens) and branch 1 (20), and probes both (2 tokens each)
    round 1  forks branches 2 and 3 (5 tokens each) from branch 0, and extends branch 1 (30), which ends
    round 2  prunes branches 0 and 3, and finishes branch 2 (15)
    round 3  has the process reward model score branch 2: its path of 10 + 5 + 15 = 30 tokens
"""
