"""A staged race: short solutions are right more often, so branches race, and only an open question gets more.

`start` branches run side by side and are asked at every look where they stand. Once one has ended there is a
leader: branches that stand at its answer run twice as far a step, those that stood elsewhere at `patience`
looks in a row are given up. When nobody runs any more and the question is still open, further branches are
tried one by one, `width` in all. It ends when the leader is `margin` standard deviations ahead, or when it
would survive a share `safe` of all votes still to come being cast against it.

Why it works: the first to end decide most questions, and paying for the long rest of a branch that disagrees
with them seldom turns a vote. What beta buys is doubt: a larger field, a larger margin, more late comers.
Late comers run one behind the other: at beta 1 this is four times as long a wait as `favoured_field`.

Lineage: the run data/discovery/race.json, round 5 (parent: round 2, its winner). A language model took the
race and its looks from `favoured_field` and from what another model's run had taught (language-model.json);
an optimiser fitted the constants on AIME 2024, what never decided anything was left out.

Accuracy in % at thousands of tokens, four Qwen3 models, seeds 0..99, probes at 20 tokens (at 0: tokens are 1%
fewer), 95% over problems; hypervolume 0.365 [0.258, 0.481] and 0.301 [0.206, 0.418]:

    beta        0                 0.25              0.5               0.75               1
    AIME 2024   55 [44, 65] @ 26  59 [48, 70] @ 53  62 [50, 72] @ 91  63 [52, 74] @ 173  65 [53, 75] @ 331
    AIME 2025   49 [37, 60] @ 28  53 [40, 64] @ 60  55 [42, 67] @104  57 [44, 69] @ 200  58 [45, 70] @ 383
"""

import math
from collections import Counter

from controllers.voting import top_two


def schedule(beta):
    return {
        "start": round(2 * 12**beta),
        "width": round(2 * 30**beta),
        "stride": 4,
        "patience": 4,
        "margin": 0.5 * 4**beta,
        "safe": 0.6 * 3**-beta,
    }


async def solve(ep, start, width, stride, patience, margin, safe):
    width = min(width, ep.max_branches)
    live = await ep.branch(min(start, width))
    opened, votes, astray, leader = len(live), Counter(), Counter(), None
    while live:
        votes.update(ep.answer[i] for i in live if ep.done[i] and ep.answer[i] != -1)
        live = [i for i in live if not ep.done[i]]
        if votes:
            leader = max(votes, key=votes.get)
            first, second = top_two(votes)
            to_come = len(live) + width - opened
            if first - second >= margin * math.sqrt(first + second + 1) or first - second > safe * to_come:
                break
            astray = Counter({i: astray[i] + 1 for i in live if ep.answer[i] != leader})
            ep.prune(i for i in live if astray[i] >= patience)
            live = [i for i in live if astray[i] < patience]
        if live:
            await ep.extend(live, [2 * stride if ep.answer[i] == leader else stride for i in live])
        elif opened < width:
            live = await ep.branch(1)
            opened += len(live)
    return leader
