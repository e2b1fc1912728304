"""Several proposers at once: nobody waits who need not, and the books say who knew what."""

import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from made_up import store as make_store

from env.errors import UserError
from env.store import Store
from search_agent.archive import Run
from search_agent.arena import Arena
from search_agent.budget import Budget
from search_agent.desk import PATIENCE, Desk, Lane
from search_agent.loop import Search
from search_agent.proposal import BudgetSpent, NothingToPropose, Proposal, ProposerError
from search_agent.splits import split

SECONDS = 20  # a test that waits for longer than this has failed


class Player:
    """Proposes its name and the number of the turn, when `gate` lets it; or raises what `script` says."""

    stamps = ()

    def __init__(self, name, gate=None, script=()):
        self.name, self.settings = name, {}
        self.gate, self.script = gate, list(script)
        self.turns, self.began = 0, threading.Semaphore(0)

    def propose(self, bench):
        self.turns += 1
        turn = self.turns
        self.began.release()
        if self.gate:
            assert self.gate.acquire(timeout=SECONDS)
        if turn <= len(self.script) and self.script[turn - 1]:
            raise self.script[turn - 1]
        return Proposal(f"{self.name} {turn}", "")


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run", {"seed": 0}, {})
    with run.writing():
        yield run


def desk(run, *lanes):
    return Desk(run, lanes, lambda lane, seen: None)


def evaluated(run):
    """Archive the oldest proposal; what it was and what its proposer had seen."""
    number = run.proposals()[0]
    record, source = run.proposal(number)
    assert record["round"] == number == len(run.rounds()) + 1
    run.add(number, record | {"status": record.get("status", "evaluated")}, source)
    return source, record["seen"]


def test_a_single_proposer_is_asked_in_turn_and_sees_all_before(run):
    one = desk(run, Lane(Player("model"), "model"))
    for turn in range(3):
        one.begin(None)
        assert not one.busy and not one.wait()
        assert one.ask()
        assert evaluated(run) == (f"model {turn + 1}", turn)


def test_quick_proposers_take_turns_and_who_has_nothing_is_passed_over(run):
    idle = Player("tune", script=[None, NothingToPropose(), NothingToPropose()])
    both = desk(run, Lane(Player("compose"), "compose", quick=True), Lane(idle, "tune", quick=True))
    for _ in range(4):
        assert both.ask()
        evaluated(run)
    assert [run.source(number) for number in range(1, 5)] == ["compose 1", "tune 1", "compose 2", "compose 3"]


def test_evaluation_does_not_wait_for_a_model_nor_a_model_for_evaluation(run):
    gate = threading.Semaphore(0)
    model = Player("model", gate)
    both = desk(run, Lane(model, "model"), Lane(Player("compose"), "compose", quick=True))
    both.begin(None)
    assert model.began.acquire(timeout=SECONDS) and both.busy == 1
    for turn in range(3):
        assert both.ask()
        assert evaluated(run) == (f"compose {turn + 1}", turn)
    gate.release()
    assert both.wait()
    assert evaluated(run) == ("model 1", 0), "it saw the archive as of when it began"
    # The next one is under way while other rounds are evaluated.
    both.begin(None)
    assert model.began.acquire(timeout=SECONDS)
    assert both.ask()
    assert evaluated(run) == ("compose 4", 4)
    gate.release()
    assert both.wait()
    assert evaluated(run) == ("model 2", 4)
    assert not both.wait()


def test_a_model_is_never_more_than_one_proposal_ahead(run):
    players = [Player(f"model {k}") for k in range(3)]
    three = desk(run, *(Lane(player, player.name) for player in players))
    for _ in range(4):
        three.begin(None)
        while three.wait():
            pass
    # Whose first proposal is about to be evaluated has made its second one meanwhile.
    assert sorted(player.turns for player in players) == [1, 1, 2]
    while run.proposals():
        evaluated(run)
    three.begin(None)
    while three.wait():
        pass
    assert sorted(player.turns for player in players) == [2, 2, 3]


def test_no_more_are_begun_than_there_is_room_for(run):
    gate = threading.Semaphore(0)
    players = [Player(f"model {k}", gate) for k in range(3)]
    three = desk(run, *(Lane(player, player.name) for player in players))
    three.begin(2)
    assert three.busy == 2
    gate.release(2)
    assert three.wait() and three.wait() and not three.wait()
    assert sum(player.turns for player in players) == 2


@pytest.mark.parametrize("rounds", [1, 4])
def test_who_takes_turns_leaves_room_for_what_others_are_at(run, tmp_path, rounds):
    store = Store.open(make_store(tmp_path / "store"))
    arena = Arena([store], [store], split(store.problems["question_hash"].to_pylist()), seeds=1, workers=1)
    lanes = [Lane(Player("model"), "model"), Lane(Player("compose"), "compose", quick=True)]
    for lane in lanes:
        lane.proposer.vouches = lambda source, memo: False
    Search(run, arena, lanes, [], {}, lambda line: None).play_rounds(Budget(rounds=rounds))
    # Neither is a program, so nothing is measured.
    assert [record["status"] for record in run.rounds()] == ["refused"] * rounds


def test_failures_are_rounds_and_too_many_of_them_end_a_lane(run):
    lane = Lane(Player("model", script=[None] + [ProposerError("garbage")] * 9), "model")
    one = desk(run, lane)
    for _ in range(1 + PATIENCE):
        assert one.ask()
        evaluated(run)
    assert not one.ask()
    assert str(lane.over) == f"{PATIENCE} failures in a row, the last: garbage"
    assert [record["status"] for record in run.rounds()] == ["evaluated"] + ["failed"] * PATIENCE


@pytest.mark.parametrize("error", [ProposerError("no such model", fatal=True), BudgetSpent("no money left")])
def test_a_lane_that_cannot_go_on_leaves_the_others_to_it(run, error):
    lane = Lane(Player("model", script=[error]), "model")
    both = desk(run, lane, Lane(Player("compose"), "compose", quick=True))
    both.begin(None)
    while both.wait():
        pass
    both.begin(None)
    assert lane.over is error and not both.busy and not run.proposals()
    assert both.ask() and evaluated(run) == ("compose 1", 0)


def test_what_goes_wrong_in_a_thread_stops_the_search(run):
    both = desk(run, Lane(Player("a", script=[UserError("disk full")]), "a"), Lane(Player("b"), "b"))
    both.begin(None)
    with pytest.raises(UserError, match="disk full"):
        while both.wait():
            pass


def test_at_any_pace_rounds_are_numbered_without_gaps_and_seen_is_of_the_past(run):
    """Threads hand in at random moments, while others' proposals are evaluated."""
    rng = random.Random(0)

    class Hasty(Player):
        def propose(self, bench):
            time.sleep(rng.random() / 200)
            return super().propose(bench)

    four = desk(run, *(Lane(Hasty(f"model {k}"), f"model {k}") for k in range(4)))
    while len(run.rounds()) < 60:
        four.begin(None)
        if run.proposals():
            evaluated(run)
        else:
            four.wait()
    while four.wait():
        pass
    records = run.rounds()
    assert [record["round"] for record in records] == list(range(1, 61))
    assert all(0 <= record["seen"] < record["round"] for record in records)
    for label in {record["proposer"] for record in records}:
        own = [record for record in records if record["proposer"] == label]
        seen = [record["seen"] for record in own]
        assert seen == sorted(seen)
        # All but its last round, which may have been under evaluation when it began.
        assert all(later["seen"] >= record["round"] for record, later in zip(own, own[2:], strict=False))
    assert len({run.source(number) for number in range(1, 61)}) == 60


def test_a_proposal_is_on_disk_before_anything_else_and_survives(run):
    one = desk(run, Lane(Player("model"), "model"))
    assert one.ask()
    again = Run.open(run.path)
    record, source = again.proposal(1)
    assert (record["proposer"], record["seen"], source) == ("model", 0, "model 1")
    assert again.rounds() == [] and again.proposals() == [1]


COMMAND = """
import sys, threading, time
from pathlib import Path
from search_agent.proposers.process import run

argv = ["sh", "-c", "echo $$ > pid; sleep 1000"]
words = argv, Path(sys.argv[1]), {"PATH": "/usr/bin:/bin"}, 1000
threading.Thread(target=run, args=words, daemon=True).start()
while not (Path(sys.argv[1]) / "pid").exists():
    time.sleep(0.01)
raise KeyboardInterrupt
"""


def test_an_interrupted_search_leaves_no_command_behind(tmp_path):
    done = subprocess.run([sys.executable, "-c", COMMAND, tmp_path], capture_output=True, timeout=SECONDS)
    assert done.returncode == -signal.SIGINT, done.stderr
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + SECONDS
    while subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True).stdout.strip() not in (
        b"",
        b"Z",
    ):
        assert time.monotonic() < deadline, "the command is still running"
        time.sleep(0.01)
