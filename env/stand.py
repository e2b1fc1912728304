"""The arrays on which `env.engine` plays: the trees, and where every branch of every episode stands.

A row each for nodes, for episodes, for the branches of episodes: what a round needs of one lies together, and
in as little as can be, for a round takes most of its time to fetch it.
Branch b of episode e is in slot `e * capacity + b`, where `capacity` is slots / E.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from env.episode import ENDS, UNASKED

Ints = NDArray[np.int64]

LIVE, EXHAUSTED, PRUNED = (ENDS.index(why) for why in (None, "exhausted", "pruned"))
TO_THE_END = 1 << 40
# Of an answer that an episode has not seen, in place of its code.
NEW = -3

# Columns of `Trees.nodes`, as in `env.index.Index`: what every step along a path reads.
COST, ANSWER, PROBE_COST, END = range(4)
OF_NODE = 4
# Columns of `Trees.links`, likewise: what is read now and then. WHOLE is -1 and LOCAL 0 where it has none.
PARENT, DEPTH, TAIL, CHILD_COUNT, FIRST_CHILD, LOCAL, WHOLE = range(7)
OF_LINKS = 7

# Columns of `Stand.episodes`. First the ledger: decode, probe, PRM and sequential tokens.
DECODE, PROBE_TOKENS, PRM_TOKENS, SEQUENTIAL = range(4)
# Branches and forks asked for and served; rounds; branches that may be opened at the root; branches so far.
ASKED, GRANTED, ROUNDS, MAX_BRANCHES, OPENED = range(4, 9)
# Where the episode's codes begin in `Stand.codes`; how many it has.
FIRST_CODE, GIVEN = range(9, 11)
OF_EPISODE = 11

# Columns of `Stand.roots`, of an arm: root branches that there are; those that were served; where they begin
# in `Trees.roots`; where the order in which they are served begins in `Stand.orders`.
POOL, SERVED_ROOTS, FIRST_ROOT, ORDER_AT = range(4)

# Columns of `Stand.slots`. The node that the branch stands at; where its path ends, if no paths fork; the
# node at which it was last probed, -1 for none; LIVE, EXHAUSTED or PRUNED (how a path ended by itself is its
# node's to say); the answer code that its controller knows, UNASKED for none; tokens of its path that the
# PRM has seen; children of its node that its forks have taken; scratch.
NODE, LAST, ASKED_AT, STATE, TOLD, SCORED, SERVED, TICKET = range(8)
FRESH = (0, 0, -1, LIVE, UNASKED, 0, 0, 0)

# Columns of `Stand.codes`: an answer id's code, NEW for none (UNASKED and UNPARSED have theirs as well, in
# the two rows before the first), and a code's answer id.
CODE, MEANING = range(2)


class Trees(NamedTuple):
    """The index of a store.

    Attributes:
        nodes: int32[N, 4].
        links: int32[N, 7].
        children: int32[C], of all nodes with any.
        roots: int32[R], by problem and arm.
    """

    nodes: NDArray[np.int32]
    links: NDArray[np.int32]
    children: NDArray[np.int32]
    roots: NDArray[np.int32]
    has_forks: bool
    has_probes: bool
    has_prm: bool


class Stand(NamedTuple):
    """Where E episodes stand.

    Attributes:
        episodes: int64[E, 11].
        seeds: uint64[E].
        roots: int64[E, arms, 4].
        orders: int64, what `roots` points to.
        slots: int32[slots, 8].
        codes: int64[A, 2].
    """

    episodes: Ints
    seeds: NDArray[np.uint64]
    roots: Ints
    orders: Ints
    slots: NDArray[np.int32]
    codes: Ints

    def with_room(self, needed: int) -> "Stand":
        """The same with room for so many branches an episode."""
        episodes = len(self.episodes)
        old = len(self.slots) // max(1, episodes)
        if needed <= old:
            return self
        grown = np.full((episodes, max(needed, 2 * old), len(FRESH)), FRESH, np.int32)
        grown[:, :old] = self.slots.reshape(episodes, old, -1)
        return self._replace(slots=grown.reshape(-1, len(FRESH)))


class Shown(NamedTuple):
    """What came of a round of A actions and R rows, as `env.replay.Results` has it; `kind` is int64[A].

    In brief, the columns from `branch` to `children` are left empty.
    """

    kind: Ints
    episode: Ints
    rows: Ints
    ledger: Ints
    branch: Ints
    node: Ints
    answer: Ints
    tokens: Ints
    probe_tokens: Ints
    end: NDArray[np.uint8]
    children: Ints
    news: Ints
