"""Deep Think with Confidence, online (Fu et al. 2025, arXiv:2508.15260): drop chains that lose confidence.

`warm_up` chains run to their ends. A chain's confidence is the lowest group confidence along it; the
percentile of the warm-up's that leaves `keep` of them above is the threshold (0.1: DeepConf-low, 0.9:
DeepConf-high). Later chains, `batch` at a time, are stopped where their group confidence falls below it.
Chains that end above the threshold, those of the warm-up too, vote with their confidence; when `consensus` of
the votes agree, or `max_branches` are open, the leader is the answer.

A replay knows group confidence only at the ends of the store's segments, over the window of its collection: a
chain is stopped there and not at the token where it fell, and a shorter dip goes unseen; one whose confidence
is never known runs on and has no vote. The source's pseudocode runs later chains one by one, its program all
at once.
"""

from math import inf

from controllers.voting import weigh


def schedule(beta):
    budget = round(64**beta)
    return {"max_branches": budget, "warm_up": min(16, (budget + 1) // 2), "keep": 0.1, "consensus": 0.95,
            "batch": 8}  # fmt: skip


async def solve(ep, max_branches, warm_up, keep, consensus, batch):
    threshold, lowest, votes = -inf, {}, {}
    while len(lowest) < max_branches:
        size = batch if lowest else warm_up
        moved = await ep.branch(min(size, max_branches - len(lowest)), probe=False)
        if not moved:
            break
        if not ep.confidence:
            raise ValueError("this store has no confidence: it was collected without log probabilities")
        lowest |= dict.fromkeys(moved, inf)
        while moved:
            lowest |= {b: min(lowest[b], c) for b in moved if (c := ep.confidence[b]) is not None}
            ep.prune(b for b in moved if lowest[b] < threshold)
            moved = [b for b in moved if not ep.done[b]]
            if moved:
                await ep.extend(moved, probe=False)
        ranked = sorted(confidence for confidence in lowest.values() if confidence < inf)
        if threshold == -inf and ranked:
            at = (len(ranked) - 1) * (1 - keep)
            below, above = ranked[int(at)], ranked[min(int(at) + 1, len(ranked) - 1)]
            threshold = below + (above - below) * (at - int(at))
        voters = [b for b in lowest if threshold <= lowest[b] < inf]
        votes = weigh([ep.answer[b] for b in voters], [lowest[b] for b in voters])
        if votes and max(votes.values()) >= consensus * sum(votes.values()):
            break
    return max(votes, key=votes.get) if votes else None
