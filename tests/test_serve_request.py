"""What a client may ask for, and how it is told that something makes no sense."""

import json

import pytest

pytest.importorskip("aiohttp", reason="`pip install 'autotts[serve]'` to test serving")

from env.serve.errors import ApiError
from env.serve.request import Offer, beta_of, read

OFFER = Offer("org/model", 0.5, 1000, 8)
HELLO = [{"role": "user", "content": "hello"}]


def ask(**fields):
    body = {"model": "org/model", "messages": HELLO} | fields
    return read(json.dumps(body).encode(), OFFER)


def test_a_plain_chat_is_voted_on_as_the_server_says() -> None:
    chat = ask()
    assert chat.votes and not chat.stream and chat.beta == 0.5
    assert chat.messages == [("user", "hello")] and chat.question == "hello"
    assert chat.sampling == {} and chat.max_tokens is None and chat.seed is None


def test_beta_is_taken_from_the_name_and_rather_from_the_field() -> None:
    assert ask(model="org/model@0.25").beta == 0.25
    assert ask(model="org/model@0.25", beta=0).beta == 0
    assert ask(beta=1).beta == 1


@pytest.mark.parametrize(
    "name", ["other", "org/model@2", "org/model@", "org/model@nan", "@0.5", "org/model@x@0"]
)
def test_an_unknown_model_is_not_found(name: str) -> None:
    with pytest.raises(ApiError, match="there is no model") as told:
        beta_of(name, OFFER)
    assert told.value.status == 404
    assert told.value.body["error"] == {
        "message": told.value.message,
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_sampling_fields_are_kept() -> None:
    chat = ask(temperature=0.7, top_k=20, presence_penalty=None, seed=-3, max_completion_tokens=9, user="me")
    assert chat.sampling == {"temperature": 0.7, "top_k": 20}
    assert chat.seed == -3 and chat.max_tokens == 9 and chat.votes


def test_texts_in_parts_and_developers_are_texts() -> None:
    parts = [{"type": "text", "text": "what "}, {"type": "text", "text": "is it"}]
    chat = ask(messages=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}])
    assert chat.messages == [("system", "be brief"), ("user", "what is it")]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "top_logprobs": 0, "tools": [], "stop": None, "stream": True},
        {"response_format": {"type": "text"}, "tool_choice": "none", "parallel_tool_calls": True},
    ],
)
def test_fields_that_ask_for_nothing_do_not_hinder_a_vote(fields) -> None:
    assert ask(**fields).votes


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"stop": "\n"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"something_new": 1},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{"role": "tool", "content": "4", "tool_call_id": "1"}, *HELLO]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, *HELLO]},
    ],
)
def test_what_a_vote_has_no_meaning_for_is_not_voted_on(fields) -> None:
    assert not ask(**fields).votes


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1001}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"beta": 1.1}, "beta"),
        ({"beta": True}, "beta"),
        ({"n": 9}, "n"),
        ({"seed": 2**70}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 3}, "stream_options"),
        ({"model": 4}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
        ({"messages": [{"role": ["user"], "content": "hello"}]}, "messages"),
        ({"messages": [{"content": "hello"}]}, "messages"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(fields, param) -> None:
    with pytest.raises(ApiError) as told:
        ask(**fields)
    assert told.value.status == 400 and told.value.param == param


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"[" * 100_000, b"\xff", b"1" * 10_000])
def test_a_body_that_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(ApiError, match="body"):
        read(data, OFFER)
