"""A favoured field: all branches at once, agreement runs ahead, dissent is given up, a clear lead ends it.

`width` branches start together and are asked at every look, `stride` segments apart, where they stand. Only
branches that have ended vote. Those that stand at the leader's answer run `favour` times as far a step; those
that stood elsewhere at `patience` looks in a row are given up. It ends when `quorum` branches have and the
leader is `margin` standard deviations ahead, or when nobody is left to run.

Why it works: short solutions end first and are right more often, so that the first votes are good ones, and
most of a long dissenting branch is never paid for. Nothing waits for anything else: its critical path is
about half of that of 64 branches run to their ends.

Lineage: the run data/discovery/compose.json, round 6, its winner: one of the assemblies that the grammar of
the `compose` proposer starts from, with constants as functions of beta. No model took part.

Accuracy in % at thousands of tokens, four Qwen3 models, seeds 0..99, probes at 20 tokens (at 0: tokens are 1%
fewer), 95% over problems; hypervolume 0.350 [0.249, 0.465] and 0.285 [0.198, 0.393]:

    beta        0                 0.25              0.5                0.75               1
    AIME 2024   57 [46, 67] @ 38  60 [49, 70] @ 62  63 [51, 73] @ 121  64 [51, 74] @ 214  64 [51, 75] @ 374
    AIME 2025   50 [38, 62] @ 43  53 [40, 65] @ 70  56 [43, 68] @ 138  57 [44, 69] @ 246  57 [45, 69] @ 432
"""

import math
from collections import Counter

from controllers.voting import top_two


def schedule(beta):
    return {
        "width": round(3 * (32 / 3) ** beta),
        "stride": 4,
        "favour": 2,
        "quorum": round(4**beta),
        "margin": 1 + 0.5 * beta,
        "patience": round(2 * 4**beta),
    }


async def solve(ep, width, stride, favour, quorum, margin, patience):
    live = await ep.branch(min(width, ep.max_branches))
    ended, votes, astray, leader = 0, Counter(), Counter(), None
    while live:
        done = [i for i in live if ep.done[i]]
        ended += len(done)
        votes.update(ep.answer[i] for i in done if ep.answer[i] != -1)
        live = [i for i in live if not ep.done[i]]
        if votes:
            leader = max(votes, key=votes.get)
            first, second = top_two(votes)
            if ended >= quorum and first - second >= margin * math.sqrt(first + second + 1):
                break
            astray = Counter({i: astray[i] + 1 for i in live if ep.answer[i] != leader})
            ep.prune(i for i in live if astray[i] >= patience)
            live = [i for i in live if astray[i] < patience]
        await ep.extend(live, [favour * stride if ep.answer[i] == leader else stride for i in live])
    return leader
