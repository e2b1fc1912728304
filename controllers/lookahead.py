"""Lookahead search (Snell et al. 2024, arXiv:2408.03314): a beam that looks k steps ahead before it judges.

As `beam_search`, but a candidate that has not ended is judged by the score at the end of a rollout of up to
`lookahead` more steps, which is thrown away afterwards: k + 1 steps are paid for one. The scores of the
candidates themselves are asked for first: solutions vote with them, and what the process reward model has
read of a path it need not read again for the rollout.

A replay cannot roll out greedily, as the source does (temperature 0): a rollout is one more sampled child,
and the tree's nodes need one child more than `width`, which is therefore one less than that of
`beam_search`. For the rest see there.
"""

from controllers.voting import path_score, weighted_majority


def schedule(beta):
    return {"beams": 3 * round(16**beta), "width": 3, "lookahead": 1, "aggregate": "last"}


async def solve(ep, beams, width, lookahead, aggregate):
    solutions, candidates = [], await ep.branch(beams, probe=False)
    score = {}
    while candidates:
        await ep.score(candidates)
        score |= {b: path_score(ep.prm[b], aggregate) for b in candidates}
        solutions += [b for b in candidates if ep.done[b]]
        if len(solutions) >= beams:
            break
        running = [b for b in candidates if not ep.done[b]]
        value = dict(score)
        if lookahead and running:
            tried = await ep.together(*[ep.fork(b, 1, probe=False) for b in running])
            rollouts = {ahead: b for b, born in zip(running, tried, strict=True) for ahead in born}
            if lookahead > 1:
                await ep.extend(rollouts, lookahead - 1, probe=False)
            await ep.score(rollouts)
            value |= {b: path_score(ep.prm[ahead], aggregate) for ahead, b in rollouts.items()}
            ep.prune(rollouts)
        running.sort(key=value.get, reverse=True)
        kept = running[: max(1, beams // width)]
        ep.prune(running[len(kept) :])
        forks = await ep.together(*[ep.fork(b, min(width, beams), probe=False) for b in kept])
        ep.prune(kept)
        candidates = [b for born in forks for b in born]
    return weighted_majority([ep.answer[b] for b in solutions], [score[b] for b in solutions])
