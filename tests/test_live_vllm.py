"""Live episodes at real vLLM servers, held against replay of a store that the same servers sampled."""

import asyncio
import json
from contextlib import ExitStack

import pytest

pytest.importorskip("vllm", reason="`pip install 'autotts[cpu]'` to test with vLLM")

from checkout import ROOT
from serving import KEY, serve

from autotts import program
from collect.collection import Collection, Scoring
from collect.endpoint import survey
from collect.engine import Sampling
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
from env.live.bench import Bench, Question
from env.live.player import Player
from env.store import Store
from env.tasks import load_task
from env.unit import Unit, play_unit

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

MODEL, PRM = ROOT / "data" / "tiny" / "model", ROOT / "data" / "tiny" / "prm"
POOLING = '{"task": "token_classify", "tok_pooling_type": "ALL"}'
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
def servers(tmp_path_factory):
    logs = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        sampler = serve(
            MODEL, logs / "sampler", "--enable-prompt-tokens-details", "--generation-config", "vllm"
        )
        prm = serve(
            PRM, logs / "prm", "--runner", "pooling", "--convert", "classify", "--pooler-config", POOLING
        )
        yield stack.enter_context(sampler), stack.enter_context(prm)


@pytest.fixture(scope="module")
def store(servers, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "store"
    scoring = Scoring(lambda: ServerScorer(str(PRM), [servers[1]]), {"model": str(PRM)}, "\n\n", str(PRM))
    collection = Collection(PLAN, problems(), out, scoring)
    collection.run(lambda arm: open_servers(str(MODEL), survey([servers[0]], [str(MODEL)])[str(MODEL)], 5))
    return Store.open(out)


def play(servers, player, seeds, follow=None, url=None, **options):
    """All problems at once; {(problem, seed): Played}."""

    async def run():
        (served,) = survey([url or servers[0]], [str(MODEL)])[str(MODEL)]
        scores = StepScores(ServerScorer(str(PRM), [servers[1]]), "\n\n")
        task = load_task("exact")
        model = live_model(PLAN, task, {str(MODEL): [ServerStreams(served, 64)]}, scores, **options)
        bench = Bench(model, player, task, PLAN.drawing.seed, follow=follow)
        todo = [(number, seed) for seed in seeds for number in range(len(problems()))]
        asked = [Question(problem.question, problem.gold) for problem in problems()]
        try:
            played = await asyncio.gather(*(bench.play(asked[number], seed) for number, seed in todo))
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
    which, seeds = program(name), (0, 1)
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
