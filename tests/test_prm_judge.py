"""A judge against a real server on a loopback socket."""

import math
import re

import pytest
from scripted_server import ScriptedServer, completion, failure, hang, reply, reset

from collect.prm.scorer import open_scorer
from env.errors import UserError

STEPS = ["One and one is two.", "Two and one is 4.", "So: 4."]
KEY = "sk-a-key-that-nobody-may-see"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def judge(server: ScriptedServer, **settings):
    return open_scorer("a-judge", "judge", {"base_url": server.url, **settings})


def last_step(request) -> str:
    """The step that a request is about."""
    return re.split(r"\n\n(?:Step \d+: )?", request["messages"][-1]["content"])[-2]


def with_logprobs(good: float, word: str = "good") -> dict:
    """A reply as OpenAI words it, with the probability of " Good" and "good" together."""
    top = {"good": good / 2, " Good": good / 2, "bad": (1 - good) * 0.9, "maybe": (1 - good) * 0.1}
    position = {
        "token": word,
        "logprob": math.log(top[word]),
        "bytes": None,
        "top_logprobs": [{"token": t, "logprob": math.log(p), "bytes": None} for t, p in top.items()],
    }
    end = {"token": ".", "logprob": -0.1, "bytes": None, "top_logprobs": []}
    body = completion(f"{word}.")
    body["choices"][0]["logprobs"] = {"content": [position, end], "refusal": None}
    return body


def by_step(handler, request) -> None:
    """Judges by the text alone: what is wrong has a 4 in it."""
    good = 0.1 if "4" in last_step(request) else 0.8
    reply(with_logprobs(good, "good" if good > 0.5 else "bad"))(handler, request)


def test_the_score_is_the_probability_of_the_good_word() -> None:
    with ScriptedServer(by_step) as server:
        scorer = judge(server)
        scores = scorer.score([("1 + 1 + 1?", STEPS), ("1 + 1 + 1?", []), ("1 + 1 + 1?", STEPS[:2])])
        scorer.close()
    low, high = 0.1 / (0.1 + 0.9 * 0.9), 0.8 / (0.8 + 0.2 * 0.9)
    assert scores[0] == pytest.approx([high, low, low]) and scores[1:] == [[], scores[0][:2]]
    assert len(server.requests) == 1 + 3, "one to check, and a beginning that two paths share once"
    assert (scorer.steps, scorer.unscored, scorer.tokens) == (5, 0, 3 * 120)
    assert (scorer.name, scorer.kind, scorer.context) == ("a-judge", "judge", None)
    asked = server.requests[-1]
    assert (asked["temperature"], asked["logprobs"], asked["top_logprobs"]) == (0, True, 20)
    assert server.headers[-1]["authorization"] == f"Bearer {KEY}"


def test_a_server_without_logprobs_is_read_by_its_word() -> None:
    def plain(handler, request):
        wrong = [name for name in ("temperature", "logprobs", "max_completion_tokens") if name in request]
        if wrong:
            return failure(400, f"`{wrong[0]}` is not supported with this model")(handler, request)
        word = "BAD" if "4" in last_step(request) else "That is good"
        return reply(completion(f"Let me see. Is it good or bad? {word}."))(handler, request)

    with ScriptedServer(plain) as server:
        scorer = judge(server, max_tokens=77)
        assert scorer.score([("1 + 1 + 1?", STEPS)]) == [[1.0, 0.0, 0.0]]
        scorer.close()
    assert server.requests[-1]["max_tokens"] == 77


def test_a_reply_without_a_verdict_and_a_path_too_long_are_counted() -> None:
    def reluctant(handler, request):
        if "So" in last_step(request):
            return failure(400, "This model's maximum context length is 9 tokens")(handler, request)
        return reply(completion("Hm." if "4" in last_step(request) else "good"))(handler, request)

    with ScriptedServer(reluctant) as server:
        scorer = judge(server)
        assert scorer.score([("1 + 1 + 1?", STEPS)]) == [[1.0, None, None]]
        scorer.close()
    assert (scorer.steps, scorer.unscored) == (3, 2)


def test_what_passes_is_tried_again() -> None:
    again = {"retry_after": "0.01"}
    failures = [failure(429, "slow down", **again), failure(503, "busy", **again), reset]
    with ScriptedServer(completion("good"), *failures, completion("bad")) as server:
        scorer = judge(server, concurrency=1)
        assert scorer.score([("q", ["s"])]) == [[0.0]]
        scorer.close()
    assert len(server.requests) == 5


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (failure(401, f"Incorrect API key provided: {KEY}"), r"the key was refused.*\[key\]"),
        (failure(404, "The model `a-judge` does not exist"), "no such model.*does not exist"),
        (failure(400, "messages are malformed"), "the request failed: .*malformed"),
        (reply("<html>a proxy's page</html>", kind="text/html"), "no usable reply"),
        (completion("I cannot say."), "does not say good or bad of a known step"),
    ],
)
def test_what_does_not_pass_is_one_clear_error(answer, message) -> None:
    with ScriptedServer(answer) as server, pytest.raises(UserError, match=message) as caught:
        judge(server)
    assert KEY not in str(caught.value)


def test_a_server_that_dies_ends_the_scoring() -> None:
    with ScriptedServer(completion("good"), failure(401, "The key has expired")) as server:
        scorer = judge(server, concurrency=2)
        with pytest.raises(UserError, match=r"expired.*same command again"):
            scorer.score([("q", [f"step {number}" for number in range(200)])])
        scorer.close()
    assert len(server.requests) < 20, "the rest is not asked"


def test_a_request_that_hangs_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr("collect.prm.judge.RETRIES", 0)
    with ScriptedServer(hang(0.6)) as server, pytest.raises(UserError, match=r"no usable reply: .*timed out"):
        judge(server, timeout=0.2)


def test_a_key_or_a_server_is_needed(monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="set OPENAI_API_KEY"):
        open_scorer("a-judge", "judge")
    with ScriptedServer(completion("good")) as server:
        judge(server).close()
    assert server.headers[0]["authorization"] == "Bearer none"


def test_what_a_judge_cannot_take() -> None:
    with pytest.raises(UserError, match="--prm-window"):
        open_scorer("a-judge", "judge", window=100)
    with pytest.raises(UserError, match="unexpected keyword argument 'dtype'"):
        open_scorer("a-judge", "judge", {"dtype": "float32"})
