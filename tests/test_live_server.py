"""Live episodes at a server that streams from a script, over real sockets, whatever happens on the way."""

import asyncio
import json
import logging
from collections import Counter
from dataclasses import replace

import pytest

from collect.commands.live import show
from collect.live import calls
from collect.live.memory import Room
from collect.plan import Arm
from collect.prompts import Prompting
from env.errors import UserError
from env.live.bench import Bench, Question
from env.live.folder import CallLog, RunFolder
from env.live.player import Player
from env.live.report import About, figures
from env.live.run import play_all
from env.program import Program
from env.tasks import load_task
from tests.programs import shipped, written
from tests.streaming import (
    ASK,
    END,
    FAULTS,
    MODEL,
    PLAN,
    StreamingServer,
    busy,
    late,
    reset_before,
    running,
    script,
    scripted_model,
)

QUESTIONS = [Question(f"What is {n}?", str(n % 3)) for n in range(5)]
SECRET = "sk-only-the-server-may-know"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(calls, "PAUSE", 0.002)
    monkeypatch.setenv("VLLM_API_KEY", SECRET)


def trusted(program: Program) -> Program:
    return Program(program.name, program.source, trusted=True)


# Branches that wait for each other, a probe on the way, one that is given up and one that is left.
MIXED = trusted(
    written(
        "mixed",
        """
ids = await ep.branch(5)
for _ in range(3):
    await ep.extend(ids[:2])
ep.prune(ids[4:])
await ep.finish(ids[:3])
return max(set(codes := [ep.answer[i] for i in ids[:3]]), key=codes.count)
""",
    )
)


def play(url, program, questions=QUESTIONS, beta=0.5, settings=None, **options):
    """All questions at once; what came of each, and its episode."""

    async def run():
        model, player = scripted_model(url, **options), Player(program, beta, settings)
        bench = Bench(model, player, load_task("exact"), 7)
        episodes = [bench.episode(question, 0) for question in questions]
        try:
            played = await asyncio.gather(*(player.play(episode) for episode in episodes))
        finally:
            await model.close()
            player.close()
        return played, episodes

    return asyncio.run(run())


def outcomes(played) -> list[tuple]:
    return [(each.answer, each.correct, each.ledger, each.rounds, each.error) for each in played]


def test_an_episode_is_what_the_model_says():
    with running(StreamingServer(tokens_an_event=8)) as server:
        played, episodes = play(
            server.url, shipped("self_consistency"), settings={"max_branches": 6}, confidence=False
        )
        assert len(server.bodies) == server.finished == 6 * len(QUESTIONS)
    assert {each.error for each in played} == {""} and {each.granted for each in played} == {6}
    for question, each, episode in zip(QUESTIONS, played, episodes, strict=True):
        asked = [body for body in server.bodies if body["prompt"] == [*map(ord, question.text), ASK]]
        said = [script(body["prompt"][:-1], 65 + body["seed"] % 20) for body in asked]
        assert each.ledger.decode == sum(map(len, said)) and each.usage.requests == 6
        votes = Counter("".join(map(chr, ids))[-3] for ids in said)
        assert each.correct == (votes.most_common(1)[0][0] == question.gold) or len(set(votes.values())) == 1
        assert episode.branches[episode.winner].path.text() in ["".join(map(chr, i[:-1])) for i in said]
    body = server.bodies[0]
    assert body["logprobs"] is None and body["stop_token_ids"] == [END] and body["ignore_eos"]
    assert f"authorization: bearer {SECRET}" in server.headers[0].lower()


def test_nothing_is_lost_or_counted_twice():
    """Resets before and amid a reply, halves of bodies, bursts of 429 and 503, aborted and empty samples."""
    with running(StreamingServer(tokens_an_event=4)) as server:
        expected, _ = play(server.url, MIXED, run_ahead=40)
    with running(StreamingServer(FAULTS, every=2, tokens_an_event=4)) as server:
        found, _ = play(server.url, MIXED, run_ahead=40)
    assert outcomes(found) == outcomes(expected) and {each.error for each in found} == {""}
    assert set(server.struck) == {fault.__name__ for fault in FAULTS} and sum(server.struck.values()) > 30
    retries = sum(each.usage.retries for each in found)
    # A line that was given up need not be mended.
    assert 0.8 * sum(server.struck.values()) <= retries <= sum(server.struck.values())


def test_what_is_silent_for_too_long_is_asked_again():
    with running(StreamingServer((late,), every=6)) as server:
        found, _ = play(server.url, shipped("self_consistency"), QUESTIONS[:3], seconds=0.2)
    assert server.struck["late"] > 1 and {each.error for each in found} == {""}
    assert sum(each.usage.retries for each in found) == server.struck["late"]


def test_a_branch_that_is_held_back_stops_and_goes_on_from_its_exact_prefix():
    holds = trusted(
        written("holds", "a, b = await ep.branch(2, probe=False)\nawait ep.finish([a])\nawait ep.finish([b])")
    )
    with running(StreamingServer(seconds=0.002)) as server:
        (found,), _ = play(server.url, holds, QUESTIONS[4:5], run_ahead=8)
        (free,), _ = play(server.url, holds, QUESTIONS[4:5], run_ahead=10**6)
    assert found.ledger == free.ledger and found.usage.requests == 3 and free.usage.requests == 2
    assert 8 < found.usage.run_ahead < free.usage.run_ahead and found.usage.cancelled == 0
    third, prompt = server.bodies[2], [*map(ord, QUESTIONS[4].text), ASK]
    said = third["prompt"][len(prompt) :]
    begun = next(body for body in server.bodies[:2] if 65 + body["seed"] % 20 == said[0])
    assert said == script(prompt[:-1], said[0])[: len(said)]
    assert third["seed"] != begun["seed"] and third["max_tokens"] == begun["max_tokens"] - len(said)
    assert found.usage.recomputed == len(third["prompt"]) % 16 or found.usage.recomputed == 0


def test_a_branch_that_is_held_back_with_its_last_token_has_ended():
    holds = trusted(
        written("holds", "a, b = await ep.branch(2, probe=False)\nawait ep.finish([a])\nawait ep.finish([b])")
    )
    with running(StreamingServer(seconds=0.002)) as server:
        (free,), (episode,) = play(server.url, holds, QUESTIONS[4:5], run_ahead=10**6)
        path = episode.branches[1].path
        (found,), _ = play(server.url, holds, QUESTIONS[4:5], run_ahead=len(path.ids) - path._cuts[0] - 1)
        assert all(END not in body["prompt"] for body in server.bodies)
    assert outcomes([found]) == outcomes([free]) and not found.error


def test_what_is_given_up_is_cancelled_at_once():
    prunes = trusted(
        written(
            "prunes", "ids = await ep.branch(4, probe=False)\nep.prune(ids[1:])\nawait ep.finish(ids[:1])"
        )
    )
    with running(StreamingServer(seconds=0.004)) as server:
        (found,), _ = play(server.url, prunes, QUESTIONS[:1], run_ahead=10**6)
        assert server.finished == 1 and len(server.bodies) == 4
    assert 0 < found.usage.cancelled < 200 and found.usage.requests == 4
    left = trusted(written("leaves", "await ep.branch(4, probe=False)"))
    with running(StreamingServer(seconds=0.004)) as server:
        (found,), _ = play(server.url, left, QUESTIONS[:1], run_ahead=10**6)
        assert server.finished == 0 and found.error == ""


def test_confidence_is_asked_for_only_where_it_is_read():
    reads = trusted(
        written(
            "reads",
            "(a,) = await ep.branch(1)\nif ep.confidence[a]: await ep.finish([a])\nreturn ep.answer[a]",
        )
    )
    with running(StreamingServer()) as server:
        (found,), (episode,) = play(server.url, reads, QUESTIONS[:1], confidence=True)
        assert server.bodies[0]["logprobs"] == 2 and not found.error
        _, (silent,) = play(server.url, reads, QUESTIONS[:1], confidence=False)
        assert server.bodies[-1]["logprobs"] is None
    first = script([*map(ord, QUESTIONS[0].text)], 65 + server.bodies[0]["seed"] % 20)
    cut = episode.branches[0].path._cuts[0]
    expected = sum((1 + token / 64) / 2 for token in first[:cut][-8:]) / min(8, cut)
    assert episode.log[0][2].confidence[0] == pytest.approx(expected, 1e-6)
    assert silent.log[0][2].confidence is None


def test_a_context_that_is_too_short_is_the_outcome_of_that_episode():
    plan = replace(PLAN, arms=(Arm(MODEL, Prompting("{question}" + chr(ASK))),))
    questions = [QUESTIONS[0], Question("x" * 4090), QUESTIONS[1], Question("y" * 3900)]
    with running(StreamingServer()) as server:
        found, _ = play(
            server.url, shipped("self_consistency"), questions, plan=plan, settings={"max_branches": 2}
        )
    assert [each.model_failed for each in found] == [False, True, False, False]
    assert "leaves no room in the model's context" in found[1].error
    assert max(len(body["prompt"]) + body["max_tokens"] for body in server.bodies) <= 4096 - 12


def run_on(url, folder, concurrency=4, questions=QUESTIONS, seeds=(0, 1), stop_after=None):
    """A run in a folder; `stop_after` so many episodes it is broken off."""

    async def run():
        log = CallLog(folder.path)
        model, player = scripted_model(url, log=log), Player(MIXED, 0.5)
        bench = Bench(model, player, load_task("exact"), 7)
        task = asyncio.current_task()

        def progress(done, total):
            if done == stop_after:
                task.cancel()

        try:
            return await play_all(bench, questions, seeds, concurrency, folder, progress)
        finally:
            await model.close()
            log.close()

    return asyncio.run(run())


def plain(rows):
    return [{name: row[name] for name in row if name not in ("seconds", "usage")} for row in rows]


def test_a_run_that_was_broken_off_goes_on_where_it_was(tmp_path):
    with running(StreamingServer(tokens_an_event=8)) as server:
        expected = run_on(server.url, RunFolder(tmp_path / "a", {"beta": 0.5}))
        folder = RunFolder(tmp_path / "b", {"beta": 0.5})
        with pytest.raises(asyncio.CancelledError):
            run_on(server.url, folder, stop_after=4)
        done = folder.finished(4)
        assert 4 <= len(done) < 9
        asked = len(server.bodies)
        rows = run_on(server.url, RunFolder(tmp_path / "b", {"beta": 0.5}))
        assert plain(rows) == plain(expected) and len(rows) == 10
        prompts = {"".join(map(chr, body["prompt"])).split(chr(ASK))[0] for body in server.bodies[asked:]}
        assert prompts == {q.text for q in QUESTIONS if not all((q.name, seed) in done for seed in (0, 1))}
        again = len(server.bodies)
        assert run_on(server.url, folder) == rows and len(server.bodies) == again
    with pytest.raises(UserError, match="a run with another beta; give the same command"):
        RunFolder(tmp_path / "b", {"beta": 1.0})
    with folder.locked(), pytest.raises(UserError, match="another process is at work"), folder.locked():
        pass


def test_a_server_that_goes_away_is_an_outcome_and_is_asked_again_the_next_time(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "RETRIES", 2)
    folder = RunFolder(tmp_path, {})
    with running(StreamingServer((reset_before,), every=10**9, tokens_an_event=8)) as server:
        fine = run_on(server.url, RunFolder(tmp_path / "fine", {}), seeds=[0])
        server.every = 2
        server.faults = (reset_before, busy)
        rows = run_on(server.url, folder, seeds=[0])
        failed = [row for row in rows if row["model_failed"]]
        assert failed and len(rows) == 5 and len(folder.finished(4)) == 5 - len(failed)
        assert all(
            "no connection to the server" in row["error"] or "HTTP 429" in row["error"] for row in failed
        )
        assert not any(row["correct"] for row in failed)
        server.faults = ()
        assert plain(run_on(server.url, folder, seeds=[0])) == plain(fine)
    table = figures(rows, About(MODEL, "made-up", "mixed", 0.5, "{}", ""))
    assert table["model_failures"] == table["errors"] == len(failed) and "ModelError" in table["error"]


def test_every_call_is_written_down_and_no_key(tmp_path):
    folder = RunFolder(tmp_path, {})
    with running(StreamingServer(FAULTS, every=4, tokens_an_event=8)) as server:
        rows = run_on(server.url, folder)
    text = (tmp_path / "calls.jsonl").read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    assert SECRET not in text and QUESTIONS[0].text not in text and max(map(len, text.splitlines())) < 1000
    # A call that was given up before it had a connection never got there.
    assert len(server.bodies) <= len(entries) <= len(server.bodies) + 20
    assert {entry["call"] for entry in entries} == {"branch", "probe"}
    outcomes = Counter(entry["outcome"].split(":")[0] for entry in entries)
    assert {"stop", "error"} <= set(outcomes) <= {"stop", "cancelled", "error"}
    assert outcomes["error"] >= sum(row["usage"]["retries"] for row in rows)
    by_problem = Counter(entry["problem"] for entry in entries if entry["decoded"])
    for row in rows:
        assert row["usage"]["requests"] > 0 and by_problem[row["problem"]] > 0
    assert sum(by_problem.values()) == sum(row["usage"]["requests"] for row in rows)


def test_the_log_of_calls_does_not_grow_without_end(tmp_path, monkeypatch):
    from env.live import folder as module

    monkeypatch.setattr(module, "CALLS_BYTES", 2000)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    log = CallLog(tmp_path)
    for number in range(300):
        log.write(call="branch", number=number, seconds=0.1234567)
    log.close()
    kept = sorted(tmp_path.glob("calls.jsonl*"))
    assert len(kept) == 4 and sum(file.stat().st_size for file in kept) <= 8000
    last = json.loads((tmp_path / "calls.jsonl").read_text().splitlines()[-1])
    assert last["number"] == 299 and last["seconds"] == 0.123457


def test_figures_have_intervals_over_problems(capsys):
    usage = dict.fromkeys(
        ("requests", "retries", "prompt", "cached", "recomputed", "run_ahead", "cancelled"), 2
    )
    rows = [
        {
            "problem": f"p{n}",
            "seed": seed,
            "correct": n < 5,
            "answer": 0,
            **dict.fromkeys(("decode", "tokens", "sequential"), 100 * n),
            **dict.fromkeys(("probe", "prm", "rounds", "asked", "granted"), 1),
            "seconds": float(n + seed),
            "usage": usage,
            "error": "",
            "model_failed": n == 9,
        }
        for n in range(10)
        for seed in (0, 1)
    ]
    found = figures(rows, About("m", "d", "c", 0.5, "{}", "A"))
    assert found["accuracy"] == 0.5 and found["accuracy_ci"][0] < 0.5 < found["accuracy_ci"][1]
    assert found["p50"] == 4.5 and found["p95"] == pytest.approx(8.15) and found["usage"]["run_ahead"] == 2
    assert 1 <= found["p50_ci"][0] < 4.5 < found["p50_ci"][1] <= 8 < found["p95_ci"][1] <= 9
    assert found["model_failures"] == 2 and found["isolation"] == "strict"
    show([{"concurrency": 8, **found}])
    assert "50.0% [20, 80]" in capsys.readouterr().out


def test_the_cache_bounds_the_problems_in_flight():
    room = Room(64, 17_000, 2 * 36 * 8 * 128 * 2, None)
    assert room.lines()[0] == "key-value cache: 64 branches of 17,000 tokens take 1,088,000 tokens, 149.4 GiB"
    assert room.episodes == 16 and Room(8, 100, None, 3200).episodes == 4
    assert Room(8, 100, None, 10**9).episodes == 64
    (_, told, warning) = Room(8, 100, None, 500).lines()
    assert told.endswith("1 problems at a time") and warning.startswith("warning: not even one")


def test_servers_share_the_episodes_that_come_at_once():
    with running(StreamingServer()) as one, running(StreamingServer()) as other:

        async def run():
            model = scripted_model(one.url, other.url)
            bench = Bench(model, Player(shipped("self_consistency"), 0), load_task("exact"))
            questions = [Question(f"What is {n}?", "1") for n in range(12)]
            await asyncio.gather(*(bench.play(question, 0) for question in questions))
            (arm,) = model.arms
            assert [place.sessions for place in arm.places] == [0, 0]
            await model.close()

        asyncio.run(run())
        assert len(one.bodies) == len(other.bodies) > 0


def test_a_server_tells_its_memory():
    async def ask(url):
        model = scripted_model(url)
        (place,) = model.arms[0].places
        told = await place.capacity(), await place.preemptions()
        await model.close()
        return told

    with running(StreamingServer()) as server:
        assert asyncio.run(ask(server.url)) == (150 * 16, 3)
