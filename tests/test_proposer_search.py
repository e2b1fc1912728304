"""The proposers in a whole search, over a real socket, with a real child process."""

import json
import random
import shlex

import pytest
from scripted_server import ScriptedServer, completion, failure
from stub_bench import PROGRAM
from test_proposer_command import WRITE, needs_bubblewrap

import autotts
from env.store_writer import Nodes, StoreWriter

KEY = "sk-secret-0123456789"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Twelve problems of varying difficulty, sixteen branches of two segments each."""
    path = tmp_path_factory.mktemp("data") / "store"
    rng = random.Random(0)
    with StoreWriter(path, model="toy", dataset="sums", task="exact", segment_tokens=100) as writer:
        for problem in range(12):
            answers = [
                "1" if rng.random() < problem / 11 else rng.choice("23") for _ in range(16) for _ in range(2)
            ]
            parents = [node - 1 if node % 2 else -1 for node in range(32)]
            tokens = [rng.randrange(50, 100) if node % 2 else 100 for node in range(32)]
            nodes = Nodes(parents, tokens, answers, [True] * 32, end=[node % 2 for node in range(32)])
            writer.add_problem(f"question {problem}", "1", nodes)
    return path


def search(store, out, *options):
    words = ["search", str(store), "--out", str(out), "--seeds", "2", "--workers", "1", *options]
    assert autotts.main(words) == 0
    rounds = [json.loads(file.read_text()) for file in sorted(out.glob("rounds/*/round.json"))]
    calls = [json.loads(line) for line in (out / "usage.jsonl").read_text().splitlines()]
    return rounds, calls


def test_a_model_searches_and_its_key_is_nowhere_in_the_run(store, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    look = [("standings", {}), ("read_trace", {"round": 1, "store": "s1", "problem": "p01", "beta": 0.5})]
    script = [
        completion(calls=[("try_draft", {"source": PROGRAM})]),
        completion(
            calls=[
                (
                    "submit",
                    {"source": PROGRAM, "summary": f"Opens several. {KEY}", "hypothesis": "tokens up 900%"},
                )
            ]
        ),
        completion(calls=look),
        completion(None, message={"refusal": f"not with {KEY}"}),
        completion(
            "```python\n" + PROGRAM.replace("7 * beta", "9 * beta") + "```\nParent: 1\n"
            "Hypothesis: tokens up 5% at beta 0.75; hypervolume holds within 0.5 because it opens more"
        ),
        failure(500, f"trouble with {KEY}"),
    ]
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)
    with ScriptedServer(*script) as server:
        options = ["--proposer", "openai", "--model", "m", "--base-url", server.url, "--rounds", "4"]
        rounds, calls = search(store, tmp_path / "run", *options)
    assert [(r["status"], r["parent"]) for r in rounds] == [
        ("evaluated", None),
        ("failed", None),
        ("evaluated", 1),
        ("failed", None),
    ]
    assert [call["round"] for call in calls] == [1, 1, 2, 2, 3, 4]
    verdicts = [rounds[0]["verdict"], rounds[2]["verdict"]]
    assert verdicts[0]["against"] in {path.name for path in (tmp_path / "run" / "baselines").iterdir()}
    assert verdicts[1]["against"] == "round 1"
    assert [claim["claim"] for claim in verdicts[1]["claims"]] == [
        "tokens up 5% at beta 0.75",
        "hypervolume holds within 0.5",
    ]
    assert verdicts[1]["claims"][0]["change"] == pytest.approx(1 / 3, abs=0.05)
    # Three feedback problems are too few to tell, and the model is told so.
    assert {verdict["outcome"] for verdict in verdicts} == {"cannot tell"}
    assert "Verdict: cannot tell, against round 1" in server.requests[-1]["messages"][0]["content"]
    assert rounds[0]["usage"]["calls"] == 2 and "refused" in rounds[1]["error"]
    assert [
        file for file in (tmp_path / "run").rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()
    ] == []
    assert KEY not in "".join(capfd.readouterr())


@needs_bubblewrap
def test_a_command_searches_and_does_not_see_the_store(store, tmp_path):
    run = tmp_path / "run"
    script = (
        f"ls -R {store} {run} /workspace 2>&1\n{WRITE}"
        + "test -d history/0001 && sed -i s/7/9/ controller.py"
    )
    options = ["--rounds", "2", "--allow-path", str(tmp_path.parent)]
    rounds, calls = search(store, run, "--command", f"sh -c {shlex.quote(script)}", *options)
    assert [(r["status"], r["proposer"], r["stamps"]) for r in rounds] == [("evaluated", "command", [])] * 2
    for call in calls:
        assert "PROMPT.md" in call["output"] and "store.json" not in call["output"]
        assert "run.json" not in call["output"] and "parquet" not in call["output"]
    assert "0001" in calls[1]["output"]
