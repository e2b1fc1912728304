import json
import logging

import pytest
from scripted_server import ScriptedServer, completion, failure, half, hang, reply, reset
from stub_bench import HYPOTHESIS, PROGRAM, StubBench

from search_agent.feedback.packet import packet
from search_agent.proposal import ProposerError, Usage
from search_agent.proposers.meter import Limits, Meter
from search_agent.proposers.openai_agent import OpenAIProposer
from search_agent.proposers.prices import Price
from search_agent.proposers.tools import SPECS

KEY = "sk-secret-0123456789"
PRICE = Price(1.0, 0.1, 10.0)
HANDED_IN = {"source": PROGRAM, "summary": "Better.", "parent": 1}
SUBMIT = completion(calls=[("submit", {**HANDED_IN, "hypothesis": HYPOTHESIS})])
PROSE = completion(
    f"Stops early.\n\nParent: 1\n\n**Hypothesis:** {HYPOTHESIS}\n\n```python\n{PROGRAM}```\nDone."
)


def propose(server, bench=None, **options):
    bench = bench or StubBench(past=False)
    proposer = OpenAIProposer("m", KEY, server.url, **{"timeout": 5.0, "price": PRICE, **options})
    return proposer.propose(bench), bench


def failed(*script, **options):
    bench = StubBench(past=False)
    with ScriptedServer(*script) as server, pytest.raises(ProposerError) as caught:
        propose(server, bench, **options)
    assert KEY not in str(caught.value) + json.dumps(bench.calls)
    assert caught.value.usage.calls == len(bench.calls)
    return caught.value, bench, server


@pytest.fixture(autouse=True)
def no_wait_between_retries(monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)


def test_agent_reads_tries_and_submits():
    script = [
        completion(calls=[("standings", ""), ("read_controller", {"which": "self_consistency"})]),
        completion(calls=[("read_results", {"round": 1, "beta": 0.5}), ("read_controller", {"which": "1"})]),
        completion(calls=[("read_trace", {"round": "1", "store": "s1", "problem": "p02", "beta": 0.5})]),
        completion("Let me try.", calls=[("try_draft", {"source": PROGRAM}), ("feedback", {"round": 1})]),
        SUBMIT,
    ]
    with ScriptedServer(*script) as server:
        proposal, bench = propose(server, StubBench())
    assert (proposal.source, proposal.summary, proposal.parent) == (PROGRAM, "Better.", 1)
    assert str(proposal.hypothesis) == HYPOTHESIS and proposal.hypothesis.claims[0].by == 0.2
    assert proposal.usage == Usage(5, 500, 100, 0, pytest.approx(5 * (100 * 1 + 20 * 10) / 1e6))
    answers = [m["content"] for m in server.requests[-1]["messages"] if m["role"] == "tool"]
    assert "shipped self_consistency: hypervolume 0.5000" in answers[0]
    assert "2 episodes failed: ZeroDivisionError." in answers[0]
    assert "Self-consistency" in answers[1] and "Round one" in answers[3]
    assert answers[2].splitlines()[1].startswith("s1,0.5,p02,0.25,1234") and len(answers[2].splitlines()) == 3
    assert answers[4] == (
        "answered 0: right; tokens: decode 500, sequential 500\n1: branch 0: +500 answer 0; note: hello"
    )
    assert "it runs" in answers[5] and bench.drafts == [PROGRAM]
    assert answers[6].startswith("## Feedback on r1\n") and answers[6] == packet(StubBench())
    assert bench.calls[0] | {"seconds": 0, "at": ""} == {
        "at": "",
        "round": 3,
        "model": "m",
        "outcome": "ok",
        "seconds": 0,
        "retries": 0,
        "estimated": False,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cached_tokens": 0,
        "cost_usd": pytest.approx(0.0003),
    }
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.requests[0]["tools"] == SPECS
    prompt = server.requests[0]["messages"][0]["content"]
    assert (
        "# The controller API" in prompt
        and "p01, p02" in prompt
        and "round 2 (r2): failed: refused" in prompt
        and answers[6] in prompt
        and "so that not all go one way: build on round 1." in prompt
    )


@pytest.mark.parametrize(
    "trouble",
    [
        failure(429, "slow down", retry_after="0.01"),
        failure(500, "oops"),
        failure(503, "overloaded"),
        reset,
        half(SUBMIT),
    ],
    ids=["429", "500", "503", "reset", "half a body"],
)
def test_passing_trouble_is_retried(trouble):
    with ScriptedServer(trouble, trouble, SUBMIT) as server:
        proposal, bench = propose(server)
    assert proposal.source == PROGRAM
    assert len(server.requests) == 3
    assert [call["retries"] for call in bench.calls] == [2]


def test_retry_after_is_obeyed():
    with ScriptedServer(failure(429, "slow down", retry_after="0.4"), SUBMIT) as server:
        _, bench = propose(server)
    assert bench.calls[0]["seconds"] >= 0.4


def test_a_time_out_is_retried_and_then_ends_the_round():
    with ScriptedServer(hang(0.3), SUBMIT) as server:
        proposal, _ = propose(server, timeout=0.1)
    assert proposal.source == PROGRAM
    error, bench, _ = failed(hang(0.15), timeout=0.05)
    assert "no reply within 0.05 seconds" in str(error) and not error.fatal
    assert bench.calls[0]["outcome"] == "APITimeoutError" and bench.calls[0]["cost_usd"] > 0


@pytest.mark.parametrize(
    ("trouble", "outcome", "said", "fatal"),
    [
        (failure(429, "slow down"), "http 429", "slow down", False),
        (failure(500, "oops"), "http 500", "oops", False),
        (reset, "APIConnectionError", "is the server up", False),
        (failure(401, f"Incorrect API key provided: {KEY}"), "http 401", "the key was refused", True),
        (failure(402, "pay"), "http 402", "no credit", True),
        (failure(404, "The model does not exist"), "http 404", "no such model", True),
        (failure(429, "You exceeded your quota", "insufficient_quota"), "http 429", "quota", True),
        (failure(400, "bad \x1b[31mthing"), "http 400", "bad \\x1b[31mthing", False),
    ],
)
def test_lasting_trouble_is_recorded(trouble, outcome, said, fatal):
    error, bench, _ = failed(trouble)
    assert said in str(error) and error.fatal == fatal
    assert bench.calls[-1]["outcome"] == outcome


@pytest.mark.parametrize(
    "nonsense",
    [
        reply("<html>hello</html>", kind="text/html"),
        completion(None, choices=[]),
        completion(None, choices=None),
        completion(None),
        completion("", choices=[{"index": 0, "message": "hi", "finish_reason": "stop"}]),
        completion(None, message={"tool_calls": ["x", {"id": None, "type": "function", "function": None}]}),
        completion("I would rather talk about the weather."),
        completion("Here you are: ```print(1)```"),
    ],
)
def test_replies_without_a_program_are_answered_and_then_given_up(nonsense):
    error, bench, server = failed(nonsense)
    assert "3 replies in a row" in str(error) and not error.fatal
    assert len(bench.calls) == 3
    roles = [message["role"] for message in server.requests[-1]["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    with ScriptedServer(nonsense, nonsense, SUBMIT) as server:
        assert propose(server)[0].source == PROGRAM


def test_a_body_that_is_no_json_ends_the_round():
    error, _, _ = failed(reply('{"choices": [', kind="application/json"))
    assert "not a chat completion" in str(error)


def test_a_truncated_reply_is_told_so():
    whole = PROSE["choices"][0]["message"]["content"]
    with ScriptedServer(
        completion(whole, finish="length"), completion(None, finish="length"), SUBMIT
    ) as server:
        proposal, bench = propose(server)
    assert proposal.summary == "Better."
    assert [call["outcome"] for call in bench.calls] == ["cut", "cut", "ok"]
    assert "was cut off" in server.requests[1]["messages"][-1]["content"]


def test_truncated_and_malformed_tool_arguments_are_answered():
    script = [
        completion(calls=[("submit", '{"source": "def sol')], finish="length"),
        completion(calls=[("submit", {"source": PROGRAM}), ("dance", {}), ("read_results", {"round": "x"})]),
        completion(calls=[("read_trace", {"when": 2}), ("read_results", [1]), ("read_controller", '"')]),
        completion(calls=[("read_results", {"round": 2}), ("read_controller", {"which": "nobody"})]),
        completion(calls=[("read_results", {"round": 1, "store": "s9"}), ("try_draft", {"source": "x = 1"})]),
        completion(calls=[("submit", {"source": "import os\n" + PROGRAM, "summary": "s"})]),
        completion(calls=[("submit", {**HANDED_IN, "hypothesis": HYPOTHESIS, "parent": 77})]),
    ]
    with ScriptedServer(*script) as server:
        proposal, _ = propose(server, StubBench())
    assert proposal.parent is None
    messages = server.requests[-1]["messages"]
    answers = [m["content"] for m in messages if m["role"] == "tool"]
    assert len(answers) == 12 and all(answer.startswith("error: ") for answer in answers)
    assert "not valid JSON" in answers[0] and "cut off" in answers[0]
    assert "missing arguments ['summary']" in answers[1]
    assert "no tool 'dance'" in answers[2]
    assert "must be of type integer" in answers[3]
    assert "unknown arguments ['when']" in answers[4]
    assert "JSON object" in answers[5]
    assert "JSON" in answers[6] and "round 2 left no controller" in answers[7]
    assert "shipped are self_consistency" in answers[8]
    assert "stores are s1, betas are 0, 0.5, 1" in answers[9]
    assert answers[10] == "error: no solve\\x1b[31m"
    assert answers[11].startswith("error: not accepted")
    sent_back = [call["function"]["arguments"] for m in messages for call in m.get("tool_calls", [])]
    assert all(json.loads(arguments) is not None for arguments in sent_back)


@pytest.mark.parametrize("stated", [None, "it will be better", "tokens down 20% at beta 0.3"])
def test_a_program_without_a_hypothesis_is_sent_back_once(stated):
    without = completion(calls=[("submit", HANDED_IN | ({"hypothesis": stated} if stated else {}))])
    with ScriptedServer(without, SUBMIT) as server:
        proposal, _ = propose(server)
    assert str(proposal.hypothesis) == HYPOTHESIS
    answer = server.requests[1]["messages"][-1]["content"]
    assert answer.startswith("error: submit it again, with a hypothesis: ")
    assert "no beta 0.3" in answer or "the form is: <accuracy|tokens" in answer
    with ScriptedServer(without) as server:
        proposal, bench = propose(server, StubBench())
    assert len(bench.calls) == 2 and (proposal.source, proposal.parent) == (PROGRAM, 1)
    assert proposal.hypothesis is None if stated is None else str(proposal.hypothesis) == stated
    with ScriptedServer(without, failure(400, "no")) as server:
        proposal, _ = propose(server, StubBench())
    assert (proposal.source, proposal.parent) == (
        PROGRAM,
        1,
    ) and "Better. The conversation" in proposal.summary


def test_refusals_end_the_round():
    for script in (
        completion(None, message={"refusal": "I cannot help with that."}),
        completion("", finish="content_filter"),
    ):
        error, bench, _ = failed(script)
        assert "refused" in str(error) and bench.calls[0]["outcome"] == "refused"


def test_missing_usage_is_estimated():
    with ScriptedServer({**SUBMIT, "usage": None}) as server:
        proposal, bench = propose(server)
    assert bench.calls[0]["estimated"] and proposal.usage.prompt_tokens > 1000
    assert proposal.usage.completion_tokens > len(PROGRAM) // 4


def test_cached_tokens_are_billed_as_such():
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 900}}
    with ScriptedServer({**SUBMIT, "usage": usage}) as server:
        proposal, _ = propose(server)
    assert proposal.usage.cached_tokens == 900
    assert proposal.usage.cost_usd == pytest.approx((100 * 1 + 900 * 0.1 + 10 * 10) / 1e6)


@pytest.mark.parametrize(
    ("attempts", "status", "said"),
    [
        (1, 400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        (1, 404, "No endpoints found that support tool use"),
        (5, 500, "tools param requires --jinja flag"),
    ],
)
def test_a_server_without_tools_gets_one_prompt(attempts, status, said):
    with ScriptedServer(*[failure(status, said)] * attempts, PROSE) as server:
        proposal, bench = propose(server, StubBench())
    assert (proposal.source, proposal.summary, proposal.parent) == (PROGRAM, "Stops early. Done.", 1)
    assert str(proposal.hypothesis) == HYPOTHESIS
    request = server.requests[-1]
    assert "tools" not in request and len(request["messages"]) == 1
    prompt = request["messages"][0]["content"]
    for part in (
        "Program of round 1",
        "Shipped controller self_consistency",
        "Verdict: did not hold, against self_consistency",
        "## Episode: lost, outvoted (store=s1 problem=p02 beta=0.5",
    ):
        assert part in prompt
    assert bench.calls[-1]["outcome"] == "ok"


def test_no_tools_takes_the_last_program_of_the_reply():
    first, last = (f"```python\n{text}```\n" for text in (PROGRAM.replace("One", "Draft"), PROGRAM))
    text = f"First idea:\n{first}no:\n{last}```\nx = 1\n```"
    with ScriptedServer(completion(text)) as server:
        proposal, _ = propose(server, tools=False)
    assert proposal.source == PROGRAM and "tools" not in server.requests[0]


def test_a_refused_program_in_prose_is_sent_back():
    bad = completion("```python\nimport os\n" + PROGRAM + "```")
    with ScriptedServer(bad, PROSE) as server:
        proposal, _ = propose(server, tools=False)
    assert proposal.source == PROGRAM
    assert server.requests[1]["messages"][-1]["content"].startswith("error: not accepted")


def test_small_contexts_get_shorter_replies_then_shorter_prompts():
    too_long = failure(400, "This model's maximum context length is 4096 tokens")
    with ScriptedServer(*[too_long] * 7, PROSE) as server:
        propose(server, tools=False)
    limits = [request["max_completion_tokens"] for request in server.requests]
    prompts = [len(request["messages"][0]["content"]) for request in server.requests]
    assert limits == [16384, 8192, 4096, 2048, 1024, 1024, 1024, 1024]
    assert prompts[4] > prompts[-1] or prompts[4] < 24_000
    error, _, _ = failed(too_long, tools=False)
    assert "context is too small" in str(error) and error.fatal


def test_old_tool_answers_make_room():
    too_long = failure(400, "This model's maximum context length is 4096 tokens")
    look = completion(calls=[("read_controller", {"which": "1"})])
    with ScriptedServer(look, look, *[too_long] * 5, SUBMIT) as server:
        propose(server)
    answers = [m["content"] for m in server.requests[-1]["messages"] if m["role"] == "tool"]
    assert answers[0].startswith("[dropped") and "Round one" in answers[1]


def test_older_servers_get_max_tokens():
    with ScriptedServer(
        failure(422, "Extra inputs are not permitted: max_completion_tokens"), SUBMIT
    ) as server:
        propose(server)
    assert server.requests[1]["max_tokens"] == 16_384 and "max_completion_tokens" not in server.requests[1]


def test_what_a_server_adds_to_its_message_goes_back():
    look = completion(calls=[("standings", {})], message={"reasoning_content": "hm", "refusal": None})
    with ScriptedServer(look, SUBMIT) as server:
        propose(server)
    echo = server.requests[1]["messages"][1]
    assert echo["reasoning_content"] == "hm" and "refusal" not in echo


def test_turns_are_bounded_and_a_draft_that_ran_is_handed_in():
    look = completion(calls=[("standings", {})])
    error, bench, server = failed(look, limits=Limits(turns=4))
    assert "within 4 replies" in str(error) and len(bench.calls) == 4
    assert "[replies left: 1; submit now]" in server.requests[-1]["messages"][-1]["content"]
    draft = completion(calls=[("try_draft", {"source": PROGRAM})])
    with ScriptedServer(draft, look) as server:
        proposal, _ = propose(server, limits=Limits(turns=2))
    assert proposal.source == PROGRAM and proposal.usage.calls == 2 and "broke off" in proposal.summary
    with ScriptedServer(draft, failure(400, "no")) as server:
        assert propose(server)[0].source == PROGRAM


def test_tokens_are_bounded():
    expensive = completion(
        calls=[("standings", {})], usage={"prompt_tokens": 4000, "completion_tokens": 1000}
    )
    error, _, server = failed(expensive, limits=Limits(tokens=20_000))
    assert "20000 tokens are used up" in str(error) and not error.fatal
    assert error.usage.prompt_tokens + error.usage.completion_tokens <= 20_000
    assert [r["max_completion_tokens"] for r in server.requests][-1] < 16_384


def test_money_is_bounded_over_the_run():
    look = completion(calls=[("standings", {})])
    error, bench, _ = failed(look, limits=Limits(cost_usd=0.002))
    assert error.fatal and bench.calls == [] and "--max-cost" in str(error)
    bench = StubBench(Usage(9, 10**6, 10**5, 0, 1.95))
    with ScriptedServer(SUBMIT) as server:
        propose(server, bench, limits=Limits(cost_usd=2.0))
    assert 512 <= server.requests[0]["max_completion_tokens"] <= 5000
    with ScriptedServer(SUBMIT) as server, pytest.raises(ProposerError, match="used up"):
        propose(server, StubBench(Usage(9, 10**6, 10**5, 0, None)), limits=Limits(cost_usd=2.0))


def test_the_reply_limit_keeps_a_call_within_the_budget():
    meter = Meter(Limits(cost_usd=0.05), PRICE, Usage, lambda call: None)
    room = meter.room(1_000)
    assert PRICE.cost(1_000, room) <= 0.05 < PRICE.cost(1_000, room + 1)


def test_the_key_is_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    echo = completion(
        f"You sent {KEY}", calls=[("submit", {"source": f"# {KEY}\n{PROGRAM}", "summary": KEY})]
    )
    with ScriptedServer(failure(500, f"key {KEY}"), echo) as server:
        proposal, bench = propose(server)
    proposer = OpenAIProposer("m", KEY, server.url)
    everything = [proposal, bench.calls, caplog.text, server.requests, repr(proposer), proposer.settings]
    assert KEY not in repr(everything)
    assert "[key]" in proposal.source
    assert KEY in server.headers[0]["authorization"]
