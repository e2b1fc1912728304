"""An exported file at a server that writes a store's branches decides, and is charged, as replay says."""

import asyncio
import importlib.util
import io
import itertools
import json
import random
import subprocess
import sys
import time
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace

import openai
import pytest
from export_server import PROBE, QUESTION, SPELT, TAGS, ExportServer, busy, cut_after, reset_before, write
from playing import play_on
from programs import CONTROLLERS, shipped, written
from serving import free_port

from env.export.assemble import assemble
from env.export.settings import Settings
from env.program import Program, needs

VOTING = (CONTROLLERS / "voting.py").read_text(encoding="utf-8")
SETTINGS = Settings(
    prompt="{question}",
    stop_token_ids=(TAGS["<eos>"],),
    segment_tokens=16,
    probe_text=PROBE,
    confidence_top=2,
    confidence_window=1,
    max_branches=10,
)
NUMBERS = itertools.count()


def load(program: Program, folder: Path, beta: float = 0.5, settings: Settings = SETTINGS):
    """An exported controller as a module."""
    path = folder / f"exported_{next(NUMBERS)}.py"
    path.write_text(assemble(program, beta, settings, VOTING), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PAUSE = 0.01
    return module


def serve(made, module, seed: int = 0) -> ExportServer:
    asked = module.Question(None, QUESTION, module.SETTINGS, module.SETTINGS.seed + seed, False, None)
    return ExportServer(made, seed, asked.seed_of)


@pytest.fixture(scope="module")
def client():
    """A way to ask: all in one event loop, over one client, which takes long to make."""
    with asyncio.Runner() as runner:

        async def made():
            return openai.AsyncOpenAI(base_url="http://127.0.0.1", api_key="sk-secret")

        shared = runner.run(made())

        def ask(module, server: ExportServer, retries: int = 2, **options):
            there = shared.with_options(base_url=f"{server.url}/v1", max_retries=retries)
            if "prm" in module.NEEDS:
                options.update(prm_client=there, prm_model="prm")
            return runner.run(module.answer(QUESTION, client=there, model="scripted", **options))

        yield ask
        runner.run(shared.close())


class Watched:
    """An episode that notes all it shows, whenever its controller turns to it."""

    def __init__(self, ep, columns: tuple[str, ...]) -> None:
        self.ep, self.columns, self.seen = ep, columns, []

    def look(self) -> None:
        shown = [[*map(_plain, getattr(self.ep, column))] for column in self.columns]
        self.seen.append([*shown, tuple(self.ep.spent)])

    def __getattr__(self, name):
        self.look()
        return getattr(self.ep, name)


def _plain(value):
    return list(value) if isinstance(value, list) else value


def watching(solve, columns, log: list):
    async def watched(ep, **settings):
        watch = Watched(ep, columns)
        code = await solve(watch, **settings)
        watch.look()
        log.append((watch.seen, code))
        return code

    return watched


def compare(
    ask,
    program: Program,
    made,
    folder: Path,
    beta: float = 0.5,
    seed: int = 3,
    asked: Settings = SETTINGS,
    faults=(),
    **settings,
):
    """Plays a program at the scripted server and in replay; returns what came of it, and the server."""
    capabilities = needs(program.source)
    columns = ("answer", "done", "tokens", "depth")
    columns += tuple(name for name in ("prm", "confidence") if name in capabilities)
    module = load(program, folder, beta, asked)
    live, replayed = [], []
    schedule, solve = module.controller()
    chosen = schedule(beta) | settings
    module.controller = lambda: module.Controller(lambda beta: chosen, watching(solve, columns, live))
    with serve(made, module, seed) as server:
        server.faults += faults
        result = ask(module, server, seed=seed)
    names = program.load()
    most = SETTINGS.max_branches
    playback = play_on(
        made.index(),
        watching(names["solve"], columns, replayed),
        names["schedule"](beta) | settings,
        seeds=(seed,),
        max_branches=most,
    )
    assert playback.errors == {}
    ((shown, code),) = live
    assert (shown, code) == replayed[0]
    replay = playback.replay
    assert list(result.spent) == replay.ledger[0].tolist()
    assert result.rounds == replay.rounds[0]
    assert [len(each) for each in (result.branches, shown[-1][0])] == [len(result.branches)] * 2
    assert (result.answer is None) == (code is None or code < 0)
    assert result.usage.decoded_tokens >= result.spent.decode
    assert result.usage.probe_tokens == result.spent.probe
    assert (result.usage.prm_tokens > 0) == (result.spent.prm > 0)
    return result, server


CHAINS = {
    "self_consistency": {},
    "adaptive_consistency": {},
    "answer_convergence": {},
    "parallel_probe": {"stability": 3, "patience": 2, "warm_up": 1},
    "confidence_momentum": {},
    "deepconf": {},
    "best_of_n": {},
}
TREES = {
    "beam_search": {},
    "lookahead": {"width": 3},
    "rebase": {"samples": 4},
    "particle_filter": {"particles": 4},
    "ab_mcts": {"generations": 5},
}


@pytest.fixture(scope="module")
def chains():
    return write(random.Random(5), roots=14, depth=7, tokens=16)


@pytest.fixture(scope="module")
def trees():
    return write(random.Random(6), roots=8, depth=3, width=5, tokens=16)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Self-consistency, exported."""
    return load(shipped("self_consistency"), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("name", CHAINS)
def test_a_controller_does_as_in_replay(name, chains, tmp_path, client):
    compare(client, shipped(name), chains, tmp_path, **CHAINS[name])


@pytest.mark.parametrize("name", TREES)
def test_a_controller_of_trees_does_as_in_replay(name, trees, tmp_path, client):
    compare(client, shipped(name), trees, tmp_path, 0, 4, **TREES[name])


def test_segments_may_be_steps(client, tmp_path):
    """Several tokens come at a time, in the middle of which a step may end."""
    made = write(random.Random(7), roots=10, depth=6)
    compare(client, shipped("confidence_momentum"), made, tmp_path, asked=replace(SETTINGS, segment_steps=1))


def test_what_fails_on_the_way_changes_nothing(client, tmp_path, chains):
    faults = [busy, reset_before, cut_after(20), cut_after(0), busy, cut_after(3)]
    quiet, _ = compare(client, shipped("self_consistency"), chains, tmp_path)
    result, server = compare(client, shipped("self_consistency"), chains, tmp_path, faults=faults)
    assert (result.text, result.answer) == (quiet.text, quiet.answer)
    assert [*map(astuple, result.branches)] == [*map(astuple, quiet.branches)]
    assert not server.faults and len(server.asked) == 8 + len(faults)
    seeds = [(len(body["prompt"]), body["seed"]) for body in server.asked]
    # Asked again in full it is the same request; from the middle on it draws other numbers.
    assert len({seed for length, seed in seeds if length == len(server.prompt)}) == 8
    assert len({seed for _, seed in seeds}) == 10


HELD_BACK = written(
    "held_back",
    """
first = await ep.branch(1)
second = await ep.branch(1, probe=False)
await ep.finish(second)
await ep.finish(first)
return ep.answer[first[0]]
""",
)


def test_a_branch_that_is_held_back_is_cancelled_and_goes_on_from_where_it_was(client, tmp_path):
    made = write(random.Random(9), roots=10, depth=9, tokens=16)
    asked = replace(SETTINGS, run_ahead=5)
    result, server = compare(
        client, Program("held_back", HELD_BACK.source), made, tmp_path, asked=asked, seed=1
    )
    streams = [len(body["prompt"]) - len(server.prompt) for body in server.asked if body.get("stream")]
    assert streams[:2] == [0, 0] and len(streams) > 2 and min(streams[2:]) >= 16 + 5
    assert result.usage.decoded_tokens == result.spent.decode


PRUNING = written(
    "pruning",
    """
lost, kept = await ep.branch(2, probe=False)
ep.prune([lost])
await ep.probe([kept])
ep.note("then", ep.answer[kept])
return ep.answer[kept]
""",
)


def test_what_is_pruned_or_left_is_closed(client, plain, monkeypatch):
    made = write(random.Random(9), roots=2, depth=20, tokens=16, early=0)
    for root in made.problem.roots:
        root.answer = 3
    play(monkeypatch, plain, PRUNING)
    with serve(made, plain) as server:
        server.pause = 0.03
        result = client(plain, server)
        until = time.monotonic() + 20
        while server.streams and time.monotonic() < until:
            time.sleep(0.01)
        assert server.streams == 0 and server.left == 2
    assert [branch.done for branch in result.branches] == ["pruned", None]
    assert result.notes and result.usage.decoded_tokens < 20 * 16
    # Nobody read the winner to its end, so its words are the probe's.
    assert result.text.startswith(PROBE) and result.reasoning.count("\n\n") == 1


FORGETFUL = written(
    "forgetful", "(b,) = await ep.branch(1)\nsaid = ep.answer[b]\nawait ep.finish([b])\nreturn said"
)


def test_an_answer_that_its_branch_has_changed_is_still_one(client, tmp_path):
    made = write(random.Random(5), roots=1, depth=3, tokens=16, early=0)
    first, last = (SPELT[made.problem.nodes[place].answer] for place in (0, -1))
    result, _ = compare(client, Program("forgetful", FORGETFUL.source), made, tmp_path)
    assert first != last and (result.answer, result.branches[0].answer) == (first, last)
    # What it thought and said when it said so.
    assert result.text == f"{PROBE}{first}}}" and result.reasoning.count("\n\n") == 1


def play(monkeypatch, module, program: Program) -> None:
    """Puts another controller into an exported file."""
    names = program.load()
    monkeypatch.setattr(module, "controller", lambda: module.Controller(names["schedule"], names["solve"]))


def test_a_rule_of_ones_own(client, plain, chains):
    with serve(chains, plain) as server:
        result = client(plain, server, read=lambda text: "all the same" if "Now" in text else None)
        assert result.answer == "all the same" and result.text.startswith("Now")
        (alone,) = client(plain, server, beta=0).branches
    assert alone.tokens == result.branches[0].tokens and alone.answer != "all the same"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("await ep.finish([3])", "unknown branch id 3"),
        ("await ep.branch(-1)", "a negative count"),
        ("a = await ep.branch(1)\nawait ep.together(ep.extend(a), ep.finish(a))", "only once in a round"),
        ("await ep.together(ep.note('x'))", "takes branch, sample"),
        ("await ep.branch(1, True, 1)", "only arm 0"),
        ("await ep.extend(await ep.branch(2), [1])", "1 segment counts for 2 branches"),
        ("return 5", "which no branch said"),
    ],
)
def test_misuse(client, plain, chains, monkeypatch, body, message):
    play(monkeypatch, plain, written("wrong", body))
    with serve(chains, plain) as server, pytest.raises(plain.ControllerError, match=message):
        client(plain, server)


def test_a_server_that_is_down_breaks_off_or_is_another(client, plain, chains):
    with serve(chains, plain) as server:
        server.faults += [cut_after(0)] * 99
        with pytest.raises(plain.ServerError, match=rf"the server {server.url} breaks off time and again: "):
            client(plain, server, beta=0)
        server.faults[:] = [lambda handler, ids: handler.send({"error": {"message": "no sk-secret"}}, 404)]
        with pytest.raises(plain.ServerError, match=r"refuses a request \(HTTP 404\).*\[key\]") as caught:
            client(plain, server, beta=0)
        assert "sk-secret" not in str(caught.value)
        server.context = 30
        with pytest.raises(plain.ServerError, match="too many for a context of 30"):
            client(plain, server, beta=0)
    nobody = SimpleNamespace(url=f"http://127.0.0.1:{free_port()}")
    message = rf"no connection to the server {nobody.url}: .*is up"
    with pytest.raises(plain.ServerError, match=message) as caught:
        client(plain, nobody, retries=0)
    assert len(str(caught.value).splitlines()) == 1


def test_a_branch_as_long_as_it_may_be(client, plain, chains, monkeypatch):
    monkeypatch.setattr(plain, "SETTINGS", replace(plain.SETTINGS, max_tokens=20))
    with serve(chains, plain) as server:
        (branch,) = client(plain, server, beta=0).branches
    assert (branch.done, branch.depth, branch.tokens, branch.answer) == ("length", 2, 20, None)


def test_usage_is_what_was_sent(client, plain, chains, monkeypatch):
    play(monkeypatch, plain, shipped("parallel_probe"))
    with serve(chains, plain) as server:
        result = client(plain, server)
    usage = result.usage
    assert usage.requests == len(server.asked)
    assert usage.prompt_tokens == sum(len(body["prompt"]) for body in server.asked)
    # The server says so of every request, and no branch was left before its end.
    assert usage.cached_tokens == sum(len(body["prompt"]) // 2 for body in server.asked) and usage.seconds > 0


ASK = """
import runpy, sys
for room in ("autotts", "env", "collect", "controllers", "search_agent", "numpy"):
    sys.modules[room] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_process_that_has_openai_alone(plain, chains):
    """JSON lines: each gets its answer, a failure is told in its line."""
    with serve(chains, plain) as server:
        call = [sys.executable, "-I", "-c", ASK, plain.__file__, "--base-url", f"{server.url}/v1"]
        lines = [{"question": QUESTION, "id": 7}, {"question": "Another?"}]
        done = subprocess.run(
            [*call, "--model", "scripted"],
            input="\n".join(map(json.dumps, lines)),
            capture_output=True,
            text=True,
            timeout=120,
        )
    first, second = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1 and done.stderr == ""
    assert first.keys() == {"question", "id", "text", "answer"} and first["id"] == 7
    assert "no branch has this prefix" in second["error"]


def test_the_command_line(plain, chains, capsys, monkeypatch):
    monkeypatch.setattr(plain, "RETRIES", 0)
    with serve(chains, plain) as server:
        there = ["--base-url", f"{server.url}/v1", "--model", "scripted", "--beta", "1", QUESTION]
        assert plain.main(there) == 0
        text = capsys.readouterr().out
        assert plain.main(["--json", *there, "--base-url", server.url]) == 0
        told = json.loads(capsys.readouterr().out)
    assert told["text"] == text.removesuffix("\n") and told["answer"] in text
    assert told["usage"]["decoded_tokens"] >= told["spent"][0] > 0 and told["branches"]
    assert plain.main(there) == 2
    error = capsys.readouterr().err
    assert "there is no connection to the server" in error and len(error.splitlines()) == 1
    with pytest.raises(SystemExit):
        plain.main([*there, "--beta", "2"])
    assert "outside [0, 1]" in capsys.readouterr().err
    for line in ("What is 6 times 7?", '["What is 6 times 7?"]'):
        monkeypatch.setattr("sys.stdin", io.StringIO('{"question": "Why?"}\n\n' + line))
        assert plain.main(there[:-1]) == 2
        assert 'line 3 of standard input is not like {"question": "..."}' in capsys.readouterr().err
