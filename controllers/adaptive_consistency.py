"""Adaptive consistency (Aggarwal et al. 2023, arXiv:2305.11860): one by one until the lead is safe."""

from collections import Counter

from controllers.voting import majority, majority_confidence


def schedule(beta):
    return {"max_branches": round(64**beta), "threshold": 0.95}


async def solve(ep, max_branches, threshold):
    votes = Counter()
    for read in range(max_branches):
        branches = await ep.sample(1)
        if not branches:
            break
        votes[ep.answer[branches[0]]] += 1
        if read and majority_confidence(votes) > threshold:
            break
    return majority(votes)
