"""Reward-balanced search, REBASE (Wu et al. 2024, arXiv:2408.00724): the better a step, the more children.

Of `samples` candidates, those that have ended are solutions, each of which takes one off the budget; the rest
of it is shared out among the others in proportion to exp(score / temperature), as so many children of each.
At the end the solutions vote with their scores.

The source rounds every share by itself; here the largest remainders get what is left (ties to the one opened
first), so that the shares add up to the budget. A replay cannot draw steps without end: a step is a segment
of the store, and a node whose share is larger than its children gets those that there are; what it lacks is
not given to others at that step, but belongs to the budget of the next.
"""

from math import exp

from controllers.voting import path_score, weighted_majority


def schedule(beta):
    return {"samples": round(64**beta), "temperature": 0.1, "aggregate": "last"}


def shares(weights, budget):
    exact = [budget * weight / sum(weights) for weight in weights]
    whole = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda k: whole[k] - exact[k])
    for k in by_remainder[: budget - sum(whole)]:
        whole[k] += 1
    return whole


async def solve(ep, samples, temperature, aggregate):
    solutions, candidates = [], await ep.branch(samples, probe=False)
    score = {}
    while candidates:
        await ep.score(candidates)
        score |= {b: path_score(ep.prm[b], aggregate) for b in candidates}
        solutions += [b for b in candidates if ep.done[b]]
        running = [b for b in candidates if not ep.done[b]]
        if not running:
            break
        best = max(score[b] for b in running)
        weights = [exp((score[b] - best) / temperature) for b in running]
        widths = dict(zip(running, shares(weights, samples - len(solutions)), strict=True))
        ep.prune(b for b in running if not widths[b])
        parents = [b for b in running if widths[b]]
        forks = await ep.together(*[ep.fork(b, widths[b], probe=False) for b in parents])
        ep.prune(parents)
        candidates = [b for born in forks for b in born]
    return weighted_majority([ep.answer[b] for b in solutions], [score[b] for b in solutions])
