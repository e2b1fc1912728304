"""Two-sample agreement (CoT-PoT, Saparkhan et al. 2026, arXiv:2604.17433): one of each arm, and often done.

Two ways of working that err differently, arm 0 and arm 1, write one solution each. If the two agree, that is
the answer: agreement across arms says more than within one. If not, they go on in pairs, until the lead of
the most frequent answer is safe (as in adaptive consistency, above `threshold`) or there are `max_branches`.
Solutions without an answer agree with nothing and have no vote.

The source's two ways are a chain and a program of thought of one model; here they are whatever arms a store
was collected with, and a replay runs no programs. Past the first pair, the source has a Bayesian test of its
own; that of adaptive consistency stands for it.
"""

from controllers.voting import majority, majority_confidence


def schedule(beta):
    return {"max_branches": 2 * round(16**beta), "threshold": 0.95}


async def solve(ep, max_branches, threshold):
    votes = []
    for opened in range(0, max_branches, 2):
        pair = await ep.together(ep.sample(1), ep.sample(1, arm=1))
        branches = [b for born in pair for b in born]
        if not branches:
            break
        votes += [a for a in (ep.answer[b] for b in branches) if a is not None and a >= 0]
        agreed = opened == 0 and len(votes) == 2 and votes[0] == votes[1]
        if agreed or majority_confidence(votes) > threshold:
            break
    return majority(votes)
