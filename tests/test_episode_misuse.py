"""What a controller must not do: each misuse ends its own episode, with an error that says what is wrong."""

import pytest

from env.episode import MAX_ACTIONS
from tests.playing import chain, error_of, line, play_on, run, store, tree

UNKNOWN = "unknown branch id: ids are those that branch(), sample() and fork() returned in this episode"
TWICE = "a branch may appear only once in a round"
NEGATIVE = "a negative count: ask for zero or more"
FLOOD = "too many actions in one round"
ODD = "together() takes branch, sample, extend, finish, probe, score and fork actions"


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (lambda ep: ep.finish([2]), UNKNOWN),
        (lambda ep: ep.finish([-1]), UNKNOWN),
        (lambda ep: ep.extend(range(100)), UNKNOWN),
        (lambda ep: ep.extend([0, 0]), TWICE),
        (lambda ep: ep.extend([0] * 100_000), TWICE),
        (lambda ep: ep.together(ep.extend([0]), ep.probe([0])), TWICE),
        (lambda ep: ep.together(*(ep.extend([0, 1]) for _ in range(200))), TWICE),
        (lambda ep: ep.together(ep.branch(1), ep.extend([2])), UNKNOWN),
        (lambda ep: ep.branch(-1), NEGATIVE),
        (lambda ep: ep.extend([0], -1), NEGATIVE),
        (lambda ep: ep.extend([0, 1], [1, -1]), NEGATIVE),
        (lambda ep: ep.extend([0, 1], [1]), "1 segment counts for 2 branches: give one each"),
        (lambda ep: ep.branch(1.0), "1.0 is not a whole number of 32 bits"),
        (lambda ep: ep.branch(2**31), f"{2**31} is not a whole number of 32 bits"),
        (lambda ep: ep.branch(True), "True is not a whole number of 32 bits"),
        (lambda ep: ep.branch(1, arm=1), "unknown arm: see the arms this store was collected with"),
        (lambda ep: ep.branch(1, arm=-1), "unknown arm: see the arms this store was collected with"),
        (lambda ep: ep.fork(0, 1), "this store has no forks: `fork` needs a store collected with trees"),
        (
            lambda ep: ep.score([0]),
            "this store has no process-reward-model scores: `score` needs a store collected with --prm",
        ),
        (
            lambda ep: ep.together(*(ep.branch(0) for _ in range(MAX_ACTIONS))),
            "too many actions in one round",
        ),
        (lambda ep: ep.together(ep.prune([0])), ODD),
        (lambda ep: ep.together(ep.together(ep.branch(1))), ODD),
        (lambda ep: ep.together(3), ODD),
    ],
)
def test_misuse_is_an_error_of_the_controller_that_says_what_is_wrong(action, error):
    async def solve(ep):
        await ep.branch(2)
        try:
            await action(ep)
        except Exception as caught:
            assert str(caught) == error
            raise

    told = error_of(line(), solve)
    assert told == f"ControllerError: {error}"


def test_misuse_on_trees():
    async def negative(ep):
        await ep.branch(1)
        await ep.fork(0, -1)

    async def unborn(ep):
        await ep.together(ep.branch(1), ep.fork(0, 1))

    assert error_of(tree(), negative) == f"ControllerError: {NEGATIVE}"
    assert error_of(tree(), unborn) == f"ControllerError: {UNKNOWN}"


def test_a_store_without_probes_says_so():
    async def asks(ep):
        await ep.branch(1)

    async def reads(ep):
        ids = await ep.branch(1, probe=False)
        await ep.finish(ids)
        assert ep.answer == [0]
        return ep.answer[0]

    index = store(*chain((10, -2), (20, 1)))
    assert "this store has no probes: pass probe=False" in error_of(index, asks)
    assert run(index, reads).replay.correct[0]


def test_pruning_what_is_unknown_is_an_error():
    async def solve(ep):
        ep.prune([0])

    assert error_of(line(), solve) == f"ControllerError: {UNKNOWN}"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (7, "ControllerError: the answer is no code that this episode has seen"),
        (-5, "ControllerError: the answer is no code that this episode has seen"),
        ("42", "ControllerError: solve returned str, not an answer code or None"),
        (True, "ControllerError: solve returned bool, not an answer code or None"),
        (2**40, "ControllerError: solve returned int, not an answer code or None"),
    ],
)
def test_an_answer_is_a_code_that_was_seen(answer, error):
    async def solve(ep):
        await ep.branch(1)
        return answer

    assert error_of(line(), solve) == error


@pytest.mark.parametrize("answer", [None, -1])
def test_an_episode_may_end_without_an_answer(answer):
    async def solve(ep):
        await ep.branch(1)
        return answer

    replay = run(line(), solve).replay
    assert (replay.final.tolist(), replay.correct.tolist()) == ([-1], [False])


def test_an_error_costs_its_own_episode_only(monkeypatch):
    monkeypatch.setattr("env.lockstep.MAX_ROUNDS", 50)

    async def solve(ep):
        ids = await ep.branch(1)
        which = seen.setdefault(id(ep), len(seen))
        if which == 0:
            raise ValueError("no")
        if which == 1:
            await ep.finish([9])
        if which == 2:
            while True:
                await ep.extend(ids)
        if which == 3:
            raise SystemExit(3)
        await ep.finish(ids)
        return ep.answer[0]

    seen: dict[int, int] = {}
    playback = play_on(line(), solve, problems=[0] * 5, seeds=range(5))
    assert playback.errors == {
        0: "ValueError: no",
        1: f"ControllerError: {UNKNOWN}",
        2: "ControllerError: no answer after 50 rounds",
        3: "SystemExit: 3",
    }
    assert playback.replay.correct.tolist() == [False] * 4 + [True]
    assert playback.replay.ledger[:, 0].tolist() == [10, 10, 60, 10, 60]
