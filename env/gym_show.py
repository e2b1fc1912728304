"""What a step of the Gymnasium environments asks of the engine, and what it then shows: compiled loops.

Both are about E episodes; `env.gym_board` says who keeps the arrays.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from env import stand as at
from env.compiled import compiled
from env.episode import BRANCH, EXTEND, FINISH, FORK, PROBE, PRUNE, SCORE, UNASKED, UNPARSED
from env.gym_table import ALL, ANSWER, KILO, RUNNING
from env.stand import EXHAUSTED, LIVE, PRUNED, Ints, Stand

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
def requests(buttons: Buttons, display: Display, chosen: Ints) -> tuple[Ints, Ints]:
    """What the actions int64[E] ask of `Replay.step`; nothing where one is NOTHING, ANSWER or ruled out."""
    slots, running = display.state.shape[1], buttons.blocks[EXTEND]
    actions, ids = np.zeros((len(chosen), 5), np.int64), np.empty(display.state.size, np.int64)
    doers = named = 0
    for e in range(len(chosen)):
        pressed = chosen[e]
        if pressed == NOTHING or pressed == ANSWER or display.action_mask[e, pressed] == 0:
            continue
        kind, target, width = buttons.moves[pressed, 0], buttons.moves[pressed, 1], buttons.moves[pressed, 2]
        opening = kind == BRANCH or kind == FORK
        first = named
        for b in range(0 if opening else slots):
            changes = display.action_mask[e, running + b] == 1
            if kind == PROBE:
                changes = display.unasked[e, b]
            elif kind == SCORE:
                changes = display.unscored[e, b]
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
    stand: Stand,
    buttons: Buttons,
    display: Display,
    actions: Ints,
    ids: Ints,
    rows: Ints,
    branch: Ints,
    decoded: Ints,
    lengths: Ints,
    scores: NDArray[np.float32],
) -> None:
    """Bring the episodes that have acted up to date.

    Args:
        nodes: as in `env.stand.Trees`.
        rows, branch, decoded: `rows`, `branch` and `tokens` of the round's `Results`.
        lengths, scores: its scores, empty where nothing was scored.
    """
    mask, slots, capacity = display.action_mask, stand.slots, len(stand.slots) // len(stand.episodes)
    extend, finish, prune = buttons.blocks[EXTEND], buttons.blocks[FINISH], buttons.blocks[PRUNE]
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
                display.scored_at[e, b] = node
                read += lengths[row] if len(lengths) else 0
                if len(lengths) and lengths[row]:
                    display.score[e, b] = scores[read - 1]
            elif kind == FORK and display.score.size:
                display.score[e, b] = display.score[e, actions[a, 4]]
            if kind != PRUNE:
                display.exact[e, b] += decoded[row]
                row += 1
            voting[a] |= told != display.answer[e, b] or end == PRUNED
            display.answer[e, b], display.state[e, b] = told, RUNNING + end
            display.depth[e, b], display.tokens[e, b] = nodes[node, at.DEPTH], display.exact[e, b] / KILO
            display.unasked[e, b] = (end == LIVE or end == EXHAUSTED) and slots[slot, at.ASKED_AT] != node
            display.unscored[e, b] = end != PRUNED and display.scored_at[e, b] != node
            mask[e, extend + b] = mask[e, finish + b] = mask[e, prune + b] = end == LIVE
        named += 0 if kind == BRANCH or kind == FORK else actions[a, 3]
        answered += kind != PRUNE
    count_votes(stand, display, episodes[voting])
    show_totals(nodes, stand, buttons, display, episodes)


@compiled
def count_votes(stand: Stand, display: Display, episodes: Ints) -> None:
    """Who says the same as how many others, of those that are not pruned."""
    for e in episodes:
        opened = stand.episodes[e, at.OPENED]
        said = display.answer[e, :opened].copy()
        counts = np.zeros(stand.episodes[e, at.GIVEN] - UNASKED, np.int32)
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
    nodes: NDArray[np.int32], stand: Stand, buttons: Buttons, display: Display, episodes: Ints
) -> None:
    """What these episodes have cost, and what can be done in them that is not about one branch."""
    mask, moves, everywhere, blocks = display.action_mask, buttons.moves, buttons.everywhere, buttons.blocks
    slots = display.state.shape[1]
    for e in episodes:
        opened = stand.episodes[e, at.OPENED]
        for column in range(at.SEQUENTIAL + 1):
            display.spent[e, column] = stand.episodes[e, column] / KILO
        roots = stand.episodes[e, at.MAX_BRANCHES] - stand.roots[e, :, at.SERVED_ROOTS].sum()
        display.room[e, 0] = room = min(roots, slots - opened)
        for action in range(1, len(moves)):
            if moves[action, 0] != BRANCH:
                break
            arm, width = moves[action, 1], moves[action, 2]
            left = stand.roots[e, arm, at.POOL] - stand.roots[e, arm, at.SERVED_ROOTS]
            mask[e, action] = width <= min(room, left)
        running = blocks[EXTEND]
        mask[e, everywhere[EXTEND]] = mask[e, everywhere[FINISH]] = mask[e, running : running + opened].any()
        if everywhere[PROBE]:
            mask[e, everywhere[PROBE]] = display.unasked[e, :opened].any()
        if everywhere[SCORE]:
            mask[e, everywhere[SCORE]] = display.unscored[e, :opened].any()
        for b in range(opened if blocks[FORK] else 0):
            slot = e * (len(stand.slots) // len(stand.episodes)) + b
            left = nodes[stand.slots[slot, at.NODE], at.CHILD_COUNT] - stand.slots[slot, at.SERVED]
            display.children[e, b] = left
            mask[e, blocks[FORK] + b] = (
                opened < slots and display.state[e, b] != RUNNING + PRUNED and left > 0
            )
