"""Difficulty-adaptive self-consistency, DSC (Wang et al. 2025, arXiv:2408.13457): the harder, the more.

`first` whole solutions tell how hard the problem is. If all agree it is easy, and that is the answer. If not,
the number of samples is allocated ahead: as many as would make the lead safe (its confidence, as in adaptive
consistency, above `threshold`) if the votes went on as they have begun, at most twice those there are. That
is repeated until the lead is safe or `max_branches` are used up.

The source ranks a whole set of problems by difficulty with extra questions to the model, samples them from
the hardest on until a run of them is unanimous, and allocates by what the next easier ones needed. A replay
shows a controller one problem alone, so the difficulty is read from that problem's own first samples.
"""

from collections import Counter

from controllers.voting import lead_confidence, majority, majority_confidence, top_two


def schedule(beta):
    return {"max_branches": round(64**beta), "first": 4, "threshold": 0.95}


async def solve(ep, max_branches, first, threshold):
    votes, wanted = Counter(), min(first, max_branches)
    while wanted > votes.total():
        branches = await ep.sample(wanted - votes.total())
        if not branches:
            break
        votes.update(ep.answer[b] for b in branches)
        if len(votes) == 1 or majority_confidence(votes) > threshold:
            break
        read, (most, next_most) = votes.total(), top_two(votes)
        wanted = min(2 * read, max_branches)
        for total in range(read + 1, wanted):
            if lead_confidence(most * total // read, next_most * total // read) > threshold:
                wanted = total
                break
    return majority(votes)
