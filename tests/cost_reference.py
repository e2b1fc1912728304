"""What an episode costs, found out the slow way: every token has a name, every decoding step is taken.

It reads what the engine has logged, and shares no arithmetic with `env.costs`.
"""

from dataclasses import dataclass, field
from itertools import pairwise

from env.episode import BRANCH, EXTEND, FORK, OPENING, PRUNE, SAMPLE, SCORE


@dataclass
class Row:
    """A branch of an action, as logged; `source` is the arm of a new branch, the parent of a fork."""

    kind: int
    branch: int
    source: int
    probe: bool
    tokens: int
    probe_tokens: int
    depth: int
    end: int


@dataclass
class Branch:
    """The names of its tokens; how many it had at each tick of the clock; when it was over."""

    arm: int
    path: list
    born: int
    lengths: dict = field(default_factory=dict)
    asked_at: int = -1
    scored: set = field(default_factory=set)
    pruned: int | None = None
    ended: int | None = None
    worked: int = 0


class Slow:
    """One episode, told round by round; `speeds` has for each arm tokens a second by the size of a batch."""

    def __init__(self, prompt: list[int], block: int, speeds: list[dict], prm_speed: float) -> None:
        arms = len(speeds)
        self.prompts = [[("prompt", arm, k) for k in range(prompt[arm])] for arm in range(arms)]
        self.block, self.speeds, self.prm_speed = block, speeds, prm_speed
        self.branches: dict[int, Branch] = {}
        self.names = iter(range(10**9))
        self.clock = self.prm = 0
        self.computed: list[set] = [set() for _ in range(arms)]
        self.sent, self.cached, self.decoded = [0] * arms, [0] * arms, [0] * arms
        self.attended, self.read = [0.0] * arms, [0.0] * arms
        self.prm_attended = self.seconds = 0.0
        self.probes: list[list[tuple[int, int]]] = []

    def round(self, pruned: list[int], rows: list[Row]) -> None:
        """One round; `pruned` are named before it."""
        for number in pruned:
            branch = self.branches.get(number)
            if branch is not None and branch.pruned is None and branch.ended is None:
                branch.pruned = self.clock
        before = {k: (list(b.path), set(b.scored), b.arm) for k, b in self.branches.items()}
        jobs, scored = [], 0
        for row in rows:
            if row.kind in (BRANCH, SAMPLE):
                self.branches[row.branch] = Branch(row.source, [], self.clock)
            elif row.kind == FORK:
                path, seen, arm = before[row.source]
                self.branches[row.branch] = Branch(arm, list(path), self.clock, scored=set(seen))
            branch = self.branches[row.branch]
            decoded = [next(self.names) for _ in range(row.tokens)]
            probe = [next(self.names) for _ in range(row.probe_tokens)]
            whole = branch.path + decoded
            if decoded:
                self._request(branch.arm, branch.path)
                self.computed[branch.arm].update(decoded)
            if row.probe and row.end in (0, 3) and branch.asked_at != row.depth:
                self._request(branch.arm, whole)
                branch.asked_at = row.depth
            if row.kind == SCORE:
                fresh = [place for place, token in enumerate(whole) if token not in branch.scored]
                branch.scored.update(whole)
                scored += len(fresh)
                asked = len(self.prompts[branch.arm])
                self.prm_attended += sum(asked + place + 0.5 for place in fresh)
            if row.end and branch.ended is None and branch.pruned is None:
                branch.ended = self.clock + row.tokens + row.probe_tokens
            if row.tokens + row.probe_tokens:
                branch.worked = self.clock + row.tokens + row.probe_tokens
            jobs.append((branch, decoded, probe))
        self.prm += scored
        self._decode(jobs, scored / self.prm_speed)

    def held(self, weights: list[int]) -> tuple[float, float]:
        """The most that the cache holds, and its integral over the clock."""
        spans = []
        for branch in self.branches.values():
            over = self.clock if branch.ended is None else max(branch.ended, branch.worked)
            spans.append((branch, over if branch.pruned is None else branch.pruned))
        peak, area = 0, 0.0
        for tick in range(self.clock):
            sizes = [
                sum(w * p[late] for w, p in zip(weights, self.probes[tick], strict=True)) for late in (0, 1)
            ]
            for arm, weight in enumerate(weights):
                mine = [(branch, over) for branch, over in spans if branch.arm == arm]
                alive = [branch for branch, over in mine if branch.born <= tick < over]
                if mine and min(b.born for b, _ in mine) <= tick < max(over for _, over in mine):
                    sizes = [size + weight * len(self.prompts[arm]) for size in sizes]
                for late in (0, 1):
                    union = set()
                    for branch in alive:
                        union.update(branch.path[: branch.lengths[tick + late]])
                    sizes[late] += weight * len(union)
            peak, area = max(peak, *sizes), area + sum(sizes) / 2
        return peak, area

    def _request(self, arm: int, path: list) -> None:
        sequence = self.prompts[arm] + path
        known = 0
        while known < len(sequence) and sequence[known] in self.computed[arm]:
            known += 1
        self.sent[arm] += len(sequence)
        self.cached[arm] += known // self.block * self.block
        self.computed[arm].update(sequence)

    def _decode(self, jobs: list, scoring: float) -> None:
        times = [0.0 for _ in self.prompts]
        for step in range(max((len(decoded) + len(probe) for _, decoded, probe in jobs), default=0)):
            self._look()
            active = [job for job in jobs if step < len(job[1]) + len(job[2])]
            probes = []
            for arm, prompt in enumerate(self.prompts):
                mine, union, early, late = [job for job in active if job[0].arm == arm], set(), 0, 0
                for branch, decoded, probe in mine:
                    asked = probe[: max(0, step - len(decoded))]
                    union.update(prompt, branch.path, asked)
                    self.attended[arm] += len(prompt) + len(branch.path) + len(asked) + 0.5
                    early, late = early + len(asked), late + len(asked) + (step >= len(decoded))
                probes.append((early, late))
                self.decoded[arm] += len(mine)
                self.read[arm] += len(union) + len(mine) / 2
                times[arm] += len(mine) / self._speed(arm, len(mine)) if mine else 0.0
            self.probes.append(probes)
            for branch, decoded, _ in active:
                branch.path += decoded[step : step + 1]
            self.clock += 1
        self._look()
        self.seconds += max(scoring, *times)

    def _look(self) -> None:
        for branch in self.branches.values():
            branch.lengths[self.clock] = len(branch.path)

    def _speed(self, arm: int, batch: int) -> float:
        speeds = self.speeds[arm]
        sizes = sorted(speeds)
        if batch <= sizes[0]:
            return speeds[sizes[0]] * batch / sizes[0]
        for low, high in pairwise(sizes):
            if batch <= high:
                share = (batch - low) / (high - low)
                return speeds[low] * (1 - share) + speeds[high] * share
        return speeds[sizes[-1]]


def replayed(log, prompts: list[list[int]], **options) -> list[Slow]:
    """Every episode of an engine's log."""
    episodes = [Slow(prompt, **options) for prompt in prompts]
    for actions, ids, results in log:
        rest, rounds = ids.tolist(), {}
        answers = iter(results.rows.tolist())
        seen = iter(
            zip(
                results.branch.tolist(),
                results.tokens.tolist(),
                results.probe_tokens.tolist(),
                results.depth.tolist(),
                results.end.tolist(),
                strict=True,
            )
        )
        for episode, kind, probe, count, argument in actions.tolist():
            pruned, rows = rounds.setdefault(episode, ([], []))
            width = 0 if kind in OPENING else max(0, count)
            if kind == EXTEND and argument == -1:
                width *= 2
            named, rest = rest[:width], rest[width:]
            if kind == PRUNE:
                pruned += named
                continue
            for _ in range(max(0, next(answers))):
                branch, tokens, asked, depth, end = next(seen)
                rows.append(Row(kind, branch, argument, bool(probe), tokens, asked, depth, end))
        for episode, told in rounds.items():
            episodes[episode].round(*told)
    return episodes
