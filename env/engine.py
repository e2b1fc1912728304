"""What a round does to the branches of all episodes, as compiled loops over flat arrays.

`env.replay` says what goes in and comes out, `env.stand` what the arrays hold. Each action is checked by
itself first; then all prunes of the round take place, then all openings, then all moves.
"""

import numpy as np
from numpy.typing import NDArray

from env import stand as at
from env.compiled import compiled
from env.episode import (
    BRANCH,
    EXTEND,
    FINISH,
    FORK,
    MAX_ACTIONS,
    PRUNE,
    SAMPLE,
    SCORE,
    UNASKED,
    UNPARSED,
)
from env.siblings import nth_child
from env.stand import EXHAUSTED, LIVE, NEW, PRUNED, TO_THE_END, Ints, Shown, Stand, Trees

UNKNOWN_BRANCH, TWICE, NEGATIVE, NO_FORKS, NO_PRM, NO_ARM, NO_ACTION, TOO_MANY, NO_PROBES = range(1, 10)


@compiled
def opens(kind: int) -> bool:
    """Whether it is one of `env.episode.OPENING`."""
    return kind == BRANCH or kind == SAMPLE or kind == FORK


@compiled
def id_count(kind: int, count: int, argument: int) -> int:
    """`env.actions.id_counts` of one action; frames are checked, and ids found, by the very same rule."""
    named = 0 if opens(kind) else max(count, 0)
    return 2 * named if kind == EXTEND and argument == -1 else named


@compiled
def room(trees: Trees, stand: Stand, actions: Ints) -> int:
    """The branches that an episode may come to have by these actions, at most.

    Not one more than there are to be had: whoever sends actions must not decide how much memory is taken.
    """
    needed = now = roots = 0
    capacity = len(stand.slots) // max(1, len(stand.episodes))
    for a in range(len(actions)):
        episode, kind, argument = actions[a, 0], actions[a, 1], actions[a, 4]
        if not 0 <= episode < len(stand.episodes):
            raise IndexError("an action of no episode")
        if kind == FORK and 0 <= argument < stand.episodes[episode, at.OPENED]:
            stand.slots[episode * capacity + argument, at.TICKET] = 0
    for a in range(len(actions)):
        episode, kind, argument = actions[a, 0], actions[a, 1], actions[a, 4]
        wanted = max(actions[a, 3], 0)
        if a == 0 or episode != actions[a - 1, 0]:
            now = stand.episodes[episode, at.OPENED]
            roots = stand.episodes[episode, at.MAX_BRANCHES] - stand.roots[episode, :, at.SERVED_ROOTS].sum()
        if kind == BRANCH or kind == SAMPLE:
            wanted = min(wanted, max(roots, 0))
            roots, now = roots - wanted, now + wanted
        elif kind == FORK and 0 <= argument < stand.episodes[episode, at.OPENED]:
            slot = episode * capacity + argument
            taken = stand.slots[slot, at.SERVED] + stand.slots[slot, at.TICKET]
            wanted = min(wanted, max(trees.links[stand.slots[slot, at.NODE], at.CHILD_COUNT] - taken, 0))
            stand.slots[slot, at.TICKET] += wanted
            now += wanted
        needed = max(needed, now)
    return needed


@compiled
def play(trees: Trees, stand: Stand, actions: Ints, ids: Ints, brief: bool) -> Shown:
    """Answer one round, `brief`ly or with all columns; every slot that it can need must be there, see `room`.

    Raises:
        IndexError: actions of no such episode, or of more or fewer ids than there are.
    """
    capacity = len(stand.slots) // max(1, len(stand.episodes))
    refused, first_id, rows = check(trees, stand, actions, ids)
    prune(stand, capacity, actions, ids, first_id)
    check_ids(stand, capacity, actions, ids, refused, first_id, rows)
    first_born = open_branches(trees, stand, capacity, actions, refused, rows)
    return advance(trees, stand, capacity, actions, ids, refused, first_id, first_born, rows, brief)


@compiled
def integers(count: int) -> Ints:
    """Zeros."""
    return np.zeros(count, np.int64)


@compiled
def check(trees: Trees, stand: Stand, actions: Ints, ids: Ints) -> tuple[Ints, Ints, Ints]:
    """Why each action is refused by itself (0 = it is not), where its ids begin, and how many it names."""
    refused, first_id, rows = integers(len(actions)), integers(len(actions)), integers(len(actions))
    place = rank = 0
    for a in range(len(actions)):
        episode, kind, probe = actions[a, 0], actions[a, 1], actions[a, 2]
        count, argument = actions[a, 3], actions[a, 4]
        if not 0 <= episode < len(stand.episodes):
            raise IndexError("an action of no episode")
        rank = rank + 1 if a and episode == actions[a - 1, 0] else 0
        first_id[a] = place
        place += id_count(kind, count, argument)
        why = 0
        if not BRANCH <= kind <= SAMPLE:
            why = NO_ACTION
        elif kind == SCORE and not trees.has_prm:
            why = NO_PRM
        elif kind == FORK and not trees.has_forks:
            why = NO_FORKS
        if count < 0 or (kind == EXTEND and argument < -1):
            why = NEGATIVE
        if probe != 0 and not trees.has_probes:
            why = NO_PROBES
        if (kind == BRANCH or kind == SAMPLE) and not 0 <= argument < stand.roots.shape[1]:
            why = NO_ARM
        if kind == FORK and why == 0 and not 0 <= argument < stand.episodes[episode, at.OPENED]:
            why = UNKNOWN_BRANCH
        if rank >= MAX_ACTIONS:
            why = TOO_MANY
        refused[a] = why
        rows[a] = 0 if opens(kind) else max(count, 0)
    if place != len(ids):
        raise IndexError("actions of more or fewer ids than there are")
    return refused, first_id, rows


@compiled
def prune(stand: Stand, capacity: int, actions: Ints, ids: Ints, first_id: Ints) -> None:
    """Give branches up, those that there are."""
    for a in range(len(actions)):
        if actions[a, 1] == PRUNE:
            episode = actions[a, 0]
            for k in range(first_id[a], first_id[a] + max(actions[a, 3], 0)):
                slot = episode * capacity + ids[k]
                if 0 <= ids[k] < stand.episodes[episode, at.OPENED] and stand.slots[slot, at.STATE] == LIVE:
                    stand.slots[slot, at.STATE] = PRUNED


@compiled
def check_ids(
    stand: Stand, capacity: int, actions: Ints, ids: Ints, refused: Ints, first_id: Ints, rows: Ints
) -> None:
    """Refuse actions that name a branch that there is not, or one that is named again later in the round."""
    for a in range(len(actions)):
        if refused[a] or actions[a, 1] == PRUNE:
            rows[a] = 0
        for k in range(first_id[a], first_id[a] + rows[a]):
            if not 0 <= ids[k] < stand.episodes[actions[a, 0], at.OPENED]:
                refused[a] = UNKNOWN_BRANCH
        if refused[a]:
            rows[a] = 0
        for k in range(first_id[a], first_id[a] + rows[a]):
            stand.slots[actions[a, 0] * capacity + ids[k], at.TICKET] = k
    for a in range(len(actions)):
        for k in range(first_id[a], first_id[a] + rows[a]):
            if stand.slots[actions[a, 0] * capacity + ids[k], at.TICKET] != k:
                refused[a] = TWICE
        if refused[a]:
            rows[a] = 0


@compiled
def open_branches(
    trees: Trees, stand: Stand, capacity: int, actions: Ints, refused: Ints, rows: Ints
) -> Ints:
    """Open what is to be opened, as far as there is any; the first new branch of each action."""
    first_born = np.zeros(len(actions), np.int64)
    for a in range(len(actions)):
        episode, kind, count, argument = actions[a, 0], actions[a, 1], actions[a, 3], actions[a, 4]
        if refused[a] or not opens(kind):
            continue
        first_born[a] = born = stand.episodes[episode, at.OPENED]
        slot = episode * capacity + born
        if kind != FORK:
            served = stand.roots[episode, argument, at.SERVED_ROOTS]
            left = min(
                stand.episodes[episode, at.MAX_BRANCHES] - stand.roots[episode, :, at.SERVED_ROOTS].sum(),
                stand.roots[episode, argument, at.POOL] - served,
            )
            got = min(count, max(left, 0), capacity - born)
            order = stand.roots[episode, argument, at.ORDER_AT] + served
            for nth in range(got):
                root = stand.roots[episode, argument, at.FIRST_ROOT] + stand.orders[order + nth]
                stand.slots[slot + nth, at.NODE] = trees.roots[root]
                stand.slots[slot + nth, at.LAST] = trees.links[trees.roots[root], at.TAIL]
            stand.roots[episode, argument, at.SERVED_ROOTS] += got
        else:
            parent = episode * capacity + argument
            node, served = stand.slots[parent, at.NODE], stand.slots[parent, at.SERVED]
            left = (
                0 if stand.slots[parent, at.STATE] == PRUNED else trees.links[node, at.CHILD_COUNT] - served
            )
            got = min(count, max(left, 0), capacity - born)
            for nth in range(got):
                stand.slots[slot + nth, at.NODE] = nth_child(trees, stand.seeds[episode], node, served + nth)
                if trees.has_prm:
                    stand.slots[slot + nth, at.SCORED] = stand.slots[parent, at.SCORED]
            stand.slots[parent, at.SERVED] += got
        stand.episodes[episode, at.OPENED] += got
        stand.episodes[episode, at.ASKED] += count
        stand.episodes[episode, at.GRANTED] += got
        rows[a] = got
    return first_born


@compiled
def advance(
    trees: Trees,
    stand: Stand,
    capacity: int,
    actions: Ints,
    ids: Ints,
    refused: Ints,
    first_id: Ints,
    first_born: Ints,
    rows: Ints,
    brief: bool,
) -> Shown:
    """Move what is to move, ask what is to be asked, and charge for it."""
    acting = many = 0
    for a in range(len(actions)):
        acting += actions[a, 1] != PRUNE
        many += rows[a]
    kinds, episodes, counts = integers(acting), integers(acting), integers(acting)
    ledger = np.zeros((acting, at.SEQUENTIAL + 1), np.int64)
    news = np.empty((many, 4), np.int64)
    many = 0 if brief else many
    branches, nodes, answers = integers(many), integers(many), integers(many)
    tokens, probe_tokens, ends = integers(many), integers(many), np.zeros(many, np.uint8)
    children = integers(many if trees.has_forks else 0)
    # As locals, and passed on only now and then: to count their references takes longer than a row.
    tree, links, slots, table, codes = trees.nodes, trees.links, stand.slots, stand.episodes, stand.codes
    row = told = longest = 0
    k = -1
    for a in range(len(actions)):
        episode, kind, probe, argument = actions[a, 0], actions[a, 1], actions[a, 2], actions[a, 4]
        if kind == PRUNE:
            continue
        k += 1
        kinds[k], episodes[k], opening = kind, episode, opens(kind)
        if k == 0 or episode != episodes[k - 1]:
            table[episode, at.ROUNDS] += 1
            longest = 0
        counts[k] = -refused[a] if refused[a] else rows[a]
        for j in range(rows[a]):
            branch = first_born[a] + j if opening else ids[first_id[a] + j]
            slot = episode * capacity + branch
            steps = 0
            if kind == FINISH or kind == SAMPLE:
                steps = TO_THE_END
            elif kind == EXTEND:
                steps = argument if argument >= 0 else ids[first_id[a] + rows[a] + j] & 0xFFFFFFFF
            before = here = slots[slot, at.NODE]
            if steps > 0 and slots[slot, at.STATE] != PRUNED:
                if trees.has_forks:
                    here = walk(trees, stand, episode, slot, steps)
                else:
                    here = min(before + steps, slots[slot, at.LAST])
                    if before + steps > here:
                        exhaust(tree, slots, table, episode, slot, here)
                slots[slot, at.NODE] = here
            end = slots[slot, at.STATE]
            if end == LIVE:
                end = tree[here, at.END]
            last, said, asking = slots[slot, at.ASKED_AT], tree[here, at.ANSWER], 0
            decoded = tree[here, at.COST] - tree[before, at.COST]
            if steps == TO_THE_END and last != before:
                decoded = decoded_to_the_end(tree, links, before, here)
            if opening:
                decoded += first_segment(tree, links, before, probe != 0 and kind != SAMPLE)
            if probe != 0 and (end == LIVE or end == EXHAUSTED):
                if last != here:
                    asking = tree[here, at.PROBE_COST]
                    slots[slot, at.ASKED_AT] = here
                    if said == UNASKED:
                        table[episode, at.ASKED] += 1
            elif not LIVE < end < EXHAUSTED:
                said = UNASKED
            code = UNASKED if said == UNASKED else codes[table[episode, at.FIRST_CODE] + said, at.CODE]
            if code == NEW:
                code = encode(table, codes, episode, said)
            table[episode, at.DECODE] += decoded
            table[episode, at.PROBE_TOKENS] += asking
            if kind == SCORE:
                table[episode, at.PRM_TOKENS] += tree[here, at.COST] - slots[slot, at.SCORED]
                slots[slot, at.SCORED] = tree[here, at.COST]
            if decoded + asking > longest:
                table[episode, at.SEQUENTIAL] += decoded + asking - longest
                longest = decoded + asking
            if end != LIVE or (code != UNASKED and code != slots[slot, at.TOLD]):
                news[told, 0], news[told, 1], news[told, 2], news[told, 3] = row, branch, code, end
                told += 1
            if code != UNASKED:
                slots[slot, at.TOLD] = code
            if not brief:
                branches[row], nodes[row], answers[row] = branch, here, code
                tokens[row], probe_tokens[row], ends[row] = decoded, asking, end
                if trees.has_forks:
                    children[row] = links[here, at.CHILD_COUNT] - slots[slot, at.SERVED]
            row += 1
    for k in range(acting):
        for column in range(at.SEQUENTIAL + 1):
            ledger[k, column] = table[episodes[k], column]
    return Shown(
        kinds, episodes, counts, ledger,
        branches, nodes, answers, tokens, probe_tokens, ends, children, news[:told],
    )  # fmt: skip


@compiled
def exhaust(
    tree: NDArray[np.int32], slots: NDArray[np.int32], table: Ints, episode: int, slot: int, node: int
) -> None:
    """A branch was to go on where the store holds nothing more, unless its path ends there."""
    if tree[node, at.END] == LIVE and slots[slot, at.STATE] == LIVE:
        slots[slot, at.STATE] = EXHAUSTED
        table[episode, at.ASKED] += 1


@compiled
def walk(trees: Trees, stand: Stand, episode: int, slot: int, steps: int) -> int:
    """The node that a branch comes to where paths fork: it takes its node's next unserved child."""
    tree, links, slots = trees.nodes, trees.links, stand.slots
    node, left = slots[slot, at.NODE], steps
    while left > 0 and slots[slot, at.STATE] == LIVE:
        served = slots[slot, at.SERVED]
        if links[node, at.CHILD_COUNT] <= served:
            exhaust(tree, slots, stand.episodes, episode, slot, node)
            break
        run = min(links[node, at.TAIL] - node, left) if served == 0 else 0
        node = node + run if run > 0 else nth_child(trees, stand.seeds[episode], node, served)
        slots[slot, at.SERVED] = 0
        left -= max(run, 1)
    return node


@compiled
def first_segment(tree: NDArray[np.int32], links: NDArray[np.int32], node: int, probed: bool) -> int:
    """Tokens decoded into the node at which a branch opens."""
    if links[node, at.WHOLE] >= 0 and not probed:
        # The published rule: read whole without ever being asked, a branch costs its true length.
        return min(tree[node, at.COST], links[node, at.WHOLE])
    above = links[node, at.PARENT]
    return tree[node, at.COST] - (tree[above, at.COST] if above >= 0 else 0)


@compiled
def decoded_to_the_end(tree: NDArray[np.int32], links: NDArray[np.int32], before: int, here: int) -> int:
    """Tokens decoded from a node at which nothing was asked to the end of its path, in one go."""
    if links[before, at.WHOLE] >= 0 and here != before and links[before, at.DEPTH] == 1:
        return links[here, at.WHOLE] - min(tree[before, at.COST], links[before, at.WHOLE])
    return tree[here, at.COST] - tree[before, at.COST]


@compiled
def encode(table: Ints, codes: Ints, episode: int, said: int) -> int:
    """A code for an answer id that the episode has not seen before: they are numbered as seen."""
    first, number = table[episode, at.FIRST_CODE], table[episode, at.GIVEN]
    codes[first + said, at.CODE] = number
    codes[first + number, at.MEANING] = said
    table[episode, at.GIVEN] = number + 1
    return number


@compiled
def grade(
    table: Ints,
    codes: Ints,
    problems: Ints,
    first_answer: Ints,
    right: NDArray[np.bool_],
    episodes: Ints,
    answers: Ints,
    live: NDArray[np.bool_],
    final: Ints,
    correct: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """End episodes with an answer each; whether it was seen in its episode (or is UNPARSED).

    `table` and `codes` are of `env.stand.Stand`, `first_answer` and `right` of `env.index.Index`, `problems`
    of `env.replay.Replay`, and so are `live`, `final` and `correct`, which are written to.
    """
    seen = np.zeros(len(episodes), np.bool_)
    for k in range(len(episodes)):
        e, answer = episodes[k], answers[k]
        if not 0 <= e < len(table):
            raise IndexError("an answer of no episode")
        seen[k] = UNPARSED <= answer < table[e, at.GIVEN]
        live[e], final[e], correct[e] = False, answer if seen[k] else UNPARSED, False
        if seen[k] and answer >= 0:
            meaning = codes[table[e, at.FIRST_CODE] + answer, at.MEANING]
            correct[e] = right[first_answer[problems[e]] + meaning]
    return seen
