"""Adaptive consistency (Aggarwal et al. 2023, arXiv:2305.11860): sample until the lead is safe.

The source samples one by one. As many as the lead lacks even if all of them agreed are drawn in any case, and
therefore at once: the same samples and the same answer, sooner.
"""

from collections import Counter

from controllers.voting import lead_confidence, majority, top_two


def schedule(beta):
    return {"max_branches": round(64**beta), "threshold": 0.95}


async def solve(ep, max_branches, threshold):
    votes = Counter()
    while lacking := lacks(votes, max_branches, threshold):
        # Beyond the last that there is only one: how many more are missing hangs on what it would have said.
        branches = await ep.sample(min(lacking, max(1, ep.max_branches - votes.total())))
        if not branches:
            break
        votes.update(ep.answer[b] for b in branches)
    return majority(votes)


def lacks(votes, max_branches, threshold):
    read, (first, second) = votes.total(), top_two(votes)
    for more in range(max_branches - read):
        if read + more > 1 and lead_confidence(first + more, second) > threshold:
            return more
    return max(0, max_branches - read)
