"""Particle filtering (Puri et al. 2025, arXiv:2502.01618): resample the steps by their odds of being right.

After every step, `particles` are drawn with replacement from those that there are, finished ones too, with
weights r / (1 - r) for a step score r (a softmax of its logits, as in the source's program). A particle drawn
k times goes on as k, each by a step of its own. Once all have finished, the best scored one answers.

Draws: one `ep.rng.choices` a step, over the particles in the order opened, copies of one next to each other.
A replay cannot draw steps without end: a step is a segment of the store, and a particle drawn more often than
its node has children goes on as so many; the next draw fills the ranks again. There are no annealing and no
Gibbs iterations, which the source has as variants.
"""

from collections import Counter

from controllers.voting import best_scored, path_score

SURE = 1 - 2**-40


def schedule(beta):
    return {"particles": round(64**beta), "aggregate": "last"}


async def solve(ep, particles, aggregate):
    swarm = fresh = await ep.branch(particles, probe=False)
    score = {}
    while fresh:
        await ep.score(fresh)
        score |= {b: path_score(ep.prm[b], aggregate) for b in fresh}
        if all(ep.done[b] for b in swarm):
            break
        likely = [min(max(score[b], 1 - SURE), SURE) for b in swarm]
        drawn = Counter(ep.rng.choices(swarm, [r / (1 - r) for r in likely], k=particles))
        parents = [b for b in swarm if not ep.done[b] and drawn[b]]
        ep.prune(b for b in swarm if not drawn[b])
        forks = await ep.together(*[ep.fork(b, drawn[b], probe=False) for b in parents])
        finished = [b for b in sorted(drawn.elements()) if ep.done[b]]
        ep.prune(parents)
        fresh = [b for born in forks for b in born]
        swarm = finished + fresh
    return best_scored([ep.answer[b] for b in swarm], [score[b] for b in swarm])
