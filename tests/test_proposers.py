import json

import pytest
from scripted_server import ScriptedServer, completion
from stub_bench import HYPOTHESIS, PROGRAM, StubBench, arguments

from env.errors import UserError
from search_agent import proposers
from search_agent.proposers import timeline
from search_agent.proposers.briefing import standings
from search_agent.proposers.prices import Price, price_of
from search_agent.proposers.text import clean, cut, hide, program_in, said_in
from search_agent.proposers.tools import Toolbox
from search_agent.proposers.workspace import furnish

KEY = "sk-secret-0123456789"
SUBMIT = completion(calls=[("submit", {"source": PROGRAM, "summary": "Better."})])


@pytest.fixture
def no_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_MODEL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_environment")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs a model"),
        (["--model", "gpt-5"], "needs a key: set OPENAI_API_KEY"),
        (["--model", "m", "--base-url", "localhost:8000"], "expected a URL"),
        (["--model", "m", "--base-url", "http://me:pw@h/v1"], "leave user, password and query out"),
        (["--model", "m", "--base-url", "http://h/v1?key=pw"], "leave user, password and query out"),
        (["--model", "m", "--base-url", "http://h/v1", "--max-cost", "1"], "needs the price of m"),
        (["--model", "m", "--base-url", "http://h/v1", "--max-turns", "0"], "--max-turns 0"),
        (["--model", "m", "--base-url", "http://h/v1", "--max-cost", "nan"], "--max-cost nan"),
        (
            ["--model", "m", "--base-url", "http://h/v1", "--prices", "/nowhere"],
            "cannot read the price table",
        ),
    ],
)
def test_options_that_cannot_work_are_refused_before_the_first_call(words, said):
    with pytest.raises(UserError, match=said) as caught:
        proposers.make("openai", arguments(*words))
    assert "pw" not in str(caught.value).replace("pass", "")


@pytest.mark.usefixtures("no_environment")
def test_options_and_environment(monkeypatch):
    assert proposers.default(arguments()) == "compose"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert proposers.default(arguments()) == "compose"
    assert proposers.default(arguments("--model", "gpt-5")) == "openai"
    monkeypatch.setenv("MY_KEY", "k2-secret")
    monkeypatch.setenv("OPENAI_MODEL", "mine")
    with ScriptedServer(SUBMIT) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        proposer = proposers.make("openai", arguments("--api-key-env", "MY_KEY"))
        proposer.propose(StubBench())
    assert proposer.settings == {"model": "mine", "base_url": server.url, "tools": True}
    assert server.headers[0]["authorization"] == "Bearer k2-secret"
    assert server.requests[0]["model"] == "mine"
    assert not proposer.vouches("", {})


def test_prices(tmp_path):
    assert price_of("gpt-4.1-2025-04-14") == price_of("gpt-4.1") == Price(2.0, 0.5, 8.0)
    assert price_of("qwen") is None
    own = tmp_path / "prices.json"
    own.write_text('{"qwen": {"input": 1, "output": 2}, "gpt-5": {"input": 9, "cached": 8, "output": 7}}')
    assert price_of("qwen", own) == Price(1, 1, 2)
    assert price_of("gpt-5", own) == Price(9, 8, 7)
    for text in (
        "",
        "[]",
        '{"a": 1}',
        '{"a": {"input": 1}}',
        '{"a": {"input": -1, "output": 1}}',
        '{"a": {"input": NaN, "output": 1}}',
    ):
        own.write_text(text)
        with pytest.raises(UserError, match="is not a price table"):
            price_of("a", own)


def test_text_is_bounded_and_printable():
    assert clean("a\x00b\n\x1b[2J" + "x" * 100, 20) == "a\\x00b \\x1b[2Jxxxxx…"
    assert len(clean("\x00" * 1000, 50)) == 50
    assert cut("ab\ncd\nef", 6, "ask").startswith("ab\ncd\n[cut: ")
    assert hide("a secret-word, none", {"K": "secret-word", "L": "none"}) == "a [K], none"
    assert program_in("```\nasync def solve(ep): ...") is not None
    assert program_in("```bash\ndef solve\n```") is None
    prose = f"Good.\n**Parent:** round 2\n- Hypothesis: {HYPOTHESIS}`\n```\nParent: 1\n```\nYes."
    assert said_in(prose, [1, 2]) == ("Good. Yes.", 2, None, HYPOTHESIS)
    assert said_in("Parents: 3 and round 1\nBoth.", [1, 2, 3]) == ("Both.", 3, 1, "")
    assert said_in("Parents: 9, 1", [1]) == ("", 1, None, "")
    assert said_in("Parent: 9", [1]) == ("", None, None, "")
    assert said_in("\n" * 200_000 + "Parent: 1", [1]).parent == 1


def test_tool_answers_are_bounded():
    bench = StubBench()
    row = bench.results(1)[0]
    bench.results = lambda round: [
        {**row, "problem": f"p{i}", "error": "\x1b" * 500, "errors": 1} for i in range(999)
    ]
    end = bench.traces(1, store="s1", problem="p01", beta=0)[-1]
    long = [{"round": i, "actions": [], "notes": [f"{i}" + "n" * 500]} for i in range(999)]
    bench.traces = lambda *args, **kwargs: [*long, end]
    bench.read_controller = lambda round: "x\n" * 10**6
    bench.history = lambda: [{"round": i, "status": "failed", "error": "e" * 999} for i in range(1, 999)]
    box = Toolbox(bench)
    where = {"round": 1, "store": "s1", "problem": "p01", "beta": 0}
    for name, given in {
        "standings": {},
        "read_results": {"round": 1},
        "read_trace": where,
        "read_controller": {"which": "5"},
    }.items():
        answer = box.use(name, json.dumps(given))
        assert 1000 < len(answer) < 25_000 and "\x1b" not in answer
        assert ("lines left out]" if name == "read_trace" else "[cut: ") in answer


def test_a_dropped_round_teaches_as_well(tmp_path):
    bench = StubBench()
    (one, _) = bench.history()
    figures = one["feedback"] | {"hypervolume_by_store": [0.25, 0.5]}
    bench.history = lambda: [one | {"status": "dropped", "error": "not among the best", "feedback": figures}]
    told = standings(bench)
    assert "dropped: not among the best; hypervolume" in told and "(0.250, 0.500)" in told
    furnish(tmp_path, bench)
    assert (tmp_path / "history" / "0001" / "results.csv").exists()


def test_a_trace_is_told_in_short_lines():
    ids = list(range(6))
    many = {"do": "extend", "ids": ids, "depth": [2] * 6, "tokens": [100] * 6}
    many |= {"answer": [7, 7, None, -1, 7, 2], "done": [None, "stop", *[None] * 4], "prm": [[0.5, 0.25]] * 6}
    few = {"do": "fork", "from": 3, "ids": [6, 7], "depth": [2, 2], "tokens": [100, 50]}
    few |= {"answer": [None, 2], "done": [None, "stop"]}
    actions = [many, {"do": "prune", "ids": [4, 0, 2, 3]}, few, {"do": "score", "refused": True}]
    end = {"answer": None, "correct": False, "error": "boom", "spent": {"decode": 1}}
    assert timeline.lines([{"round": 1, "actions": actions, "notes": ["so"]}, end]) == [
        "answered None: wrong; error: boom; tokens: decode 1",
        "1: extend 0-5: +600, answers 7x3 -1x1 2x1, prm 0.250 to 0.250, ended 1; prune 0,2-4; "
        "fork 3 -> 6: +100, 7: +50 answer 2 (stop); score refused; note: so",
    ]


def test_rounds_alike_share_a_line():
    step = {"do": "extend", "ids": [2], "depth": [3], "tokens": [500], "answer": [5], "done": [None]}
    actions = [[step], [step], [step], [step | {"answer": [4]}], [step]]
    rounds = [{"round": i, "actions": action, "notes": []} for i, action in enumerate(actions, 7)]
    end = {"answer": 5, "correct": True, "error": "", "spent": {}}
    assert timeline.lines([*rounds, end])[1:] == [
        "7 to 9, each: extend 2: +500 answer 5",
        "10: extend 2: +500 answer 4",
        "11: extend 2: +500 answer 5",
    ]


def test_of_a_long_trace_the_middle_is_left_out():
    rounds = [{"round": i, "actions": [], "notes": [f"n{i}" * 9]} for i in range(1, 501)]
    end = {"answer": 1, "correct": True, "error": "", "spent": {}}
    told = timeline.text([*rounds, end]).splitlines()
    gap = next(k for k, line in enumerate(told) if "left out" in line)
    assert told[0].startswith("answered 1: right") and told[-1].startswith("500: ")
    assert int(told[gap].strip("[]").split()[0]) == 501 - (len(told) - 1)
    assert told[gap - 1].startswith(f"{gap - 1}: ") and 5000 < len("\n".join(told)) <= 6_100
    assert "left out" not in timeline.text([*rounds[:20], end])
