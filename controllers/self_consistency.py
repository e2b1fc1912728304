"""Self-consistency (Wang et al. 2022, arXiv:2203.11171): sample whole solutions, take the majority."""

from controllers.voting import majority


def schedule(beta):
    return {"max_branches": round(64**beta)}


async def solve(ep, max_branches):
    return majority(ep.answer[b] for b in await ep.sample(max_branches))
