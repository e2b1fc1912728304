"""What controllers asked of a store and did not get: which branches and continuations it lacks.

An evaluation counts the shortfall of an episode (`env.replay.Replay.asked` and `granted`) and knows no more.
Episodes are functions of program, store and seed, so those with a shortfall are simply played once more, with
a log. The table that comes of it says how a collector would have to extend the store.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from env.actions import turns
from env.episode import BRANCH, FORK, PRUNE, SAMPLE
from env.forest import END_NONE
from env.program import Program
from env.replay import Replay
from env.stand import EXHAUSTED
from env.store import Store
from env.unit import Unit, play_unit

if TYPE_CHECKING:
    import polars as pl

# What the table is called in the folder of an evaluation or a search.
MISSES = "misses.parquet"
ROOT = -1
# Episodes that are played, and logged, at a time.
_EPISODES = 512
# (problem, arm, node) -> how much is missing there.
Places = dict[tuple[int, int, int], int]


def find_misses(
    stores: Sequence[Store],
    programs: Sequence[Program],
    frame: "pl.DataFrame",
    *,
    settings: Mapping[str, Any] | None = None,
    protocol: str = "standard",
    probe_tokens: int = 20,
    max_branches: int | None = None,
    i_trust_this_code: bool = False,
) -> "pl.DataFrame":
    """What the episodes of a frame missed, enough for the neediest of them.

    Args:
        frame: of `env.evaluate.evaluate`, called with these same arguments.

    Returns:
        A row a place: `store` (its path), `sha256` (of its store.json: node numbers are those of just this
        store), `problem` (question hash), `arm`, `node` (number within the problem, -1 = the root) and
        `wanted`: at the root how many branches the problem should have in this arm, so that an episode may
        open as many as it asked for; at a node how many children it should have more.
    """
    import polars as pl

    schema = {
        "store": pl.String,
        "sha256": pl.String,
        "problem": pl.String,
        "arm": pl.Int64,
        "node": pl.Int64,
        "wanted": pl.Int64,
    }
    short = frame.filter(pl.col("asked") > pl.col("granted"))
    # Under the usual ceiling an episode may open half of what the problem has.
    share = 2 if max_branches is None and protocol == "standard" else 1
    rows: list[tuple[Any, ...]] = []
    for store in stores:
        names = store.problems["question_hash"].to_pylist()
        place = {name: number for number, name in enumerate(names)}
        missing: Places = {}
        for program in programs:
            here = short.filter((pl.col("store") == store.path) & (pl.col("controller") == program.name))
            for (beta,), episodes in here.group_by("beta", maintain_order=True):
                chosen = [place[name] for name in episodes["problem"].unique(maintain_order=True)]
                seeds = episodes["seed"].unique(maintain_order=True).to_list()
                step = max(1, _EPISODES // len(chosen))
                for first in range(0, len(seeds), step):
                    unit = Unit(
                        store=store.path,
                        program=program,
                        beta=float(beta),
                        overrides=dict(settings or {}),
                        seeds=tuple(seeds[first : first + step]),
                        problems=tuple(chosen),
                        protocol=protocol,
                        probe_tokens=probe_tokens,
                        max_branches=max_branches,
                        isolation="none" if program.trusted else "strict",
                        i_trust_this_code=i_trust_this_code,
                        log=True,
                    )
                    for wave in play_unit(unit).waves:
                        for key, wanted in misses_of(wave.replay, share, max_branches):
                            missing[key] = max(missing.get(key, 0), wanted)
        rows += [
            (store.path, store.sha256, names[problem], arm, node, wanted)
            for (problem, arm, node), wanted in sorted(missing.items())
        ]
    return pl.DataFrame(rows, schema, orient="row")


def misses_of(replay: Replay, share: int, most: int | None) -> Iterator[tuple[tuple[int, int, int], int]]:
    """The places at which the episodes of a logged replay missed something; see `find_misses`.

    Args:
        replay: one with a log.
        share: of how many root branches an episode may open one.
        most: root branches that an episode may open at most, however many there are; None = no such limit.
    """
    index, forest = replay.index, replay.index.forest
    roots, children = _read_log(replay)
    for (episode, arm), (asked, granted) in roots.items():
        asked = asked if most is None else min(asked, most)
        if asked > granted:
            yield (int(replay.problems[episode]), arm, ROOT), share * asked
    for (episode, node), missing in children.items():
        problem, stored = int(replay.problems[episode]), int(index.order[node])
        yield (problem, int(forest.arm[stored]), stored - int(forest.first_node[problem])), missing


def _read_log(
    replay: Replay,
) -> tuple[dict[tuple[int, int], tuple[int, int]], dict[tuple[int, int], int]]:
    """By episode and arm the root branches asked for and granted; by episode and node those missing."""
    end = replay.index.end
    roots: dict[tuple[int, int], tuple[int, int]] = {}
    children: dict[tuple[int, int], int] = defaultdict(int)
    at: dict[tuple[int, int], int] = {}
    gone: set[tuple[int, int]] = set()
    for actions, ids, results in replay.log or ():
        moved = {}
        for episode, kind, count, argument, named, here in turns(actions, ids, results.rows):
            if kind == PRUNE:
                gone.update((episode, branch) for branch in named)
            if here is None:
                continue
            rows = here.stop - here.start
            if kind in (BRANCH, SAMPLE):
                asked, granted = roots.get((episode, argument), (0, 0))
                roots[episode, argument] = asked + count, granted + rows
            # A path that has ended has no more to it, and no store could have.
            elif kind == FORK and (episode, argument) not in gone:
                node = at[episode, argument]
                if count > rows and end[node] == END_NONE:
                    children[episode, node] += count - rows
            for branch, node, why in zip(
                results.branch[here].tolist(),
                results.node[here].tolist(),
                results.end[here].tolist(),
                strict=True,
            ):
                moved[episode, branch] = node
                if why == EXHAUSTED and (episode, branch) not in gone:
                    # It wanted to go on and could not, once for all.
                    gone.add((episode, branch))
                    children[episode, node] += 1
        # Forks begin where branches stood before the round.
        at |= moved
    return roots, children
