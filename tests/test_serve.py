"""Replies that a controller finds, over real sockets, to the unmodified openai package."""

import json
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("aiohttp", reason="`pip install 'autotts[serve]'` to test serving")

import openai
from chatting import ChatServer, serving
from programs import isolated, written
from streaming import FAULTS, MODEL, running

from collect.live import calls
from collect.prompts import Prompting
from env.program import GRID
from env.serve.app import Limits

SYSTEM = {"role": "system", "content": "be brief"}


@pytest.fixture(scope="module")
def upstream():
    with running(ChatServer(tokens_an_event=4)) as server:
        yield server


@pytest.fixture(scope="module")
def url(upstream):
    with serving(upstream.url) as address:
        yield address


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(calls, "PAUSE", 0.01)


# Making one takes as long as many chats.
CLIENT = openai.OpenAI(api_key="none", max_retries=0)


def client(url: str) -> openai.OpenAI:
    return CLIENT.with_options(base_url=url)


def ask(url: str, said: str, model: str = MODEL, **options):
    messages = [SYSTEM, {"role": "user", "content": said}]
    reply = client(url).chat.completions.create(model=model, messages=messages, **options)
    return list(reply) if options.get("stream") else reply


def quiet(upstream: ChatServer) -> bool:
    """Whether nothing is under way there, soon."""
    deadline = time.monotonic() + 5
    while upstream.open and time.monotonic() < deadline:
        time.sleep(0.01)
    return not upstream.open


def text(reply) -> str:
    return reply.choices[0].message.content


def test_the_reply_is_the_winning_branch_and_usage_is_what_it_took(upstream, url) -> None:
    before = len(upstream.bodies)
    reply = ask(url, "what is it", seed=5, temperature=0.5, top_p=0.75, max_tokens=300)
    bodies = upstream.bodies[before:]
    (choice,), used = reply.choices, reply.usage
    assert choice.finish_reason == "stop" and choice.message.role == "assistant"
    assert choice.message.content == f"{used.autotts['answer']} is what I\n\nthink it is: " + (
        f"\\boxed{{{used.autotts['answer']}}}"
    )
    assert reply.model == MODEL and reply.object == "chat.completion" and reply.id.startswith("chatcmpl-")
    assert len(bodies) == used.autotts["branches"] == used.autotts["requests"] == 8
    assert len({body["seed"] for body in bodies}) == 8
    for body in bodies:
        assert "".join(map(chr, body["prompt"])).startswith("system: be brief\nuser: what is it\n")
        assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.5, 0.75, 300)
    assert used.prompt_tokens == sum(len(body["prompt"]) for body in bodies)
    assert used.completion_tokens == used.autotts["decode"] == 8 * len(choice.message.content + "$")
    assert used.total_tokens == used.prompt_tokens + used.completion_tokens
    assert used.prompt_tokens_details.cached_tokens == 8 * (len(bodies[0]["prompt"]) // 16 * 16)


def test_a_stream_says_the_same_after_heartbeats(upstream, url) -> None:
    whole = ask(url, "what is it", seed=5)
    upstream.seconds = 0.02
    try:
        body = {"model": MODEL, "messages": [SYSTEM, {"role": "user", "content": "what is it"}], "seed": 5}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        request = urllib.request.Request(
            f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            lines = response.read().decode().splitlines()
        assert lines[0] == ": nothing is decided yet" and lines[-2] == "data: [DONE]"
        events = ask(url, "what is it", seed=5, stream=True, stream_options={"include_usage": True})
    finally:
        upstream.seconds = 0
    said = [event.choices[0].delta.content or "" for event in events if event.choices]
    assert "".join(said) == text(whole) and events[0].choices[0].delta.role == "assistant"
    assert events[-2].choices[0].finish_reason == "stop"
    assert events[-1].usage.autotts["decode"] == whole.usage.autotts["decode"]
    assert len({event.id for event in events}) == 1
    assert all(event.usage is None for event in ask(url, "hello", stream=True))


def test_the_models_are_listed_each_with_its_betas(url) -> None:
    models = client(url).models
    assert [model.id for model in models.list()] == [MODEL, *(f"{MODEL}@{beta:g}" for beta in GRID)]
    assert models.retrieve(f"{MODEL}@0.3").id == f"{MODEL}@0.3"
    with pytest.raises(openai.NotFoundError):
        models.retrieve("other")


def test_beta_is_each_requests_own(url) -> None:
    assert ask(url, "what is it", f"{MODEL}@0").usage.autotts["branches"] == 1
    told = ask(url, "what is it", f"{MODEL}@0", extra_body={"beta": 0.25})
    assert told.usage.autotts["branches"] == 3 and told.usage.autotts["beta"] == 0.25
    assert told.model == f"{MODEL}@0"


def test_a_chat_with_nothing_to_vote_on_gets_a_single_branch(upstream, url) -> None:
    before = len(upstream.bodies)
    reply = ask(url, "hello there")
    assert text(reply).endswith("Good day to you.") and reply.choices[0].finish_reason == "stop"
    assert len(upstream.bodies) - before == 1
    assert reply.usage.autotts["branches"] == 1 and reply.usage.autotts["answer"] is None
    assert reply.usage.completion_tokens == len(text(reply)) + 1
    cut = ask(url, "hello there", max_tokens=5)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 5


def test_the_first_branch_to_end_without_an_answer_is_the_reply(upstream, url) -> None:
    reply = ask(url, "long story", seed=3)
    used = reply.usage
    assert text(reply).endswith("x" * 40) and used.autotts["answer"] is None
    assert used.autotts["branches"] == 8
    assert used.completion_tokens == used.autotts["decode"] + used.autotts["cancelled"]
    assert quiet(upstream)


def test_thinking_is_told_apart(url) -> None:
    message = ask(url, "think of it").choices[0].message
    assert message.content.startswith(" is what I") and "think>" not in message.content
    assert message.reasoning_content.endswith("let me\n\nsee")


def test_prompts_of_the_server_go_around_what_the_user_said_last(upstream) -> None:
    with serving(upstream.url, beta=0, prompting=Prompting("Q: {question}?", system="ours")) as url:
        messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}]
        messages.append({"role": "user", "content": "two"})
        client(url).chat.completions.create(model=MODEL, messages=messages)
        ask(url, "three")
    first, second = ("".join(map(chr, body["prompt"]))[:-1] for body in upstream.bodies[-2:])
    assert first == "system: ours\nuser: one\nassistant: 1\nuser: Q: two?\n"
    assert second == "system: be brief\nuser: Q: three?\n"


@isolated
def test_untrusted_controllers_share_a_process_at_any_beta(upstream) -> None:
    body = """
opened = await ep.branch(n)
return ep.answer[opened[-1]]
"""
    program = written("asks", body, '{"n": 1 + int(4 * beta)}', ", n")
    with serving(upstream.url, program=program) as url:
        with ThreadPoolExecutor(6) as several:
            replies = list(
                several.map(lambda beta: ask(url, "what is it", f"{MODEL}@{beta}"), [0, 0.5, 1] * 2)
            )
    assert [reply.usage.autotts["branches"] for reply in replies] == [1, 3, 5] * 2
    for reply in replies:
        # Nobody let a branch go on to its end: it closes with what it said when it was asked.
        assert text(reply)[1:] == " is what I\n\n\x03\\boxed{7}" and reply.usage.autotts["answer"] == "7"
        assert reply.usage.autotts["probe"] == 2 * reply.usage.autotts["branches"]


@isolated
@pytest.mark.parametrize(
    ("body", "told"),
    [("return 1 // 0", "ZeroDivisionError"), ("return -1", "opened no branch"), ("ep.x()", "AttributeError")],
)
def test_a_controller_that_fails_is_an_error_of_the_server(upstream, body, told) -> None:
    with serving(upstream.url, program=written("fails", body)) as url:
        with pytest.raises(openai.InternalServerError, match=told) as caught:
            ask(url, "what is it")
    assert caught.value.status_code == 500 and caught.value.code == "episode_failed"


@isolated
def test_without_an_answer_the_first_branch_that_ended_is_the_reply(upstream) -> None:
    program = written("shrugs", "await ep.finish(await ep.branch(2, probe=False))\nreturn -1")
    with serving(upstream.url, program=program) as url:
        reply = ask(url, "what is it")
    assert text(reply).endswith("}") and reply.usage.autotts["answer"] is None


@isolated
def test_an_answer_that_its_branch_has_changed_closes_the_reply(upstream) -> None:
    body = "a, b = await ep.branch(2)\nsaid = ep.answer[b]\nawait ep.finish([a, b])\nreturn said"
    with serving(upstream.url, program=written("forgetful", body)) as url:
        reply = ask(url, "what is it")
    assert reply.usage.autotts["answer"] == "7"
    assert text(reply)[1:-1].startswith(" is what I\n\nthink it is: \\boxed{")
    assert text(reply).endswith("}\x03\\boxed{7}")


def test_no_chat_is_lost_or_counted_twice_whatever_happens_on_the_way(upstream, url) -> None:
    def figures(address: str, seed: int):
        reply = ask(address, "what is it", seed=seed)
        used = reply.usage.autotts
        return text(reply), used["branches"], used["decode"], reply.usage.completion_tokens

    expected = [figures(url, seed) for seed in range(4)]
    with running(ChatServer(FAULTS, 3, tokens_an_event=4)) as faulty, serving(faulty.url) as address:
        with ThreadPoolExecutor(4) as several:
            found = list(several.map(lambda seed: figures(address, seed), range(4)))
    assert found == expected and len(faulty.struck) == len(FAULTS)


def test_fifty_clients_at_once(upstream, url) -> None:
    def one(number: int) -> str:
        stream = number % 2 == 0
        reply = ask(url, "what is it", f"{MODEL}@0", seed=number, stream=stream)
        return "".join(e.choices[0].delta.content or "" for e in reply) if stream else text(reply)

    with ThreadPoolExecutor(50) as several:
        assert all("is what I" in said for said in several.map(one, range(50)))


@pytest.mark.parametrize("stream", [False, True])
def test_work_for_a_client_that_leaves_is_given_up(stream) -> None:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "long"}], "stream": stream})
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    with running(ChatServer(seconds=0.1)) as slow, serving(slow.url) as url:
        port = int(url.split(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as leaving:
            leaving.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            while not slow.open:
                time.sleep(0.01)
            if stream:
                assert b"nothing is decided" in leaving.recv(1 << 12) + leaving.recv(1 << 12)
        assert quiet(slow) and not slow.finished


def test_a_chat_that_leaves_no_room_is_refused(url) -> None:
    with pytest.raises(openai.BadRequestError, match="leaves no room") as caught:
        ask(url, "x" * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_a_server_that_is_gone_is_an_error_of_the_gateway(monkeypatch) -> None:
    monkeypatch.setattr(calls, "RETRIES", 1)
    with serving("http://127.0.0.1:9", limits=Limits(heartbeat=5)) as url:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError, match="there is no connection") as caught:
                ask(url, "what is it", stream=stream)
            assert caught.value.status_code == 502
