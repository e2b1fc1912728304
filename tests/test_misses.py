"""What a store lacks for the controllers that were played on it."""

import polars as pl
import pytest

from autotts import main
from env.evaluate import evaluate
from env.misses import ROOT, find_misses, misses_of
from env.store import Store
from tests import made_up
from tests.playing import chain, grow, play_on, store
from tests.programs import shipped


def fork_store():
    """A root with two children of which the first has two more, and a second root branch of two nodes."""
    root = grow(None, 5, 0)
    left, right = grow(root, 5, 0), grow(root, 5, 1, 1)
    nodes = [root, left, right, grow(left, 5, 1, 1), grow(left, 5, 2, 1)]
    return store(*nodes, *chain((4, 0), (4, 1)))


def play(solve, **options):
    return play_on(fork_store(), solve, **options).replay


def test_root_branches():
    async def solve(ep):
        await ep.branch(3, probe=False)
        await ep.branch(4, probe=False)

    replay = play(solve, max_branches=2)
    assert (replay.asked[0], replay.granted[0]) == (7, 2)
    # Half of the branches may be opened, so twice as many are needed; with a ceiling, no more than it.
    assert list(misses_of(replay, 2, None)) == [((0, 0, ROOT), 14)]
    assert list(misses_of(replay, 1, 2)) == []
    assert list(misses_of(replay, 1, 5)) == [((0, 0, ROOT), 5)]


def test_forks_and_those_that_could_not_go_on():
    async def solve(ep):
        ids = await ep.branch(2, probe=False)
        depths = {i: ep.children[i] for i in ids}
        (forked,) = [i for i in ids if depths[i] == 2]
        await ep.fork(forked, 4, probe=False)
        # Both children are taken: the branch itself has none left.
        await ep.extend([forked], probe=False)
        await ep.finish([forked])
        await ep.fork(forked, 1, probe=False)

    replay = play(solve, max_branches=2)
    assert list(misses_of(replay, 2, None)) == [((0, 0, 0), 2 + 1)]
    # What it asked for after it could not go on, it would have asked for elsewhere.
    assert replay.asked[0] - replay.granted[0] == 4


def test_what_no_store_could_have():
    async def solve(ep):
        ids = await ep.branch(2, probe=False)
        (chain_id,) = [i for i in ids if ep.children[i] == 1]
        other = next(i for i in ids if i != chain_id)
        await ep.finish([chain_id])
        await ep.fork(chain_id, 3, probe=False)
        ep.prune([other])
        await ep.fork(other, 3, probe=False)

    replay = play(solve, max_branches=2)
    assert replay.asked[0] - replay.granted[0] == 6
    assert list(misses_of(replay, 2, None)) == []


def test_a_fork_begins_where_its_branch_stood_before_the_round():
    async def solve(ep):
        ids = await ep.branch(2, probe=False)
        (forked,) = [i for i in ids if ep.children[i] == 2]
        await ep.together(ep.fork(forked, 3, probe=False), ep.finish([i for i in ids if i != forked]))

    assert list(misses_of(play(solve, max_branches=2), 2, None)) == [((0, 0, 0), 1)]


@pytest.fixture(scope="module")
def sums(tmp_path_factory) -> Store:
    return Store.open(made_up.store(tmp_path_factory.mktemp("stores") / "sums", problems=3, branches=8))


def test_the_neediest_episode_counts(sums):
    programs = [shipped("self_consistency"), shipped("adaptive_consistency")]
    frame = evaluate([sums], programs, betas=[0.0, 0.5, 1.0], seeds=range(3)).frame
    assert (frame["asked"] > frame["granted"]).any()
    found = find_misses([sums], programs, frame)
    assert found["sha256"].unique().to_list() == [sums.sha256]
    most = frame.filter(pl.col("asked") > pl.col("granted")).group_by("problem").agg(pl.col("asked").max())
    needed = dict(most.select("problem", 2 * pl.col("asked")).iter_rows())
    assert dict(found.select("problem", "wanted").iter_rows()) == needed
    assert found["node"].unique().to_list() == [ROOT] and len(found) == 3
    content = evaluate([sums], programs, betas=[0.0], seeds=range(3)).frame
    assert len(find_misses([sums], programs, content)) == 0


def test_evaluate_writes_them(sums, tmp_path, capsys):
    given = ["evaluate", sums.path, "--controller", "self_consistency", "--seeds", "2", "--beta", "1"]
    assert main([*given, "--out", str(tmp_path / "run")]) == 0
    found = pl.read_parquet(tmp_path / "run/misses.parquet")
    assert found["wanted"].unique().to_list() == [128] and found["store"].unique().to_list() == [sums.path]
    capsys.readouterr()
