"""Cascade of two models (Yue et al. 2024, arXiv:2310.03094): the large one where the small one is at odds.

The small model (arm 0) writes `small` solutions; how many of them give the most frequent answer is its
consistency. From a share of `threshold` on, that answer stands. Else the large model (arm 1) writes `large`
solutions, whose majority answers. Solutions without an answer agree with nothing and have no vote; where
the large model has no answer at all, the small one's stands.

The source mixes two ways of writing in the small model's samples, in words and as a program, and asks the
large model in words alone. A replay has one prompt an arm and runs no programs. A thorough cascade asks for
more consistency, so that more problems reach the large model.
"""

from controllers.voting import majority


def schedule(beta):
    return {"small": round(2 * 8**beta), "large": round(16**beta), "threshold": 0.6 + 0.3 * beta}


async def votes_of(ep, arm, count):
    branches = await ep.sample(count, arm=arm)
    return [a for a in (ep.answer[b] for b in branches) if a is not None and a >= 0], len(branches)


async def solve(ep, small, large, threshold):
    votes, written = await votes_of(ep, 0, small)
    answer = majority(votes)
    if not written or votes.count(answer) < threshold * written:
        better, _ = await votes_of(ep, 1, large)
        answer = majority(better or votes)
    return answer
