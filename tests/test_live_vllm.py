"""Live episodes at real vLLM servers, held against replay of a store that the same servers sampled."""

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("vllm", reason="`pip install 'autotts[cpu]'` to test with vLLM")

from checkout import ROOT
from commanding import run_all
from serving import KEY

from autotts import main
from collect.collection import Collection, Scoring
from collect.endpoint import survey
from collect.engine import Request, Sampling, generate
from collect.live import calls
from collect.live.opening import live_model
from collect.live.scoring import StepScores
from collect.live.server import ServerStreams
from collect.plan import Arm, Plan, Segments
from collect.prm.remote import ServerScorer
from collect.probes import Probing
from collect.problems import Problem, Source
from collect.prompts import Prompting
from collect.sampler import Drawing, Shape
from collect.servers import open_servers
from collect.tokens import Tokens
from env.live.bench import Bench, Question
from env.live.player import Player
from env.program import Program
from env.store import Store
from env.tasks import load_task
from env.unit import Unit, play_unit
from tests.programs import shipped, written
from tests.streaming import Meddler, running

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

MODEL, PRM = ROOT / "data" / "tiny" / "model", ROOT / "data" / "tiny" / "prm"
PLAN = Plan(
    arms=(Arm(str(MODEL), Prompting("{question}")),),
    source=Source("tiny"),
    dataset="tiny",
    task="exact",
    shape=Shape(8, (1, 2), (2, 2)),
    drawing=Drawing(Sampling(), max_tokens=160, top_logprobs=5, window=48),
    segments=Segments(None, 1),
    probing=Probing("\\n\\boxed{", 4),
)
RECIPE = {"model": str(PRM), "separator": "\n\n", "engine_args": {}}
RECIPE |= dict.fromkeys(("kind", "window", "step_tag"))

ENDS = set(Tokens(str(MODEL)).ends)


def problems() -> list[Problem]:
    lines = (ROOT / "data" / "tiny" / "problems-search.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines[:40:10]]
    return [Problem(record["problem"], record["answer"]) for record in records]


@pytest.fixture(scope="module", autouse=True)
def environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", KEY)
        patch.setattr(calls, "PAUSE", 0.02)
        yield


@pytest.fixture(scope="module")
def servers(tiny_server, tiny_prm_server):
    return tiny_server, tiny_prm_server


@pytest.fixture(scope="module")
def store(servers, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "store"
    scoring = Scoring(lambda: ServerScorer(str(PRM), [servers[1]]), RECIPE, "\n\n", str(PRM))
    collection = Collection(PLAN, problems(), out, scoring)
    collection.run(lambda arm: open_servers(str(MODEL), survey([servers[0]], [str(MODEL)])[str(MODEL)], 5))
    return Store.open(out)


def play(servers, player, seeds, follow=None, url=None, plan=PLAN, kept=None, **options):
    """All problems at once; {(problem, seed): Played}; `kept` gets the episodes."""

    async def run():
        (served,) = survey([url or servers[0]], [str(MODEL)])[str(MODEL)]
        scores = StepScores(ServerScorer(str(PRM), [servers[1]]), "\n\n")
        task = load_task("exact")
        model = live_model(plan, task, {str(MODEL): [ServerStreams(served, 64, 20)]}, scores, **options)
        bench = Bench(model, player, task, plan.drawing.seed, follow=follow)
        todo = [(number, seed) for seed in seeds for number in range(len(problems()))]
        asked = [Question(problem.question, problem.gold) for problem in problems()]
        try:
            episodes = [bench.episode(asked[number], seed) for number, seed in todo]
            played = await asyncio.gather(*(player.play(episode) for episode in episodes))
            if kept is not None:
                kept.extend(episodes)
        finally:
            await model.close()
            player.close()
        return dict(zip(todo, played, strict=True))

    return asyncio.run(run())


def replayed(store, which, beta, seeds, settings):
    unit = Unit(
        store=store.path,
        program=which,
        beta=beta,
        overrides=settings,
        seeds=seeds,
        problems=range(len(store)),
        protocol="standard",
        probe_tokens=20,
        max_branches=None,
        isolation="none" if which.trusted else "strict",
    )
    return play_unit(unit)


@pytest.mark.parametrize(
    ("name", "beta", "settings"),
    [
        ("self_consistency", 1, {}),
        ("adaptive_consistency", 1, {}),
        ("parallel_probe", 0.5, {"stability": 3, "patience": 2, "warm_up": 2}),
        ("confidence_momentum", 0.5, {}),
        ("deepconf", 0.5, {}),
        ("best_of_n", 0.5, {}),
        ("beam_search", 0.25, {"width": 2}),
        ("rebase", 0.5, {}),
    ],
)
def test_an_uninterrupted_episode_is_the_replayed_one(servers, store, name, beta, settings):
    which, seeds = shipped(name), (0, 1)
    expected = replayed(store, which, beta, seeds, settings)
    assert not expected.errors
    found = play(servers, Player(which, beta, settings), seeds, store, run_ahead=10**9)
    assert {played.error for played in found.values()} == {""}
    for place, (_, played) in enumerate(found.items()):
        assert tuple(played.ledger) == tuple(expected.ledger[place].tolist())
        assert played.answer == expected.answer[place] and played.correct == expected.correct[place]
        assert (played.rounds, played.asked, played.granted) == (
            expected.rounds[place],
            expected.asked[place],
            expected.granted[place],
        )
    assert expected.correct.any()


# Branches that wait for each other, are probed and scored on the way, given up, forked, and left.
MIXED = Program(
    "mixed",
    written(
        "mixed",
        """
ids = await ep.branch(3)
await ep.extend(ids[:1], 2)
await ep.score(ids)
ep.prune(ids[2:])
ids += await ep.fork(ids[1], 1)
await ep.finish(ids[:2] + ids[3:])
return ep.answer[ids[0]]
""",
    ).source,
    trusted=True,
)


def test_nothing_is_lost_or_counted_twice_on_the_way_to_a_real_server(servers):
    """Greedy: each token is then the likeliest after those before it, and one too many or too few shows."""
    greedy = replace(PLAN, drawing=replace(PLAN.drawing, sampling=Sampling(temperature=0.0)))
    episodes = []
    with running(Meddler(servers[0])) as meddler:
        options = {"url": meddler.url, "plan": greedy, "run_ahead": 12, "kept": episodes}
        found = play(servers, Player(MIXED, 0.5), (0, 1), **options)
    assert set(meddler.struck) == set(meddler.KINDS) and sum(meddler.struck.values()) > 10
    assert {each.error for each in found.values()} == {""} and len(found) == 8
    retries, late = sum(each.usage.retries for each in found.values()), meddler.struck["late"]
    assert 0 < retries <= sum(meddler.struck.values()) - late
    paths = [branch.path for episode in episodes for branch in episode.branches]
    for played, episode in zip(found.values(), episodes, strict=True):
        first, second, third, fork = (branch.path.ids for branch in episode.branches)
        # The fork leaves where the first segment ends, which is all that the third one has.
        assert played.ledger.decode == len(first) + len(second) + len(fork) and third == fork[: len(third)]
        assert {ids[-1] for ids in (first, second, fork)} <= ENDS
        assert played.ledger.prm and played.ledger.probe
    engine = open_servers(str(MODEL), survey([servers[0]], [str(MODEL)])[str(MODEL)], 1)
    asked = [path.session.prompt(0).ids + path.ids for path in paths]
    read = [Request(ids, 1, 0, Sampling(), (), 1, read_prompt=True) for ids in asked]
    for path, sample in zip(paths, generate(engine, read), strict=True):
        own = slice(-len(path.ids), None)
        # Likelihoods that agree to the last digit may change places.
        assert (sample.prompt_logprobs[own] > -sample.prompt_confidence[own] - 1e-3).all()
    engine.close()


def test_untrusted_code_is_asked_about_by_a_real_model(servers, store):
    source = shipped("adaptive_consistency").source
    apart = play(servers, Player(Program("adaptive", source), 1.0), (0,), store, run_ahead=10**9)
    expected = replayed(store, Program("adaptive", source, trusted=True), 1.0, (0,), {})
    assert [tuple(each.ledger) for each in apart.values()] == [tuple(row) for row in expected.ledger.tolist()]


def test_the_command_with_engines_of_its_own_plays_the_replayed_episodes(store, tmp_path):
    """A sampler in its process, a reward model in another; then once more, when all is done."""
    command = ["live", "--store", store.path, "--follow", "--controller", "beam_search", "--beta", "0.25"]
    command += ["--set", "width=2", "--seeds", "2", "--run-ahead", "1000000", "--out", str(tmp_path)]
    command += ["--concurrency", "2,4"]
    for argument in ("kv_cache_memory_bytes=67108864", "max_num_seqs=16"):
        command += ["--engine-arg", argument]
    first, again = run_all(command, command)
    assert first.status == again.status == 0, first.err
    assert "64 branches of" in first.err and "problems at a time" in first.err and not again.err
    assert "in flight" in first.out and first.out.splitlines()[1:3] == again.out.splitlines()[1:3]
    expected = replayed(store, shipped("beam_search"), 0.25, (0, 1), {"width": 2})
    names = store.problems["question_hash"].to_pylist() * 2
    for concurrency in (2, 4):
        for place, (name, seed) in enumerate(zip(names, np.repeat((0, 1), 4), strict=True)):
            row = json.loads((tmp_path / "episodes" / str(concurrency) / f"{name}-{seed}.json").read_text())
            assert [row[k] for k in ("decode", "probe", "prm", "sequential")] == expected.ledger[
                place
            ].tolist()
            assert row["answer"] == expected.answer[place] and row["correct"] == expected.correct[place]
    (level, _) = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert level["accuracy"] == expected.correct.mean() and level["errors"] == 0


def test_the_command_at_servers(servers, tmp_path, capsys):
    problems_file = tmp_path / "problems.jsonl"
    lines = [json.dumps({"question": each.question, "answer": each.gold}) for each in problems()]
    problems_file.write_text("\n".join(lines))
    command = ["live", "--controller", "best_of_n", "--beta", "0.5", "--problems", str(problems_file)]
    command += ["--task", "exact", "--prompt", "{question}", "--segment-steps", "1", "--max-tokens", "160"]
    command += ["--server", servers[0], "--prm", str(PRM), "--prm-server", servers[1]]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr()
    assert "accuracy" in told.out and "4 problems, 1 episodes each" in told.out
    (row,) = json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]
    assert row["prm_tokens"] == row["decode_tokens"] > 0 and row["preemptions"] == 0
    assert KEY not in (tmp_path / "run" / "calls.jsonl").read_text()
    assert main([*command, "--seed", "2", "--out", str(tmp_path / "run")]) == 2
    assert "is a run with another drawing" in capsys.readouterr().err
    assert main([*command, "--prm-window", "50", "--out", str(tmp_path / "run")]) == 2
    assert "is a run with another prm" in capsys.readouterr().err
    assert (
        main(["live", "--controller", "best_of_n", "--beta", "0.5", "--server", servers[0], "--out", "x"])
        == 2
    )
    assert "--problems or --store is missing" in capsys.readouterr().err
