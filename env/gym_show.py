"""What a step of the Gymnasium environments asks of the engine, and what it then shows: compiled loops.

Both are about E episodes; `env.gym_board` says who keeps the arrays.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from env import stand as at
from env.compiled import compiled
from env.engine import opens
from env.episode import BRANCH, EXTEND, FINISH, FORK, PROBE, PRUNE, SCORE, UNASKED, UNPARSED
from env.gym_table import ALL, ANSWER, KILO, RUNNING
from env.stand import EXHAUSTED, LIVE, PRUNED, Ints

NOTHING = -1


class Buttons(NamedTuple):
    """The table of actions.

    Attributes:
        moves: int64[A, 3], as `env.gym_table.Table.moves`.
        everywhere, blocks: int64[kinds], as `everywhere` and `at` there; 0 where there is none.
    """

    moves: Ints
    everywhere: Ints
    blocks: Ints


class Display(NamedTuple):
    """What is seen of E episodes of so many slots each, and what it takes to bring that up to date.

    Attributes:
        action_mask, answer, ... score: the observation; of a column that it lacks, no slots.
        exact: int64[E, slots], tokens decoded.
        scored_at: int64[E, slots], the node at which a branch was scored last, -1 for none.
        unasked, unscored: bool[E, slots], which branches have moved since, and can be asked or scored.
        leader: int64[E], the answer code with most votes.
    """

    action_mask: NDArray[np.int8]
    answer: NDArray[np.int32]
    votes: NDArray[np.int32]
    state: NDArray[np.int8]
    depth: NDArray[np.int32]
    tokens: NDArray[np.float32]
    spent: NDArray[np.float32]
    lead: NDArray[np.int32]
    room: NDArray[np.int32]
    children: NDArray[np.int32]
    score: NDArray[np.float32]
    exact: Ints
    scored_at: Ints
    unasked: NDArray[np.bool_]
    unscored: NDArray[np.bool_]
    leader: Ints


@compiled
def requests(
    moves: Ints,
    blocks: Ints,
    action_mask: NDArray[np.int8],
    unasked: NDArray[np.bool_],
    unscored: NDArray[np.bool_],
    chosen: Ints,
) -> tuple[Ints, Ints]:
    """What the actions int64[E] ask of `Replay.step`; nothing where one is NOTHING, ANSWER or ruled out."""
    slots, running = unasked.shape[1], blocks[EXTEND]
    actions, ids = np.zeros((len(chosen), 5), np.int64), np.empty(unasked.size, np.int64)
    doers = named = 0
    for e in range(len(chosen)):
        pressed = chosen[e]
        if pressed == NOTHING or pressed == ANSWER or action_mask[e, pressed] == 0:
            continue
        kind, target, width = moves[pressed, 0], moves[pressed, 1], moves[pressed, 2]
        opening = opens(kind)
        first = named
        for b in range(0 if opening else slots):
            changes = action_mask[e, running + b] == 1
            if kind == PROBE:
                changes = unasked[e, b]
            elif kind == SCORE:
                changes = unscored[e, b]
            if b == target or (target == ALL and changes):
                ids[named] = b
                named += 1
        actions[doers, 0], actions[doers, 1], actions[doers, 2] = e, kind, kind == PROBE
        actions[doers, 3] = width if opening else named - first
        actions[doers, 4] = target if opening else kind == EXTEND
        doers += 1
    return actions[:doers], ids[:named]


@compiled
def show(
    nodes: NDArray[np.int32],
    links: NDArray[np.int32],
    table: Ints,
    roots: Ints,
    slots: NDArray[np.int32],
    actions: Ints,
    ids: Ints,
    rows: Ints,
    branch: Ints,
    decoded: Ints,
    lengths: Ints,
    scores: NDArray[np.float32],
    moves: Ints,
    everywhere: Ints,
    blocks: Ints,
    action_mask: NDArray[np.int8],
    answer: NDArray[np.int32],
    votes: NDArray[np.int32],
    state: NDArray[np.int8],
    depth: NDArray[np.int32],
    tokens: NDArray[np.float32],
    spent: NDArray[np.float32],
    lead: NDArray[np.int32],
    room: NDArray[np.int32],
    children: NDArray[np.int32],
    score: NDArray[np.float32],
    exact: Ints,
    scored_at: Ints,
    unasked: NDArray[np.bool_],
    unscored: NDArray[np.bool_],
    leader: Ints,
) -> None:
    """Bring the episodes that have acted up to date.

    Args:
        nodes, links: as in `env.stand.Trees`.
        table, roots, slots: `episodes`, `roots` and `slots` of `env.stand.Stand`.
        actions, ids: of the round.
        rows, branch, decoded: `rows`, `branch` and `tokens` of its `Results`.
        lengths, scores: its scores, empty where nothing was scored.
        moves, everywhere, blocks: of `Buttons`; from `action_mask` to `leader`: of `Display`. One by one, for
            to look what is in a named tuple takes longer than to play a small round.
    """
    buttons = Buttons(moves, everywhere, blocks)
    display = Display(
        action_mask, answer, votes, state, depth, tokens, spent, lead, room, children, score,
        exact, scored_at, unasked, unscored, leader,
    )  # fmt: skip
    capacity, extend, finish, prune = len(slots) // len(table), blocks[EXTEND], blocks[FINISH], blocks[PRUNE]
    episodes, voting = actions[:, 0].copy(), np.zeros(len(actions), np.bool_)
    named = answered = row = read = 0
    for a in range(len(actions)):
        e, kind = actions[a, 0], actions[a, 1]
        for k in range(actions[a, 3] if kind == PRUNE else rows[answered]):
            b = ids[named + k] if kind == PRUNE else branch[row]
            slot = e * capacity + b
            node, end, told = slots[slot, at.NODE], slots[slot, at.STATE], slots[slot, at.TOLD]
            if end == LIVE:
                end = nodes[node, at.END]
            if kind == SCORE:
                scored_at[e, b] = node
                read += lengths[row] if len(lengths) else 0
                if len(lengths) and lengths[row]:
                    score[e, b] = scores[read - 1]
            elif kind == FORK and score.size:
                score[e, b] = score[e, actions[a, 4]]
            if kind != PRUNE:
                exact[e, b] += decoded[row]
                row += 1
            voting[a] |= told != answer[e, b] or end == PRUNED
            answer[e, b], state[e, b] = told, RUNNING + end
            depth[e, b], tokens[e, b] = links[node, at.DEPTH], exact[e, b] / KILO
            unasked[e, b] = (end == LIVE or end == EXHAUSTED) and slots[slot, at.ASKED_AT] != node
            unscored[e, b] = end != PRUNED and scored_at[e, b] != node
            action_mask[e, extend + b] = action_mask[e, finish + b] = action_mask[e, prune + b] = end == LIVE
        named += 0 if opens(kind) else actions[a, 3]
        answered += kind != PRUNE
    count_votes(table, display, episodes[voting])
    show_totals(links, table, roots, slots, buttons, display, episodes)


@compiled
def count_votes(table: Ints, display: Display, episodes: Ints) -> None:
    """Who says the same as how many others, of those that are not pruned."""
    for e in episodes:
        opened = table[e, at.OPENED]
        said = display.answer[e, :opened].copy()
        counts = np.zeros(table[e, at.GIVEN] - UNASKED, np.int32)
        for b in range(opened):
            if display.state[e, b] == RUNNING + PRUNED:
                said[b] = UNASKED
            counts[said[b] - UNASKED] += said[b] != UNASKED
        leader = UNPARSED
        most = second = 0
        for b in range(opened):
            display.votes[e, b] = votes = counts[said[b] - UNASKED]
            if votes > most:
                most, leader = votes, said[b]
        for b in range(opened):
            if said[b] != leader:
                second = max(second, display.votes[e, b])
        display.lead[e, 0], display.lead[e, 1], display.leader[e] = most, second, leader


@compiled
def show_totals(
    links: NDArray[np.int32],
    table: Ints,
    roots: Ints,
    slots: NDArray[np.int32],
    buttons: Buttons,
    display: Display,
    episodes: Ints,
) -> None:
    """What these episodes have cost, and what can be done in them that is not about one branch."""
    mask, moves, everywhere, blocks = display.action_mask, buttons.moves, buttons.everywhere, buttons.blocks
    places = display.state.shape[1]
    for e in episodes:
        opened = table[e, at.OPENED]
        for column in range(at.SEQUENTIAL + 1):
            display.spent[e, column] = table[e, column] / KILO
        unopened = table[e, at.MAX_BRANCHES] - roots[e, :, at.SERVED_ROOTS].sum()
        display.room[e, 0] = room = min(unopened, places - opened)
        for action in range(1, len(moves)):
            if moves[action, 0] != BRANCH:
                break
            arm, width = moves[action, 1], moves[action, 2]
            left = roots[e, arm, at.POOL] - roots[e, arm, at.SERVED_ROOTS]
            mask[e, action] = width <= min(room, left)
        running = blocks[EXTEND]
        mask[e, everywhere[EXTEND]] = mask[e, everywhere[FINISH]] = mask[e, running : running + opened].any()
        if everywhere[PROBE]:
            mask[e, everywhere[PROBE]] = display.unasked[e, :opened].any()
        if everywhere[SCORE]:
            mask[e, everywhere[SCORE]] = display.unscored[e, :opened].any()
        for b in range(opened if blocks[FORK] else 0):
            slot = e * (len(slots) // len(table)) + b
            left = links[slots[slot, at.NODE], at.CHILD_COUNT] - slots[slot, at.SERVED]
            display.children[e, b] = left
            mask[e, blocks[FORK] + b] = (
                opened < places and display.state[e, b] != RUNNING + PRUNED and left > 0
            )
