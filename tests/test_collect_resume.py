"""A collection that is interrupted anywhere and begun again makes the store that it would have made."""

import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
from checkout import ROOT
from collecting import Borrowed, collect, contents, make_plan, problems, write_problems
from vllm_models import shared_model

from collect.collection import Collection
from collect.engine import EngineError, Sampling
from collect.folder import FolderError
from collect.plan import Arm
from collect.preflight import forecast
from collect.prompts import Prompting
from collect.sampler import Drawing
from env.schema import StoreError
from env.store import Store

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return contents(collect(make_plan(), tmp_path_factory.mktemp("undisturbed") / "store"))


def test_the_store_says_what_was_done(undisturbed, tmp_path):
    assert undisturbed["capabilities"] == ["confidence", "forks", "logprob", "probes", "text"]
    assert undisturbed["counts"]["problems"] == 5 and undisturbed["counts"]["branches"] == 20
    assert undisturbed["sampling"]["top_p"] == 0.95 and undisturbed["sampling"]["max_tokens"] == 120
    (arm,) = undisturbed["arms"]
    assert arm["stop_token_ids"] == [1] and arm["prompt"]["arguments"] == {"think": True}
    recipe = undisturbed["provenance"]["recipe"]
    assert recipe["shape"] == {"branches": 4, "fork_depths": [1], "fork_widths": [2], "max_nodes": 20_000}
    assert recipe["probing"]["max_tokens"] == 12 and "torch" in recipe["versions"]
    # How much of the card it may use is no property of the samples.
    assert recipe["engine_arguments"] == {}


@pytest.mark.parametrize(
    "error", [EngineError("out of memory"), KeyboardInterrupt()], ids=["engine", "ctrl-c"]
)
def test_stopped_at_random_points(tmp_path, undisturbed, error):
    out, dice = tmp_path / "store", random.Random(7)
    collection = Collection(make_plan(), problems(5), out)
    stops = 0
    while collection.missing(0):
        before = set(collection.missing(0))
        with pytest.raises(type(error)):
            collection.run(lambda arm: Borrowed(dice.randrange(1, 40), error))
        assert set(collection.missing(0)) <= before and not out.exists()
        stops += 1
        if stops == 4:
            break
        collection = Collection(make_plan(), problems(5), out)
    Collection(make_plan(), problems(5), out).run(lambda arm: Borrowed())
    assert contents(Store.open(out)) == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_killed_while_the_store_is_written(tmp_path, undisturbed):
    out = tmp_path / "store"
    Collection(make_plan(), problems(5), out).sample(lambda arm: Borrowed())
    for delay in (0.0, 0.01, 0.03, 0.1):
        child = os.fork()
        if not child:
            Collection(make_plan(), problems(5), out).store()
            os._exit(0)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    # Whether or not the store was made, nothing is sampled again.
    Collection(make_plan(), problems(5), out).run(refuse)
    assert contents(Store.open(out)) == undisturbed
    assert not (tmp_path / "store.collecting").exists()
    # And the same command once more finds it.
    again = Collection(make_plan(), problems(5), out)
    assert again.complete
    again.run(refuse)


def refuse(arm):
    raise AssertionError("no model is needed")


def test_a_full_disk(tmp_path, undisturbed):
    collection = Collection(make_plan(), problems(5), tmp_path / "store")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(
            FolderError, match=r"000000\.parquet cannot be written: .*; what is finished is kept"
        ):
            collection.run(lambda arm: Borrowed())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "store.collecting").glob("**/*.par*"))
    Collection(make_plan(), problems(5), tmp_path / "store").run(lambda arm: Borrowed())
    assert contents(Store.open(tmp_path / "store")) == undisturbed


def test_another_collection_is_in_the_way(tmp_path):
    out = tmp_path / "store"
    Collection(make_plan(), problems(5), out).sample_groups(0, Borrowed(), [1])
    left = forecast(Collection(make_plan(), problems(5), out), 7)
    assert left.problems == 3 and left.source == "the mean so far" and 20 < left.branch_tokens < 120
    other = make_plan(drawing=Drawing(Sampling(temperature=0.5, top_p=0.95), 120, 3, window=48))
    message = r"unfinished collection with other settings \(drawing\.sampling\.temperature: 1\.0, now 0\.5\)"
    with pytest.raises(FolderError, match=message):
        Collection(other, problems(5), out)
    with pytest.raises(FolderError, match=r"source\.count: 5, now 4"):
        Collection(make_plan(), problems(4), out)
    with Collection(make_plan(), problems(5), out).folder.locked():
        with pytest.raises(FolderError, match="another process is collecting into"):
            Collection(make_plan(), problems(5), out).run(refuse)
    Collection(make_plan(), problems(5), out).run(lambda arm: Borrowed())
    with pytest.raises(StoreError, match=r"there is a store at .* already"):
        Collection(other, problems(5), out)
    assert Collection(other, problems(5), out, force=True).missing(0) == [0, 1, 2]


def test_prompts_that_do_not_fit(tmp_path):
    plan = make_plan(drawing=Drawing(Sampling(), 8200))
    with pytest.raises(
        Exception, match=r"has a context of 8,192 tokens, .* give --max-tokens 81\d\d or less"
    ):
        Collection(plan, problems(2), tmp_path / "store").run(lambda arm: Borrowed())


def test_arms_share_a_store(tmp_path):
    model = str(shared_model())
    arms = (
        Arm(model, Prompting("{question}", arguments={"think": True})),
        Arm(model, Prompting("Add: {question}")),
    )
    store = collect(make_plan(arms=arms), tmp_path / "store", 3)
    assert "arms" in store.capabilities and len(store.meta["arms"]) == 2
    forest = store.forest()
    for number in range(3):
        first, last = forest.first_node[number : number + 2]
        arm, parent = forest.arm[first:last], forest.parent[first:last]
        assert [sum((arm == each) & (parent < 0)) for each in (0, 1)] == [4, 4]
        inner = parent >= 0
        assert (forest.arm[parent[inner]] == arm[inner]).all()
    alone = collect(make_plan(), tmp_path / "alone", 3)
    assert (forest.tokens[forest.arm == 0] == alone.forest().tokens).all()


def test_kill_9_and_the_same_command(tmp_path, capfd):
    """The command itself, killed amid its work."""
    file = write_problems(tmp_path / "problems.jsonl", 8)
    command = [sys.executable, "-m", "autotts", "collect", "--model", str(shared_model())]
    command += ["--problems", str(file), "--task", "exact", "--branches", "6", "--segment-tokens", "30"]
    command += ["--max-tokens", "300", "--probe-tokens", "8", "--group", "1", "--fork-depths", "2"]
    command += ["--engine-arg", "max_num_seqs=4"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}

    def start(out):
        return subprocess.Popen([*command, "--out", str(out)], cwd=ROOT, env=environment)

    finished = tmp_path / "killed.collecting" / "samples-0"
    process = start(tmp_path / "killed")
    deadline = time.monotonic() + 120
    while len(list(finished.glob("[0-9]*.parquet"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in finished.glob("[0-9]*.parquet")}
    assert 2 <= len(kept) < 8
    assert start(tmp_path / "killed").wait() == 0
    store = Store.open(tmp_path / "killed")
    assert len(store) == 8 and not finished.exists()
    plan = make_plan_of(command, tmp_path / "other")
    Collection(plan, load(plan), tmp_path / "other").run(lambda arm: Borrowed())
    assert contents(Store.open(tmp_path / "other")) == contents(store)


def make_plan_of(command, out):
    """The plan of that command."""
    import argparse

    from collect.commands.collect import add_arguments, plan_of

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return plan_of(parser.parse_args([*command[4:], "--out", str(out)]))


def load(plan):
    from collect.problems import load_problems
    from env.tasks import load_task

    return load_problems(plan.source, load_task(plan.task))
