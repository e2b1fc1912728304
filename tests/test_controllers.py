"""The published controllers: each choice as in plain simulations, each figure as published."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collect.importers.autotts import import_files
from env.episode import BRANCH, EXTEND, OPENING, PRUNE, SAMPLE
from env.evaluate import evaluate
from env.index import Index
from env.program import Program
from env.store import Store
from tests import simulations
from tests.forests import INTERVAL, RAW, Digits, Recording, recordings, stored
from tests.playing import play_on
from tests.reference import shuffled

ROOT = Path(__file__).resolve().parent.parent / "controllers"


def program(name: str) -> Program:
    path = ROOT / f"{name}.py"
    return Program(name, path.read_text(encoding="utf-8"), trusted=True, path=path)


def evaluate_published(store: Store, controller: str, setting: str):
    """The episodes of a row of published.csv; `setting` is one setting, or beta."""
    key, value = setting.split("=")
    chosen = {} if key == "beta" else {key: int(value)}
    betas = [float(value) if key == "beta" else 0.5]
    done = evaluate([store], [program(controller)], betas=betas, settings=chosen, protocol="published")
    return done.frame


class Journal(simulations.Game):
    """A simulation that writes down each choice of its controller."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.choices: list[tuple] = []

    def open(self, count: int) -> list[simulations.Branch]:
        opened = super().open(count)
        self.choices += [("open", branch.number) for branch in opened]
        return opened

    def read(self) -> simulations.Branch | None:
        branch = super().read()
        if branch is not None:
            self.choices.append(("read", branch.number))
        return branch

    def extend(self, branch: simulations.Branch, steps: int = 1) -> None:
        self.choices.append(("extend", branch.number, steps))
        super().extend(branch, steps)

    def abandon(self, branch: simulations.Branch) -> None:
        self.choices.append(("abandon", branch.number))


def choices(log, episode: int) -> list[tuple]:
    """What the engine's log says of one episode, in the words of `Journal`."""
    told: list[tuple] = []
    for actions, ids, results in log:
        rows, named, answered = results.branch.tolist(), ids.tolist(), iter(results.rows.tolist())
        for actor, kind, _, count, argument in actions.tolist():
            taken = 0 if kind in OPENING else count
            branches, named = named[:taken], named[taken:]
            steps = [argument] * taken
            if kind == EXTEND and argument == -1:
                steps, named = named[:taken], named[taken:]
            if kind != PRUNE:
                shown = next(answered)
                born, rows = rows[:shown], rows[shown:]
            if actor != episode:
                continue
            if kind == BRANCH:
                told += [("open", i) for i in born]
            elif kind == SAMPLE:
                told += [("read", i) for i in born]
            elif kind == EXTEND:
                told += [("extend", i, step) for i, step in zip(branches, steps, strict=True)]
            else:
                told += [("abandon" if kind == PRUNE else "read", i) for i in branches]
    return told


def in_order(told: list[tuple]) -> list[list[tuple]]:
    """The same in moments, whose extensions or abandonments have no order; each concerns a branch once.

    Abandonments of the moment of answering concern nobody.
    """
    moments: list[list[tuple]] = []
    for choice in told:
        now = moments[-1] if moments else []
        together = choice[0] in ("extend", "abandon") and {choice[0]} == {other[0] for other in now}
        if together and choice[1] not in {other[1] for other in now}:
            now.append(choice)
        else:
            moments.append([choice])
    if moments and moments[-1][0][0] == "abandon":
        moments.pop()
    return [sorted(moment) for moment in moments]


def same(name: str, recorded, seed: int, **chosen) -> None:
    """Hold one controller to its simulation on every problem at once."""
    problems = range(len(recorded))
    index = Index.build(stored(recorded).forest(), "published")
    names = program(name).load()
    playback = play_on(index, names["solve"], chosen, problems, [seed] * len(recorded))
    assert playback.errors == {}
    for p, branches in enumerate(recorded):
        spelled = [type(b)([RAW[a] for a in b.probes], b.length, RAW[b.final]) for b in branches]
        game = Journal(shuffled(spelled, seed), INTERVAL)
        answer = simulations.CONTROLLERS[name](game, **chosen)
        assert in_order(choices(playback.replay.log, p)) == in_order(game.choices)
        assert int(playback.replay.ledger[p, 0]) == game.tokens
        assert bool(playback.replay.correct[p]) == (answer == RAW[0])


few = st.integers(1, 4)
seeds = st.integers(0, 5)
wide = recordings(most_branches=9, most_probes=4)
deep = recordings(most_branches=7, most_probes=12)


@settings(max_examples=30, deadline=None)
@given(wide, seeds, st.integers(1, 12))
def test_self_consistency(recorded, seed, max_branches):
    same("self_consistency", recorded, seed, max_branches=max_branches)


@settings(max_examples=50, deadline=None)
@given(wide, seeds, st.integers(1, 12), st.sampled_from((0.6, 0.8, 0.95)))
def test_adaptive_consistency(recorded, seed, max_branches, threshold):
    same("adaptive_consistency", recorded, seed, max_branches=max_branches, threshold=threshold)


@pytest.mark.parametrize(("said", "rounds"), [("0" * 64, 1), ("0" * 3, 1), ("01" * 32, 12)])
def test_adaptive_consistency_asks_at_once_for_what_it_cannot_do_without(said, rounds):
    """Four that agree make a lead safe; where they do not, it takes as many more, not one by one."""
    recorded = [[Recording([], 10, int(answer)) for answer in said]]
    names = program("adaptive_consistency").load()
    index = Index.build(stored(recorded).forest(), "published")
    playback = play_on(index, names["solve"], {"max_branches": len(said), "threshold": 0.95})
    asked = [int(count) for actions, *_ in playback.replay.log for count in actions[:, 3]]
    assert asked[0] == min(4, len(said)) and len(asked) <= rounds


@settings(max_examples=50, deadline=None)
@given(wide, seeds, few, st.integers(0, 8))
def test_early_stopping_consistency(recorded, seed, window, more):
    same("early_stopping_consistency", recorded, seed, max_branches=window + more, window=window)


@settings(max_examples=80, deadline=None)
@given(deep, seeds, st.integers(1, 9), few, few, st.integers(0, 3), st.sampled_from((3, 100)))
def test_parallel_probe(recorded, seed, max_branches, stability, patience, warm_up, max_steps):
    chosen = {"stability": stability + 1, "patience": patience, "warm_up": warm_up, "max_steps": max_steps}
    same("parallel_probe", recorded, seed, max_branches=max_branches, **chosen)


@settings(max_examples=250, deadline=None)
@given(deep, seeds, st.integers(0, 2**48), st.sampled_from((0.0, 0.3, 0.5, 1.0)))
def test_confidence_momentum(recorded, seed, drawn, beta):
    """The published schedule is too patient for small recordings: shrink its numbers, vary the others."""
    pick, chosen = Digits(drawn), simulations.momentum_settings(beta)
    whole = {"initial": 5, "max_use": 9, "warm_up": 4, "patience": 3, "window": 5, "burst": 3, "widen": 3}
    for name, most in (whole | {"min_complete": 4, "max_rounds": 14}).items():
        chosen[name] = pick(most) + 1
    chosen["threshold"] = (0.6, 0.9, chosen["threshold"])[pick(3)]
    chosen["slack"] = (-0.05, 0.0, chosen["slack"])[pick(3)]
    chosen["trend"] = (0.0, 0.1, chosen["trend"])[pick(3)]
    same("confidence_momentum", recorded, seed, **chosen)


@pytest.mark.parametrize("beta", [k / 20 for k in range(21)])
def test_the_schedule_of_confidence_momentum_is_the_published_one(beta):
    assert program("confidence_momentum").load()["schedule"](beta) == simulations.momentum_settings(beta)


@pytest.mark.parametrize("name", simulations.CONTROLLERS)
def test_a_larger_beta_never_means_a_smaller_budget(name):
    schedule = program(name).load()["schedule"]
    budgets = [
        [value for key, value in schedule(k / 40).items() if key in ("max_branches", "max_use")]
        for k in range(41)
    ]
    assert budgets == sorted(budgets)
    assert budgets[-1] == [64]


ROWS = (
    ("Qwen3-1.7B", "aime24", "self_consistency", "max_branches=1"),
    ("Qwen3-1.7B", "aime24", "adaptive_consistency", "max_branches=8"),
    ("Qwen3-1.7B", "aime24", "parallel_probe", "max_branches=8"),
    ("Qwen3-1.7B", "aime24", "confidence_momentum", "beta=0"),
    ("Qwen3-4B", "aime25", "self_consistency", "max_branches=64"),
    ("Qwen3-4B", "aime25", "adaptive_consistency", "max_branches=64"),
    ("Qwen3-4B", "aime25", "early_stopping_consistency", "max_branches=16"),
    ("Qwen3-4B", "aime25", "confidence_momentum", "beta=0.25"),
)


@pytest.fixture(scope="module")
def published(replay_dir) -> dict[tuple[str, str, str, str], tuple[float, float]]:
    with open(replay_dir / "published.csv", newline="", encoding="utf-8") as file:
        return {
            (row["model"], row["dataset"], row["controller"], row["setting"]): (
                float(row["accuracy"]),
                float(row["tokens"]),
            )
            for row in csv.DictReader(file)
        }


@pytest.fixture(scope="module")
def stores(replay_dir, tmp_path_factory) -> dict[tuple[str, str], Store]:
    out = tmp_path_factory.mktemp("stores")
    recorded = {row[:2] for row in ROWS}
    import_files([replay_dir / model / f"{dataset}.json" for model, dataset in recorded], out)
    return {(model, dataset): Store.open(out / model / dataset) for model, dataset in recorded}


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_the_published_figures_come_out_to_the_digit(row, published, stores):
    model, dataset, controller, setting = row
    frame = evaluate_published(stores[model, dataset], controller, setting)
    accuracy, tokens = published[row]
    assert frame["error"].unique().to_list() == [""]
    assert frame["correct"].mean() == pytest.approx(accuracy, abs=1e-6)
    assert frame["tokens"].mean() == pytest.approx(tokens, abs=1e-3)
