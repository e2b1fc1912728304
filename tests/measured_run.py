"""A small run whose programs were really measured, so that its episodes can be played again."""

from pathlib import Path

from made_up import store as make_store
from made_up_run import record

from env.program import Program
from env.store import Store
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.scoring import score
from search_agent.splits import split

SEEDS = 3
VOTING = '''"""Opens {opens} branches, reads on in steps, prunes one, lets the others vote."""

from controllers.voting import majority


def schedule(beta):
    return {{"n": {opens} + round(4 * beta)}}


async def solve(ep, n):
    ids = list(await ep.branch(n, probe={probe}))
    ep.note({note!r})
    if {prunes}:
        ep.prune(ids[:1])
        ids = ids[1:]
    {steps}
    await ep.finish(ids)
    return majority(ep.answer[i] for i in ids)
'''
STEPS = "await ep.extend(ids, 1)"


def voting(opens, probe=False, prunes=False, steps="pass", note="opened"):
    return VOTING.format(opens=opens, probe=probe, prunes=prunes, steps=steps, note=note)


PROGRAMS = {
    "self_consistency": voting(4),
    "parallel_probe": voting(3, probe=True, steps=STEPS),
    1: voting(1),
    2: voting(3, probe=True, prunes=True, steps=STEPS, note="pruned one"),
}


def make(path: Path, programs=PROGRAMS, **changes) -> Run:
    """A run of these programs, rounds by number, won by round 2; `changes` go into the rounds' records."""
    opened = Store.open(make_store(path / "store", problems=8, branches=16))
    arena = Arena([opened], [opened], split(opened.problems["question_hash"].to_pylist()), SEEDS, workers=1)
    config = {
        "stores": [{"path": opened.path, "model": "toy", "dataset": "sums", "contents": "0"}],
        "holdout": [{"path": opened.path, "model": "toy", "dataset": "sums", "contents": "0"}],
        "problems": {
            part: list(getattr(arena.splits, part)) for part in ("feedback", "selection", "holdout")
        },
        "proposer": {"name": "scripted", "settings": {}},
        "seeds": SEEDS,
        "final_seeds": SEEDS,
        "folds": 3,
        "protocol": "standard",
        "probe_tokens": 20,
        "seed": 0,
        "options": {"i_trust_this_code": False},
    }
    run = Run.create(path / "run", config, {"rounds": 2, "minutes": None})
    for entry, source in programs.items():
        program = Program(str(entry), source, trusted=True)
        played = {"feedback": arena.feedback([program]), "selection": arena.selection([program])}
        figures = {part: score(each.frame, arena.references, each.schedules) for part, each in played.items()}
        number = entry if isinstance(entry, int) else 0
        told = record(number, 0.5, parent=number - 1 or None if number else None, **figures)
        told |= changes if number else {"name": entry}
        run.add(entry, told, source, *(each.frame for each in played.values()))
    finalists = [{"round": 2, "name": "round 2", "selection": told["selection"]}]
    run.write("finalists.json", {"winner": 2, "finalists": finalists})
    return run
