"""Beam search by step scores (Snell et al. 2024, arXiv:2408.03314): keep the best steps, expand them, repeat.

Of up to `beams` candidates, each one step longer than the last time, the best beams / width go on, `width`
ways each (ties to the one opened first). Candidates that end are solutions and leave the beam. When there are
`beams` solutions, or nothing is left to expand, the solutions vote with their scores (weighted best of N).

A replay cannot draw steps without end: a step is a segment of the store, and a node has the children that
were collected, so that a beam which gets fewer than `width` makes the next step narrower. The source stops
after 40 steps; here a tree ends by itself.
"""

from controllers.voting import path_score, weighted_majority


def schedule(beta):
    return {"beams": 4 * round(16**beta), "width": 4, "aggregate": "last"}


async def solve(ep, beams, width, aggregate):
    solutions, candidates = [], await ep.branch(beams, probe=False)
    score = {}
    while candidates:
        await ep.score(candidates)
        score |= {b: path_score(ep.prm[b], aggregate) for b in candidates}
        solutions += [b for b in candidates if ep.done[b]]
        if len(solutions) >= beams:
            break
        running = [b for b in candidates if not ep.done[b]]
        running.sort(key=score.get, reverse=True)
        kept = running[: max(1, beams // width)]
        ep.prune(running[len(kept) :])
        forks = await ep.together(*[ep.fork(b, min(width, beams), probe=False) for b in kept])
        ep.prune(kept)
        candidates = [b for born in forks for b in born]
    return weighted_majority([ep.answer[b] for b in solutions], [score[b] for b in solutions])
