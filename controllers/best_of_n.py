"""Best of N with a process reward model (Lightman et al. 2023, arXiv:2305.20050): finish N, trust the best.

The step scores of a solution become one number by `aggregate`: "last" (Snell et al. 2024, arXiv:2408.03314),
"min", "product" or "mean". With `vote`, every solution votes with that number, so that equal answers add up
(weighted best of N, Li et al. 2022, arXiv:2206.02336). Solutions without an answer are passed over, where the
sources would hand in whatever scored best. Replay expresses all of it.
"""

from controllers.voting import best_scored, path_score, weighted_majority


def schedule(beta):
    return {"max_branches": round(64**beta), "aggregate": "last", "vote": False}


async def solve(ep, max_branches, aggregate, vote):
    branches = await ep.sample(max_branches)
    await ep.score(branches)
    answers = [ep.answer[b] for b in branches]
    scores = [path_score(ep.prm[b], aggregate) for b in branches]
    return weighted_majority(answers, scores) if vote else best_scored(answers, scores)
