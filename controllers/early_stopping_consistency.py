"""Early-stopping consistency (Li et al. 2024, arXiv:2401.10480): windows until one is unanimous."""

from controllers.voting import majority


def schedule(beta):
    return {"max_branches": round(64**beta), "window": 8}


async def solve(ep, max_branches, window):
    votes = []
    for _ in range(max(1, max_branches // window)):
        latest = [ep.answer[b] for b in await ep.sample(min(window, max_branches))]
        votes += latest
        if len(set(latest)) <= 1:
            return majority(latest or votes)
    return majority(votes)
