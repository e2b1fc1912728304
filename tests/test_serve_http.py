"""What does not depend on the controller: the key, limits, errors, what is passed on, and how it ends."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("aiohttp", reason="`pip install 'autotts[serve]'` to test serving")

import openai
from chatting import ChatServer, server_for, serving
from streaming import MODEL, busy, nonsense, reset_before, running, unavailable

from autotts import main
from env.errors import UserError
from env.serve import relay
from env.serve.app import Limits, serve
from env.serve.request import Offer, read

KEY = "a key that nobody may see"
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
HELLO = [{"role": "user", "content": "hello"}]
CLIENT = openai.OpenAI(api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def upstream():
    with running(ChatServer()) as server:
        yield server


@pytest.fixture(scope="module")
def url(upstream):
    with serving(upstream.url, key=KEY, limits=Limits(requests=4, body=10_000, heartbeat=0.05)) as address:
        yield address


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(relay, "PAUSE", 0.01)


def client(url: str, key: str = KEY) -> openai.OpenAI:
    return CLIENT.with_options(base_url=url, api_key=key)


def ask(url: str, **fields):
    return client(url).chat.completions.create(**{"model": MODEL, "messages": HELLO} | fields)


def post(url: str, data: bytes, **headers: str) -> tuple[int, dict]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"} | headers
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_key_is_asked_for_and_never_told(upstream, url, capfd) -> None:
    for key in ("wrong", KEY + "x", KEY[:-1]):
        with pytest.raises(openai.AuthenticationError) as caught:
            client(url, key).models.list()
        assert caught.value.code == "invalid_api_key"
    assert len(list(client(url).models.list())) == 6
    ask(url)
    ask(url, tools=TOOLS)
    assert not [head for head in upstream.headers if KEY in head]
    assert KEY not in "".join(capfd.readouterr())


def test_errors_are_worded_as_openai_words_them(url) -> None:
    chat = f"{url}/chat/completions"
    body = json.dumps({"model": MODEL, "messages": HELLO}).encode()
    found = {
        "what is no JSON": post(chat, b"{"),
        "a form": post(chat, body, **{"Content-Type": "application/x-www-form-urlencoded"}),
        "too much": post(chat, b" " * 10_001),
        "what is not compressed": post(chat, body, **{"Content-Encoding": "gzip"}),
        "another path": post(f"{url}/embeddings", body),
        "another method": post(f"{url}/models", body),
        "another model": post(chat, body.replace(MODEL.encode(), b"other")),
    }
    assert {name: status for name, (status, _) in found.items()} == {
        "what is no JSON": 400,
        "a form": 415,
        "too much": 413,
        "what is not compressed": 400,
        "another path": 404,
        "another method": 405,
        "another model": 404,
    }
    for _, said in found.values():
        assert set(said["error"]) == {"message", "type", "param", "code"}
        assert said["error"]["type"] == "invalid_request_error"


def test_more_at_a_time_than_may_be_are_told_to_come_back(url) -> None:
    with running(ChatServer(seconds=0.05)) as slow, serving(slow.url, limits=Limits(requests=2)) as ours:
        with ThreadPoolExecutor(3) as several:
            tries = [several.submit(ask, ours) for _ in range(3)]
        failed = [error for each in tries if (error := each.exception())]
    (error,) = failed
    assert isinstance(error, openai.RateLimitError) and error.response.headers["Retry-After"] == "1"
    assert error.type == "rate_limit_exceeded"


def test_what_is_not_voted_on_is_passed_on_as_it_is(upstream, url) -> None:
    before = len(upstream.bodies)
    reply = ask(url, model=f"{MODEL}@0.25", tools=TOOLS, temperature=0.3, extra_body={"beta": 1, "new": [2]})
    assert upstream.chats[-1] == {
        "model": MODEL,
        "messages": HELLO,
        "tools": TOOLS,
        "temperature": 0.3,
        "new": [2],
        "max_tokens": 400,
    }
    assert reply.id == "up" and reply.choices[0].finish_reason == "tool_calls"
    assert reply.usage.total_tokens == 7 and len(upstream.bodies) == before
    events = list(ask(url, n=2, max_completion_tokens=9, stream=True))
    assert "".join(event.choices[0].delta.content for event in events) == "as is"
    assert upstream.chats[-1]["max_completion_tokens"] == 9 and "max_tokens" not in upstream.chats[-1]


def test_a_reply_that_comes_whole_may_take_longer_than_a_stream_may_be_silent() -> None:
    """A scripted server's time for a byte is 0.3 seconds."""
    with running(ChatServer(delay=0.5)) as slow, serving(slow.url) as url:
        assert ask(url, tools=TOOLS).id == "up" and len(slow.chats) == 1


def test_a_whole_reply_that_does_not_come_in_time_is_not_asked_for_again() -> None:
    with running(ChatServer(delay=1)) as slow, serving(slow.url, seconds_whole=0.2) as url:
        with pytest.raises(openai.InternalServerError, match="the upstream server failed: SocketTimeout"):
            ask(url, tools=TOOLS)
        assert len(slow.chats) == 1


@pytest.mark.parametrize(("context", "sent"), [(399, None), (400, None), (401, 400)])
def test_the_most_tokens_are_sent_along_only_where_the_context_holds_more(upstream, context, sent) -> None:
    async def run() -> None:
        offer = Offer(MODEL, 0.5, 400, 1)
        passing = relay.Relay([relay.Place(upstream.url, MODEL, context)], "none", offer, 5, 5)
        body = {"model": MODEL, "messages": HELLO, "tools": TOOLS}
        await passing.whole(read(json.dumps(body).encode(), offer))
        await passing.close()

    asyncio.run(run())
    assert upstream.chats[-1].get("max_tokens") == sent


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_upstream_server_refuses_of_a_vote_is_the_clients_to_mend(url, stream) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(url, temperature=13, stream=stream)
    assert caught.value.body["message"] == "13 is refused"


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_of_the_upstream_server_are_passed_on(url, stream) -> None:
    with pytest.raises(openai.BadRequestError, match="13 is refused") as caught:
        ask(url, tools=TOOLS, temperature=13, stream=stream)
    assert caught.value.param == "temperature"


@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_on_the_way_is_asked_for_again(stream) -> None:
    faults = busy, unavailable, reset_before, nonsense
    with running(ChatServer(faults, 1)) as faulty, serving(faulty.url) as url:
        replies = []

        def once():
            reply = ask(url, tools=TOOLS, stream=stream)
            replies.append("".join(e.choices[0].delta.content for e in reply) if stream else reply.id)

        asking = threading.Thread(target=once)
        asking.start()
        while sum(faulty.struck.values()) < len(faults):
            time.sleep(0.005)
        faulty.every = 10**9
        asking.join(10)
    assert replies == ["as is" if stream else "up"]
    assert len(faulty.chats) >= len(faults) + 1 and set(faulty.struck) == {each.__name__ for each in faults}


def test_a_stream_that_breaks_off_ends_with_an_error(upstream) -> None:
    async def broken(exchange):
        exchange.head(200, "text/event-stream", chunked=True)
        delta = {"index": 0, "finish_reason": None, "delta": {"content": "as"}}
        exchange.event({"id": "up", "object": "chat.completion.chunk", "choices": [delta]})
        await exchange.writer.drain()
        exchange.writer.transport.abort()

    with running(ChatServer((broken,), 1)) as faulty, serving(faulty.url) as url:
        said = []
        with pytest.raises(openai.APIError, match="the upstream server failed"):
            for event in ask(url, tools=TOOLS, stream=True):
                said.append(event.choices[0].delta.content)
    assert said == ["as"] and len(faulty.chats) == 1


def serve_until(signals: int, upstream: str) -> tuple[list, list[str]]:
    """Serve, a client in a thread, so many signals amid its chat: its outcome, and what was announced."""
    announced: list[str] = []
    outcome: list = []

    async def run() -> None:
        server, close = server_for(upstream)
        loop = asyncio.get_running_loop()

        def ask_and_stop(url: str) -> None:
            def chat() -> None:
                try:
                    outcome.append(ask(url).choices[0].message.content)
                except openai.OpenAIError as error:
                    outcome.append(error)

            asking = threading.Thread(target=chat)
            asking.start()
            time.sleep(0.4)
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.2)
            try:
                CLIENT.with_options(base_url=url).models.list()
            except openai.APIConnectionError:
                announced.append("nobody new is let in")
            asking.join(10)

        def announce(said: str) -> None:
            announced.append(said)
            if " http" in said:
                threads.append(loop.run_in_executor(None, ask_and_stop, said.split()[-1]))

        threads: list = []
        try:
            await serve(server, "127.0.0.1", 0, announce)
        finally:
            await asyncio.gather(*threads)
            await close()

    asyncio.run(run())
    return outcome, announced


@pytest.mark.parametrize("signals", [1, 2])
def test_a_signal_lets_replies_finish_and_a_second_does_not(signals) -> None:
    with running(ChatServer(seconds=0.06)) as slow:
        outcome, announced = serve_until(signals, slow.url)
    assert announced[0].startswith(f"{MODEL} is served at http://127.0.0.1:") and announced[1].startswith(
        "stopping"
    )
    assert announced[2] == "nobody new is let in"
    if signals == 1:
        assert outcome[0].endswith("Good day to you.")
    else:
        assert isinstance(outcome[0], openai.APIConnectionError)


def test_a_port_that_is_taken_is_an_error(url) -> None:
    server, close = server_for("http://127.0.0.1:9")
    port = int(url.split(":")[2].partition("/")[0])

    async def run() -> None:
        try:
            await serve(server, "127.0.0.1", port, print)
        finally:
            await close()

    with pytest.raises(UserError, match="cannot listen at"):
        asyncio.run(run())


def test_the_command_says_what_is_missing(monkeypatch, capsys) -> None:
    command = ["serve", "--controller", "self_consistency", "--beta", "0.5"]
    assert main(command) == 2
    assert "--upstream is missing" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert main([*command, "--upstream", "http://127.0.0.1:9"]) == 2
    assert "pip install 'autotts[serve]'" in capsys.readouterr().err
