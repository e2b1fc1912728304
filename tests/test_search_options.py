"""What a user can ask of a search: several proposers, bounds, and doing without."""

import json
import time

import pytest
from made_up import store as make_store
from scripted_server import ScriptedServer, completion, reply
from stub_bench import PROGRAM, arguments

import autotts
from env.errors import UserError
from search_agent import proposers
from search_agent.archive import Run

TUNABLE = PROGRAM.replace('{"n": 1 + round(7 * beta)}', '{"n": 1 + round(7 * beta), "share": 0.5}').replace(
    "\n\n\ndef schedule", '\n\nTUNABLE = {"share": (0.1, 0.9)}\n\n\ndef schedule', 1
)
TUNABLE = TUNABLE.replace("solve(ep, n)", "solve(ep, n, share)").replace(
    "finish(ids)", "finish(ids[: max(1, round(share * n))])"
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("stores") / "toy", problems=6, branches=12)


def search(*words):
    return autotts.main(["search", *map(str, words), "--seeds", "1", "--workers", "1"])


def lanes(*texts, common=()):
    args = arguments(*common)
    args.proposer = list(texts)
    return proposers.lanes(args)


def test_each_proposer_has_options_of_its_own(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    small, large, again, tune = lanes(
        "openai:model=small,no-tools",
        "openai:model=large,role=refine,max-turns=3",
        "openai:model=large",
        "tune",
        common=["--max-turns", "5", "--max-tokens", "1000"],
    )
    assert [lane.label for lane in (small, large, again, tune)] == [
        "openai small",
        "openai large",
        "openai large #2",
        "tune",
    ]
    assert [lane.role for lane in (small, large)] == ["explore", "refine"]
    assert [lane.quick for lane in (small, tune)] == [False, True]
    assert small.proposer.settings == {"model": "small", "base_url": None, "tools": False}
    assert small.estimate.calls == 1 and large.estimate.prompt_tokens == 500 and tune.estimate.calls == 0


def test_a_command_with_commas_is_quoted(monkeypatch):
    (lane,) = lanes("command:command=\"sh -c 'echo a, b'\",command-minutes=2")
    assert lane.proposer.settings["command"] == "sh -c 'echo a, b'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gpt-5", "no proposer 'gpt-5'"),
        ("openai:model", "expected one argument"),
        ("openai:temperature=1", "unrecognized arguments: temperature=1"),
        ("compose:model=x", "unrecognized arguments: model=x"),
        ("openai:command=x", "unrecognized arguments: command=x"),
        ("tune:role=king", "invalid choice: 'king'"),
        ('command:command="x', "No closing quotation"),
    ],
)
def test_what_is_wrong_with_a_proposer_is_one_clear_error(text, says):
    with pytest.raises(UserError, match=says) as caught:
        lanes(text)
    assert f"--proposer {text}: " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "bound", [("--minutes", "inf"), ("--max-cost", "nan"), ("--max-cost", "-1"), ("--max-total-tokens", "0")]
)
def test_a_bound_that_is_none_is_refused_whoever_proposes(store, tmp_path, capsys, bound):
    out = tmp_path / "run"
    assert search(store, "--proposer", "compose", "--out", out, *bound) == 2
    assert f"{' '.join(bound)}: expected a number above 0" in capsys.readouterr().err
    assert not out.exists()


def test_an_optimiser_alone_has_nothing_to_work_on():
    with pytest.raises(UserError, match="give a second --proposer"):
        lanes("tune")


def test_a_model_and_an_optimiser_work_on_one_archive(store, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    out = tmp_path / "run"
    answer = reply(completion(f"Some.\n```python\n{TUNABLE}```"))

    def slowly(handler, request):
        time.sleep(0.3)
        answer(handler, request)

    with ScriptedServer(slowly) as server:
        words = ["--proposer", "openai:model=m,no-tools", "--proposer", "tune"]
        assert search(store, "--out", out, "--base-url", server.url, "--rounds", 4, *words) == 0
    run = Run.open(out)
    records = run.rounds()
    assert len(records) == 4 and {record["proposer"] for record in records} == {"openai m", "tune"}
    assert records[0]["proposer"] == "openai m", "before that there was nothing to tune"
    for record in records:
        if record["proposer"] == "tune":
            assert 1 <= record["parent"] <= record["seen"]
            assert run.source(record["parent"]) != run.source(record["round"])
    assert run.config["proposer"]["name"] == "openai m + tune"


@pytest.mark.slow
def test_the_search_ends_on_a_plateau(store, tmp_path):
    out = tmp_path / "run"
    assert search(store, "--proposer", "compose", "--out", out, "--plateau", 2, "--rounds", 40) == 0
    areas = [
        record["selection"]["hypervolume"] if record["status"] == "evaluated" and record["monotone"] else -1
        for record in Run.open(out).rounds()
    ]
    assert 3 <= len(areas) < 40 and max(areas[-2:]) <= max(areas[:-2])


@pytest.mark.slow
def test_tokens_used_up_end_the_search_with_a_winner_and_were_warned_of(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    dear = completion(
        f"Some.\n```python\n{PROGRAM}```", usage={"prompt_tokens": 15000, "completion_tokens": 900}
    )
    with ScriptedServer(dear) as server:
        words = ["--proposer", "openai", "--model", "m", "--no-tools", "--base-url", server.url]
        out = tmp_path / "run"
        assert search(store, "--out", out, *words, "--rounds", 9, "--max-total-tokens", 20_000) == 0
    assert "--max-total-tokens 20000 leaves room for about 1 proposal" in capsys.readouterr().err
    run = Run.open(out)
    assert run.spent().calls == 1 == run.read("holdout.json")["winner"]


@pytest.mark.parametrize("what", ["beta", pytest.param("feedback", marks=pytest.mark.slow)])
def test_doing_without(store, tmp_path, what):
    out = tmp_path / "run"
    assert search(store, "--proposer", "compose", "--out", out, "--rounds", 2, "--ablate", what) == 0
    run = Run.open(out)
    assert run.config["ablated"] == [what]
    records = run.rounds()
    betas = {point["beta"] for record in records for point in record["feedback"]["points"]}
    assert betas == ({0.5} if what == "beta" else {0.0, 0.25, 0.5, 0.75, 1.0})
    assert [record["parent"] for record in records] == [None, None]
    assert run.read("holdout.json")["headline"]


@pytest.mark.slow
def test_without_feedback_a_model_is_told_nothing_of_other_rounds(store, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    replies = [completion(f"Some.\n```python\n{PROGRAM.replace('7', str(k))}```") for k in (3, 4)]
    with ScriptedServer(*replies) as server:
        words = ["--proposer", "openai", "--model", "m", "--no-tools", "--base-url", server.url]
        assert search(store, "--out", tmp_path / "run", *words, "--rounds", 2, "--ablate", "feedback") == 0
    prompts = [json.dumps(request["messages"]) for request in server.requests]
    assert all("round 1" not in prompt for prompt in prompts)
    assert len({prompt.replace(f"Round {k}", "Round") for k, prompt in enumerate(prompts, 1)}) == 1
