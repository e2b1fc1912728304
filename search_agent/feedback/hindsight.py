"""What episodes could have had, told by hindsight: where accuracy was lost, and where tokens went.

Everything is read from the log of a replay and the store behind it. A branch *shows* an answer where it was
probed or had ended; its vote is the answer that it showed last, until it is pruned (nothing parsed is no
vote). The *leader* is the answer of most votes, of equals the one seen first.

**Losses.** The right answer is *possible* where one of the branches that the episode was allowed to open
ends with it, or the episode was right all the same (a probe may say what no end says). An episode that is
wrong although the right answer was possible is lost in the first of these ways that applies:

unanswered  the program failed, or gave no answer
outvoted    a branch that was not pruned had the right answer as its vote, and another answer was given
pruned      a pruned branch had the right answer as its vote, or would have ended with it
early       a branch still open would have ended with it: the program stopped too early
drifted     a branch showed it, and went on to another answer
unsampled   only branches that were never opened end with it

So the mean of `possible` less that of `correct` is the share of lost episodes, and the ways add up to it.

**Wastes.** Answers come one by one, by round, and within a round in the order in which it asked. The
*cheapest* stopping point is the first at which the answer that was given led (if it never led: at which it
was shown). It had *settled* at the first point from which it led until the end (if it did not lead in the
end: at the last point). What was spent is needed for the first answer that it led to: that of the branch
itself, or of one forked from it later. Each token is of the first of these kinds that applies:

hopeless    of an episode in which the right answer was not possible; the cheapest was to give up at once
unanswered  of one that failed or gave no answer
unheard     led to no answer: on branches that were left or pruned before they showed one (again)
settled     needed only after the answer had settled
confirming  needed after the cheapest stopping point and before it had settled
cheapest    needed for the cheapest stopping point: no waste, the rest is
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from env.costs.log import Log
from env.episode import FORK, OPENING, PRUNE, UNASKED, UNPARSED
from env.index import Index
from env.order import Order, rank
from env.replay import Replay
from env.stand import Ints

if TYPE_CHECKING:
    import polars as pl

Flags = NDArray[np.bool_]

UNANSWERED = "unanswered"
LOSSES = (UNANSWERED, "outvoted", "pruned", "early", "drifted", "unsampled")
WASTES = ("hopeless", UNANSWERED, "unheard", "settled", "confirming")
NEVER = 1 << 40


def look_back(replay: Replay, errors: Collection[int] = ()) -> pl.DataFrame:
    """Losses and wastes of E episodes, a row each, in their order.

    Args:
        replay: played to the end, with a log.
        errors: the episodes that ended with an error.

    Returns:
        `seed`, `correct`, `possible`, `loss` (of `LOSSES`, "" = none), `tokens`, `cheapest` and a column for
        each of `WASTES` (tokens; with `cheapest` they add up to `tokens`), `sequential`, `late` (sequential
        tokens of the rounds after the one in which the answer settled; all of them where cheapest is 0),
        `rounds`, `first_led` and `settled_in` (rounds from 1; 0 where there is no such point).
    """
    import polars as pl

    rows = _Rows.of(replay)
    episodes = np.arange(len(replay))
    unanswered = (replay.final == UNPARSED) | np.isin(episodes, list(errors))
    possible = replay.correct | _within_reach(replay)
    loss = _losses(replay, rows, unanswered)
    loss[replay.correct | ~possible] = ""
    spent, points = _spending(rows, replay.final, ~possible, unanswered)
    steps, owner = rows.log.steps, rows.log.episode[rows.log.first]
    late = steps * (rows.log.round[rows.log.first] + 1 > points[owner, 1])
    return pl.DataFrame(
        {
            "seed": replay.seeds,
            "correct": replay.correct,
            "possible": possible,
            "loss": loss.astype(str),
            "tokens": replay.ledger[:, :3].sum(axis=1),
            "cheapest": spent[:, len(WASTES)],
            **{name: spent[:, kind] for kind, name in enumerate(WASTES)},
            "sequential": replay.ledger[:, 3],
            "late": np.bincount(owner, late, len(replay)).astype(np.int64),
            "rounds": replay.rounds,
            "first_led": points[:, 0],
            "settled_in": points[:, 1],
        }
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of a log, those of a round with prunes first, then branches that open, and what they showed.

    Attributes:
        order: int64[R], place in the log of each row.
        node: int64[R], where the branch stood afterwards; -1 for a prune.
        code: int64[R], the answer shown, as the episode codes it; UNASKED = none.
        right: bool[R], whether that is the right one.
    """

    log: Log
    order: Ints
    episode: Ints
    kind: Ints
    slot: Ints
    parent_slot: Ints
    node: Ints
    code: Ints
    right: Flags

    @classmethod
    def of(cls, replay: Replay) -> _Rows:
        index = replay.index
        log = Log.of(replay, np.zeros(len(replay), np.int64), [""] * index.arms, "")
        acted = log.kind != PRUNE
        said = [results for _, _, results in replay.log or ()]
        nothing = np.zeros(0, np.int64)
        owner, node_of, code_of = (
            np.concatenate([nothing, *parts])
            for parts in (
                [np.repeat(results.episode, np.maximum(results.rows, 0)) for results in said],
                [results.node for results in said],
                [results.answer for results in said],
            )
        )
        as_logged = np.argsort(owner, kind="stable")
        node, code = np.full(len(acted), -1), np.full(len(acted), UNASKED)
        node[acted], code[acted] = node_of[as_logged], code_of[as_logged]
        opening = np.isin(log.kind, OPENING)
        order = np.lexsort((np.where(opening, 1, np.where(acted, 2, 0)), log.round, log.episode))
        return cls(
            log=log,
            order=order,
            episode=log.episode[order],
            kind=log.kind[order],
            slot=log.slot[order],
            parent_slot=log.parent_slot[order],
            node=node[order],
            code=code[order],
            right=((code != UNASKED) & _is_right(index)[node])[order],
        )

    @property
    def tokens(self) -> Ints:
        """int64[R], all that the row cost."""
        return (self.log.work + self.log.prm_tokens)[self.order]


def _is_right(index: Index) -> Flags:
    """bool[N], whether what a node would answer is right."""
    problem = np.searchsorted(index.forest.first_node, index.order, "right") - 1
    right: Flags = np.zeros(len(index.answer), np.bool_)
    told = np.flatnonzero(index.answer >= 0)
    right[told] = index.correct[index.first_answer[problem[told]] + index.answer[told]]
    return right


def _within_reach(replay: Replay) -> Flags:
    """bool[E], whether a branch that the episode was allowed to open ends with the right answer."""
    index = replay.index
    order = Order(index, replay.problems, replay.seeds)
    starts = np.sort(index.roots)
    ends_right = np.append(0, np.cumsum(_is_right(index) & (index.end > 0)))
    # Depth-first, a tree is the run of nodes up to the next root.
    right_in_tree = np.zeros(len(index.order), np.bool_)
    right_in_tree[starts] = ends_right[np.append(starts[1:], len(index.order))] > ends_right[starts]
    reached: Flags = np.zeros(len(replay), np.bool_)
    for arm in range(index.arms):
        count = np.minimum(replay.max_branches, index.pool[replay.problems, arm])
        episode = np.repeat(np.arange(len(replay)), count)
        root = order.root(episode, np.full(len(episode), arm), rank(episode))
        reached |= np.bincount(episode[right_in_tree[root]], minlength=len(replay)) > 0
    return reached


def _losses(replay: Replay, rows: _Rows, unanswered: Flags) -> NDArray[Any]:
    """The way in which each episode would be lost, if it is."""
    slots = 1 + int(rows.slot.max(initial=-1))
    stood = rows.node >= 0
    node, votes_right = np.full(slots, -1), np.zeros(slots, np.bool_)
    owner = np.zeros(slots, np.int64)
    # Of several rows of a branch the last one counts.
    node[rows.slot[stood]] = rows.node[stood]
    owner[rows.slot] = rows.episode
    shown = rows.code != UNASKED
    votes_right[rows.slot[shown]] = rows.right[shown]
    pruned = np.zeros(slots, np.bool_)
    pruned[rows.slot[rows.kind == PRUNE]] = True
    branches = np.flatnonzero(node >= 0)
    would = np.zeros(slots, np.bool_)
    end = _ends(replay, rows, branches, node[branches], owner[branches])
    would[branches] = _is_right(replay.index)[end] & (replay.index.end[end] > 0)

    def some(which: Flags) -> Flags:
        found: Flags = np.bincount(owner[which], minlength=len(replay)) > 0
        return found

    conditions = [
        unanswered,
        some(votes_right & ~pruned),
        some((votes_right | would) & pruned),
        some(would & ~pruned),
        np.bincount(rows.episode[rows.right], minlength=len(replay)) > 0,
    ]
    return np.select(conditions, LOSSES[:-1], LOSSES[-1])


def _ends(replay: Replay, rows: _Rows, branches: Ints, node: Ints, owner: Ints) -> Ints:
    """The node that each branch would come to if it went on as far as the store goes."""
    index = replay.index
    order = Order(index, replay.problems, replay.seeds)
    # A branch that goes on takes the first child that none was forked to.
    fork = rows.kind == FORK
    place = np.full(1 + int(branches.max(initial=-1)), -1)
    place[branches] = np.arange(len(branches))
    parent = place[rows.parent_slot[fork]]
    still_there = index.parent[rows.node[fork]] == node[parent]
    served = np.bincount(parent[still_there], minlength=len(branches))
    moving = np.flatnonzero(index.child_count[node] > served)
    while len(moving):
        child = order.child(owner[moving], node[moving], served[moving])
        node[moving] = index.tail[child]
        served[moving] = 0
        moving = moving[index.child_count[node[moving]] > 0]
    return node


def _spending(rows: _Rows, final: Ints, hopeless: Flags, unanswered: Flags) -> tuple[Ints, Ints]:
    """Tokens by kind, int64[E, 6] (`WASTES`, then cheapest), and the rounds of both points, int64[E, 2]."""
    episodes = len(final)
    spent, points = np.zeros((episodes, len(WASTES) + 1), np.int64), np.zeros((episodes, 2), np.int64)
    tokens = rows.tokens
    total = np.bincount(rows.episode, tokens, episodes).astype(np.int64)
    spent[:, 0] = np.where(hopeless, total, 0)
    spent[:, 1] = np.where(~hopeless & unanswered, total, 0)
    bounds = np.searchsorted(rows.episode, np.arange(episodes + 1))
    rounds = rows.log.round[rows.order]
    for episode in np.flatnonzero(~hopeless & ~unanswered).tolist():
        here = slice(bounds[episode], bounds[episode + 1])
        kind, slot, code = (column[here].tolist() for column in (rows.kind, rows.slot, rows.code))
        first, settled = _stopping_points(kind, slot, code, int(final[episode]))
        points[episode] = rounds[here][[first, settled]] + 1
        need = _needs(kind, slot, rows.parent_slot[here].tolist(), code)
        spent[episode, 2:] = np.bincount(
            np.select([need == NEVER, need > settled, need > first], [0, 1, 2], 3), tokens[here], 4
        )
    return spent, points


def _stopping_points(
    kind: Sequence[int], slot: Sequence[int], code: Sequence[int], final: int
) -> tuple[int, int]:
    """The rows with which `final` first led, and with which it had settled; see the module."""
    counts: Counter[int] = Counter()
    votes: dict[int, int] = {}
    first = since = shown = None
    last = 0
    for row, (what, branch, said) in enumerate(zip(kind, slot, code, strict=True)):
        if what == PRUNE:
            said = UNPARSED
        elif said == UNASKED:
            continue
        else:
            last = row
            if said == final and shown is None:
                shown = row
        before = votes.get(branch, UNPARSED)
        if said == before:
            continue
        votes[branch] = said
        counts[before] -= 1
        counts[said] += 1
        most = counts[final]
        leads = most > 0 and all(
            count < most or (count == most and other >= final)
            for other, count in counts.items()
            if other != UNPARSED
        )
        since = (row if since is None else since) if leads else None
        first = since if first is None else first
    first = shown if first is None else first
    assert first is not None, "an answer was given that no branch had shown"
    # A vote may come to lead by what is pruned, after the last answer.
    return first, max(first, last) if since is None else since


def _needs(kind: Sequence[int], slot: Sequence[int], parent: Sequence[int], code: Sequence[int]) -> Ints:
    """For each row the first one, itself or later, with an answer that it led to; NEVER = none."""
    coming: dict[int, int] = {}
    need = [NEVER] * len(kind)
    for row in range(len(kind) - 1, -1, -1):
        branch = slot[row]
        if code[row] != UNASKED:
            coming[branch] = row
        need[row] = coming.get(branch, NEVER)
        if kind[row] == FORK:
            # What a round does to the parent comes after its forks, which left from where it had stood.
            above = parent[row]
            coming[above] = min(coming.get(above, NEVER), need[row])
    return np.array(need, np.int64)
