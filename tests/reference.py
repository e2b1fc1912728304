"""The whole action table in plain Python, one episode, one branch, one segment at a time.

Written from the documents, to be compared with the engine. Slow, and shares nothing with it but the numbers
of the actions.
"""

import random
from dataclasses import dataclass, field

from env.episode import BRANCH, EXTEND, FINISH, FORK, OPENING, PROBE, PRUNE, SAMPLE, SCORE
from tests.forests import INTERVAL, RAW, Node, Recording, Trees

UNKNOWN, TWICE, NEGATIVE, NO_FORKS, NO_SCORES, NO_ARM, NO_ACTION, TOO_MANY, NO_PROBES = range(1, 10)
MASK = 2**64 - 1


@dataclass
class Action:
    """One action; `steps` are an extension's segments where they are given one an id."""

    kind: int
    probe: bool = False
    ids: list[int] = field(default_factory=list)
    count: int = 0
    argument: int = 0
    steps: list[int] | None = None

    def encoded(self, episode: int) -> tuple[list[int], list[int]]:
        """As the engine takes it: a row of the table, and ids."""
        opening = self.kind in OPENING
        count = self.count if opening else len(self.ids)
        argument = self.argument if self.steps is None else -1
        return [episode, self.kind, int(self.probe), count, argument], self.ids + (self.steps or [])


@dataclass
class Seen:
    """What a row of a reply shows."""

    branch: int
    answer: int
    tokens: int
    probe_tokens: int
    depth: int
    end: int
    children: int | None
    confidence: float | None
    scores: tuple[float, ...] | None


@dataclass
class Rules:
    """What a store can do, and how its tokens are counted."""

    probe_tokens: int
    forks: bool
    scores: bool
    probes: bool
    confidence: bool
    arms: int

    @classmethod
    def of(cls, trees: Trees, probe_tokens: int) -> "Rules":
        nodes = [node for problem in trees.problems for node in problem.nodes]
        going_on = [node for node in nodes if not node.end]
        return cls(
            probe_tokens=probe_tokens,
            forks=any(len(node.children) > 1 for node in nodes),
            scores=trees.has_scores,
            probes=not going_on or any(node.answer != -2 for node in going_on),
            confidence=trees.has_confidence,
            arms=1 + max(node.arm for node in nodes),
        )


def mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK
    return value ^ value >> 31


def shuffled(items: list, seed: int) -> list:
    order = list(range(len(items)))
    random.Random(seed).shuffle(order)
    return [items[k] for k in order]


class Branch:
    """A branch on a tree, under the standard accounting."""

    def __init__(self, node: Node, seed: int) -> None:
        self.seed = seed
        self.node = node
        self.depth = 1
        while node.parent is not None:
            node, self.depth = node.parent, self.depth + 1
        self.state = 0
        self.asked = False
        self.path_scored = 0
        self._waiting = self._children()

    def _children(self) -> list[Node]:
        return sorted(self.node.children, key=lambda child: mix(mix(self.seed) + child.place & MASK))

    @property
    def end(self) -> int:
        return self.state or self.node.end

    def opening(self, probed: bool) -> int:
        return self.node.tokens

    def next_child(self) -> Node | None:
        return self._waiting.pop(0) if self._waiting else None

    @property
    def children_left(self) -> int:
        return len(self._waiting)

    def advance(self, steps: float, finishing: bool) -> tuple[int, bool]:
        """Tokens decoded, and whether the store ran out of it."""
        tokens = 0
        while steps > 0 and not self.end:
            child = self.next_child()
            if child is None:
                self.state = 3
                return tokens, True
            self.node, self.asked = child, False
            self.depth += 1
            self._waiting = self._children()
            tokens += child.tokens
            steps -= 1
        return tokens, False

    def answer(self) -> int:
        return self.node.answer

    def probe_cost(self, assumed: int) -> int:
        return assumed if self.node.probe_tokens < 0 else self.node.probe_tokens

    def path(self) -> list[Node]:
        nodes, node = [], self.node
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class PublishedBranch(Branch):
    """A recording as the released evaluator plays it: a call a probe, one more that ends it."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.depth = 1
        self.state = 0
        self.asked = False

    @property
    def end(self) -> int:
        return self.state or int(self.depth == len(self.recording.probes) + 1)

    def next_child(self) -> None:
        return None

    def _cost(self, calls: int) -> int:
        probed = INTERVAL * len(self.recording.probes)
        if calls <= len(self.recording.probes):
            return INTERVAL * calls
        return probed + max(0, self.recording.length - probed)

    def opening(self, probed: bool) -> int:
        return self._cost(1) if probed else min(self._cost(1), self.recording.length)

    def advance(self, steps: float, finishing: bool) -> tuple[int, bool]:
        if steps <= 0 or self.end:
            return 0, False
        before, unread = self.depth, self.depth == 1 and not self.asked
        self.depth = int(min(self.depth + steps, len(self.recording.probes) + 1))
        self.asked = False
        if finishing and unread:
            return self.recording.length - min(INTERVAL, self.recording.length), False
        return self._cost(self.depth) - self._cost(before), False

    def answer(self) -> int:
        ended = self.depth == len(self.recording.probes) + 1
        raw = self.recording.final if ended else self.recording.probes[self.depth - 1]
        return -1 if RAW[raw] == "ERR" else raw

    def probe_cost(self, assumed: int) -> int:
        return 0


class ReferenceEpisode:
    """One episode of one problem; `pools` are its root branches by arm (nodes or recordings), as stored."""

    def __init__(
        self, pools: list[list], seed: int, rules: Rules, right: frozenset[int], max_branches: int
    ) -> None:
        self.rules, self.seed, self.right = rules, seed, right
        self.max_branches = min(max_branches, sum(map(len, pools)))
        self.pools = [shuffled(pool, seed) for pool in pools]
        self.rooted = 0
        self.branches: list[Branch] = []
        self.codes: list[int] = []
        self.decode = self.probe = self.prm = self.sequential = 0
        self.asked = self.granted = self.rounds = 0

    @property
    def ledger(self) -> list[int]:
        return [self.decode, self.probe, self.prm, self.sequential]

    def play(self, actions: list[Action]) -> list[list[Seen] | set[int]]:
        """One round: what each action shows, or why it may have been refused. Prunes show nothing."""
        known = len(self.branches)
        for action in actions:
            if action.kind == PRUNE:
                for branch in {i for i in action.ids if 0 <= i < known}:
                    if not self.branches[branch].state:
                        self.branches[branch].state = 4
        actions = [action for action in actions if action.kind != PRUNE]
        faults = [self._faults(action, known) for action in actions]
        self.rounds += bool(actions)
        opened = [
            self._open(action) if action.kind in OPENING and not fault else []
            for action, fault in zip(actions, faults, strict=True)
        ]
        named = [[] if fault else action.ids for action, fault in zip(actions, faults, strict=True)]
        for k in range(len(actions)):
            later = [i for ids in named[k + 1 :] for i in ids]
            ids = named[k]
            if any(i in later or i in ids[at + 1 :] for at, i in enumerate(ids)):
                faults[k] = {TWICE}
        longest, seen = 0, []
        for action, fault, born in zip(actions, faults, opened, strict=True):
            if fault:
                seen.append(fault)
                continue
            rows = []
            for k, i in enumerate(born if action.kind in OPENING else action.ids):
                steps = action.steps[k] if action.steps is not None else action.argument
                rows.append(self._row(action, i, max(0, steps)))
                longest = max(longest, rows[-1].tokens + rows[-1].probe_tokens)
            seen.append(rows)
        self.sequential += longest
        return seen

    def answered(self, code: int) -> tuple[bool, bool]:
        """Whether the episode has seen this code (or gives none), and whether it is right."""
        if code == -1:
            return True, False
        return 0 <= code < len(self.codes), 0 <= code < len(self.codes) and self.codes[code] in self.right

    def _faults(self, action: Action, known: int) -> set[int]:
        rules = self.rules
        row, _ = action.encoded(0)
        faults = set()
        if action.kind not in (BRANCH, SAMPLE, EXTEND, FINISH, PROBE, SCORE, FORK):
            faults.add(NO_ACTION)
        if row[3] < 0 or (action.kind == EXTEND and row[4] < -1):
            faults.add(NEGATIVE)
        if action.kind == FORK and not rules.forks:
            faults.add(NO_FORKS)
        if action.kind == SCORE and not rules.scores:
            faults.add(NO_SCORES)
        if action.probe and not rules.probes:
            faults.add(NO_PROBES)
        if action.kind in (BRANCH, SAMPLE) and not 0 <= action.argument < rules.arms:
            faults.add(NO_ARM)
        if action.kind == FORK and not 0 <= action.argument < known:
            faults.add(UNKNOWN)
        if any(not 0 <= i < known for i in action.ids):
            faults.add(UNKNOWN)
        return faults

    def _open(self, action: Action) -> list[int]:
        born = []
        self.asked += action.count
        for _ in range(action.count):
            branch: Branch | None = None
            if action.kind != FORK:
                if self.rooted < self.max_branches and self.pools[action.argument]:
                    first = self.pools[action.argument].pop(0)
                    is_tree = isinstance(first, Node)
                    branch = Branch(first, self.seed) if is_tree else PublishedBranch(first)
                    self.rooted += 1
            else:
                parent = self.branches[action.argument]
                child = None if parent.state == 4 else parent.next_child()
                if child is not None:
                    branch = Branch(child, self.seed)
                    branch.path_scored = parent.path_scored
            if branch is None:
                break
            self.granted += 1
            born.append(len(self.branches))
            self.branches.append(branch)
        return born

    def _row(self, action: Action, i: int, steps: int) -> Seen:
        branch, rules = self.branches[i], self.rules
        tokens = 0
        if action.kind in OPENING:
            tokens += branch.opening(action.probe and action.kind != SAMPLE)
        if action.kind in (EXTEND, FINISH, SAMPLE):
            finishing = action.kind != EXTEND
            moved, exhausted = branch.advance(float("inf") if finishing else steps, finishing)
            tokens += moved
            self.asked += exhausted
        probe_tokens, answer, prm, scores = 0, -2, 0, None
        ended, pruned = branch.end in (1, 2), branch.state == 4
        if action.probe and not ended and not pruned:
            probe_tokens = 0 if branch.asked else branch.probe_cost(rules.probe_tokens)
            answer = branch.answer()
            self.asked += not branch.asked and answer == -2
            branch.asked = True
        elif ended and not pruned:
            answer = branch.answer()
        if action.kind == SCORE:
            path = branch.path()
            total = sum(node.tokens for node in path)
            prm, branch.path_scored = total - branch.path_scored, total
            scores = tuple(s for node in path for s in node.scores)
        self.decode += tokens
        self.probe += probe_tokens
        self.prm += prm
        return Seen(
            branch=i,
            answer=self._code(answer),
            tokens=tokens,
            probe_tokens=probe_tokens,
            depth=branch.depth,
            end=branch.end,
            children=branch.children_left if rules.forks else None,
            confidence=branch.node.confidence if rules.confidence else None,
            scores=scores,
        )

    def _code(self, answer: int) -> int:
        if answer < 0:
            return answer
        if answer not in self.codes:
            self.codes.append(answer)
        return self.codes.index(answer)
