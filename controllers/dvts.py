"""Diverse verifier tree search (Beeching et al. 2024, Hugging Face search-and-learn): many greedy searches.

As beam search, but the beams never compete: each of `subtrees` keeps only its own best candidate at every
step and expands it `width` ways (ties to the one opened first). When a subtree's best candidate has ended, so
has the subtree, and all of its candidates that have ended at that step vote with their scores, as in the
source.

A replay cannot draw steps without end: a step is a segment of the store, and a node has the children that
were collected. A subtree whose best candidate has none is lost. The source stops after 40 steps.
"""

from controllers.voting import path_score, weighted_majority


def schedule(beta):
    return {"subtrees": round(16**beta), "width": 4, "aggregate": "last"}


async def solve(ep, subtrees, width, aggregate):
    opened = await ep.branch(subtrees * width, probe=False)
    groups = [opened[k : k + width] for k in range(0, len(opened), width)]
    voters, score = [], {}
    while groups:
        candidates = [b for group in groups for b in group]
        await ep.score(candidates)
        score |= {b: path_score(ep.prm[b], aggregate) for b in candidates}
        best = [max(group, key=score.get) for group in groups]
        for leader, group in zip(best, groups, strict=True):
            voters += [b for b in group if ep.done[leader] and ep.done[b]]
        going_on = [b for b in best if not ep.done[b]]
        ep.prune(b for b in candidates if b not in going_on)
        forks = await ep.together(*[ep.fork(b, width, probe=False) for b in going_on])
        ep.prune(going_on)
        groups = [born for born in forks if born]
    return weighted_majority([ep.answer[b] for b in voters], [score[b] for b in voters])
