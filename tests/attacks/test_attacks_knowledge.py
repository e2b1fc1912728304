"""Attacks by what a controller should not know: other episodes, the recordings by heart. One a test."""

import random

import pytest
from rig import HONEST

from env.evaluate import evaluate
from env.program import Program, ProgramError, check
from env.store import Store
from env.store_writer import Nodes, StoreWriter

# Each notes how many episodes left it something before this one; `{keep}` and `{seen}` are the trick.
POOLING = """
import builtins, gc, os, sys
from controllers import voting


def schedule(beta):
    return {{}}

async def solve(ep):
    ep.note("seen", {seen})
    {keep}
"""

HIDING_PLACES = {
    "a global of the module": (
        "sys.modules.setdefault('kept', []).append(1)",
        "len(sys.modules.get('kept', []))",
    ),
    "the built-in names": (
        "builtins.kept = getattr(builtins, 'kept', 0) + 1",
        "getattr(builtins, 'kept', 0)",
    ),
    "a helper module": ("voting.kept = getattr(voting, 'kept', 0) + 1", "getattr(voting, 'kept', 0)"),
    "the cache of a helper": (
        "voting.lead_confidence(*[voting.lead_confidence.cache_info().currsize] * 2)",
        "voting.lead_confidence.cache_info().currsize",
    ),
    "the class of episodes": (
        "type(ep).kept = getattr(type(ep), 'kept', 0) + 1",
        "getattr(type(ep), 'kept', 0)",
    ),
    "the environment": (
        "os.environ['KEPT'] = str(int(os.environ.get('KEPT', 0)) + 1)",
        "os.environ.get('KEPT', 0)",
    ),
    "other episodes, by the collector": (
        "pass",
        "sum(type(x) is type(ep) and x is not ep and bool(x.answer) for x in gc.get_objects())",
    ),
}

# Votes over all that its process has seen of a problem; a branch is known by its length and depth.
POOLED_VOTES = """
SAME = {}

def schedule(beta):
    return {"max_branches": 4}

async def solve(ep, max_branches):
    ids = await ep.branch(max_branches, probe=False)
    await ep.finish(ids)
    prints = [(ep.tokens[i], ep.depth[i]) for i in ids]
    for i, mark in zip(ids, prints):
        for j, other in zip(ids, prints):
            if ep.answer[i] == ep.answer[j]:
                SAME.setdefault(mark, set()).add(other)
    best = None
    for i, mark in zip(ids, prints):
        known, todo = {mark}, [mark]
        while todo:
            for other in SAME[todo.pop()] - known:
                known.add(other)
                todo.append(other)
        if best is None or len(known) > best[0]:
            best = (len(known), ep.answer[i])
    return best[1]
"""
ALONE = POOLED_VOTES.replace("SAME = {}\n", "").replace("    prints =", "    SAME = {}\n    prints =")


@pytest.mark.parametrize("name", HIDING_PLACES)
def test_pooling_between_processes(rig, pool, name):
    keep, seen = HIDING_PLACES[name]
    source = POOLING.format(keep=keep, seen=seen)
    for _ in range(2):
        attack = rig.attack(pool, source)
        assert attack.outcome.error == ""
        assert attack.notes[0] == "seen 0"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Problems whose right answer comes in half of the branches: a few votes err, many do not."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("pooled") / "toy"
    with StoreWriter(path, model="toy", dataset="sums", task="exact") as writer:
        for problem in range(6):
            finals = ["1" if rng.random() < 0.45 else rng.choice("23456") for _ in range(24)]
            lengths = [rng.randrange(100, 9_999) for _ in finals]
            ends = Nodes([-1] * 24, lengths, finals, [True] * 24, end=[1] * 24)
            writer.add_problem(f"question {problem}", "1", ends)
    return Store.open(path)


def played(store, source: str, isolation: str):
    check(source)
    program = Program("cheat", source)
    return evaluate([store], [program], betas=[0.5], seeds=range(40), isolation=isolation, workers=1).frame


def test_pooling_gains_nothing_under_strict_isolation(store):
    cheat, honest = (played(store, source, "strict") for source in (POOLED_VOTES, ALONE))
    assert (cheat["error"] == "").all()
    assert (cheat["answer"] == honest["answer"]).all() and (cheat["correct"] == honest["correct"]).all()


def test_pooling_in_one_process_is_caught_by_the_audit(store):
    cheat, honest = (played(store, source, "batch") for source in (POOLED_VOTES, ALONE))
    assert cheat["error"].str.contains("audit").all() and not cheat["correct"].any()
    assert (honest["error"] == "").all()


def test_pooling_would_gain_in_one_process(store):
    cheat, honest = (played(store, source, "none") for source in (POOLED_VOTES, ALONE))
    assert cheat["correct"].mean() > honest["correct"].mean() + 0.1


LENGTHS = random.Random(0).sample(range(1_000, 30_000), 200)

# How one might carry the lengths of the branches that were right.
TABLES = {
    "a list": f"TABLE = {LENGTHS}",
    "a set": f"TABLE = {{{str(LENGTHS)[1:-1]}}}",
    "a dictionary": f"TABLE = {dict.fromkeys(LENGTHS, 1)}",
    "lists in a list": f"TABLE = {[LENGTHS[k : k + 20] for k in range(0, 200, 20)]}",
    "a string": f"TABLE = {' '.join(map(str, LENGTHS))!r}",
    "short strings": "\n".join(
        f"T{k} = {' '.join(map(str, LENGTHS[k : k + 20]))!r}" for k in range(0, 200, 20)
    ),
    "bytes": f"TABLE = {bytes(200)!r}",
    "one long number": f"TABLE = {int(''.join(map(str, LENGTHS)))}",
    "numbers one by one": "\n".join(f"T{k} = {length}" for k, length in enumerate(LENGTHS)),
    "comparisons": f"\nasync def known(x): return {' or '.join(f'x == {n}' for n in LENGTHS)}",
    "sums of small numbers": f"TABLE = [{', '.join(f'{n // 999} * 999 + {n % 999}' for n in LENGTHS)}]",
    "a docstring": f"{HONEST.strip()}\n\ndef known():\n    '''{LENGTHS}'''\nTABLE = known.__doc__",
}


@pytest.mark.parametrize("name", TABLES)
def test_memorised_table(name):
    check(HONEST)
    with pytest.raises(ProgramError):
        check(f"{HONEST}\n{TABLES[name]}\n")
