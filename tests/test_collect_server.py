"""Collections at a real vLLM server, whatever happens on the way to it."""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm", reason="`pip install 'autotts[cpu]'` to test with vLLM")

from collecting import Borrowed, contents, make_plan, make_sampler, problems, write_problems
from serving import FAULTS, KEY, Proxy, aborted, busy, free_port, late, reset_before
from vllm_models import shared_engine, shared_model

from autotts import main
from collect import endpoint, servers
from collect.collection import Collection
from collect.commands.collect import add_arguments, plan_of
from collect.endpoint import survey
from collect.engine import EngineError, Request, Sampling, generate
from collect.folder import FolderError
from collect.merging import merge
from collect.servers import open_servers
from collect.shards import Shard
from env.errors import UserError
from env.store import Store

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]


def model() -> str:
    return str(shared_model())


@pytest.fixture(scope="module")
def server(random_server):
    return random_server


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The key, and waits that are short where the package would be patient."""
    import openai._base_client

    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.02)
    monkeypatch.setattr(servers, "PAUSE", 0.02)


def open_at(*urls: str, **settings):
    return open_servers(model(), survey(urls, [model()])[model()], 20, **settings)


def requests(count: int) -> list[Request]:
    """Some with every field other than its default."""
    sampler = make_sampler(make_plan())
    fancy = Sampling(0.8, 0.9, 50, 0.02, 0.1, 0.2, 1.1)
    return [
        Request(
            sampler.prompter.encode(problems(count)[number].question).ids * (1 + number % 3),
            50,
            (number * 0x9E3779B97F4A7C15) >> 1 & (1 << 63) - 1,
            fancy if number % 2 else Sampling(),
            sampler.tokens.ends,
            (20, 0, 3)[number % 3],
            read_prompt=number % 4 == 3,
        )
        for number in range(count)
    ]


def test_samples_are_those_of_an_engine_in_this_process(server):
    engine = open_at(server)
    asked = requests(24)
    found, expected = generate(engine, asked), generate(shared_engine(), asked)
    again = generate(engine, asked)
    engine.close()
    assert engine.context == 8192 and {sample.finish for sample in found} == {"stop", "length"}
    for request, sample, repeated, other in zip(asked, found, again, expected, strict=True):
        assert sample.token_ids == other.token_ids == repeated.token_ids and sample.finish == other.finish
        for name in ("logprobs", "confidence", "prompt_logprobs", "prompt_confidence"):
            values, plain = getattr(sample, name), getattr(other, name)
            assert (values is None) == (plain is None)
            if values is not None:
                assert values.dtype == np.float32
                np.testing.assert_allclose(values, plain, atol=1e-5)
        assert (sample.confidence is None) == (request.top_logprobs == 0)
    # The second time the prompts are in the cache, and the server says so.
    assert sum(sample.cached_tokens for sample in again) > 32 * 12


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A collection in this process: its description, and what its engine was asked."""
    out = tmp_path_factory.mktemp("undisturbed") / "store"
    collection = Collection(make_plan(), problems(6), out)
    collection.run(lambda arm: Borrowed())
    return contents(Store.open(out)), collection.tally


def test_nothing_is_lost_or_counted_twice(server, tmp_path, undisturbed):
    """Resets before and after the work, bursts of 429 and 503, halves of bodies, aborted samples."""
    expected, tally = undisturbed
    with Proxy(server, FAULTS, every=3) as first, Proxy(server, FAULTS, every=3) as second:
        collection = Collection(make_plan(), problems(6), tmp_path / "store")
        collection.run(lambda arm: open_at(first.url, second.url, in_flight=8))
        struck, passed = first.struck + second.struck, first.passed + second.passed
    assert contents(Store.open(tmp_path / "store")) == expected
    assert set(struck) == {fault.__name__ for fault in FAULTS} and sum(struck.values()) > 40
    found = collection.tally
    assert found.requests == tally.requests == passed - 2, "a request of each server's check came too"
    assert (found.decoded_tokens, found.prompt_tokens) == (tally.decoded_tokens, tally.prompt_tokens)
    assert_problems_stay(first, second)


def assert_problems_stay(*proxies: Proxy) -> None:
    """Each problem was asked about at one server, and each server about some."""
    sampler = make_sampler(make_plan())
    prompts = [sampler.prompter.encode(problem.question).ids for problem in problems(6)]
    where = []
    for proxy in proxies:
        asked = [each["prompt"] for each in proxy.seen if len(each["prompt"]) > 1]
        where.append({n for n, ids in enumerate(prompts) for p in asked if p[: len(ids)] == ids})
    assert not set.intersection(*where) and set.union(*where) == set(range(6)) and all(where)


def test_every_field_is_sent(server):
    with Proxy(server) as proxy:
        engine = open_at(proxy.url)
        request = requests(2)[1]
        generate(engine, [request])
        engine.close()
    sent = proxy.seen[-1]
    assert {name: sent[name] for name in vars(request.sampling)} == vars(request.sampling)
    assert sent["prompt"] == list(request.prompt) and sent["seed"] == request.seed
    assert sent["max_tokens"] == 50 and sent["stop_token_ids"] == list(request.stop_token_ids)
    assert sent["ignore_eos"] and sent["return_token_ids"] and sent["n"] == 1


def test_so_many_are_in_flight_and_no_more(server):
    with Proxy(server) as proxy:
        busiest, running = 0, 0

        forward = proxy.RequestHandlerClass._pass_on

        class Counting(proxy.RequestHandlerClass):
            def _pass_on(self, *args):
                nonlocal busiest, running
                with proxy.lock:
                    running += 1
                    busiest = max(busiest, running)
                try:
                    forward(self, *args)
                finally:
                    with proxy.lock:
                        running -= 1

        proxy.RequestHandlerClass = Counting
        engine = open_at(proxy.url, in_flight=5)
        generate(engine, requests(24))
        engine.close()
    assert engine.slots == 5 and 3 <= busiest <= 5


def test_a_server_that_goes_away_and_the_same_command(server, tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(servers, "RETRIES", 1)
    with Proxy(server) as proxy:
        collection = Collection(make_plan(group=1), problems(6), tmp_path / "store")
        written = collection.folder.write_samples

        def write_and_leave(*args):
            written(*args)
            proxy.faults, proxy.every = (reset_before,), 1

        collection.folder.write_samples = write_and_leave
        message = rf"no connection to the server {proxy.url}, 2 times: .*same command again"
        with pytest.raises(EngineError, match=message):
            collection.run(lambda arm: open_at(proxy.url, in_flight=4))
    left = Collection(make_plan(group=1), problems(6), tmp_path / "store").missing(0)
    assert 0 < len(left) < 6
    Collection(make_plan(group=1), problems(6), tmp_path / "store").run(lambda arm: open_at(server))
    found, (expected, _) = contents(Store.open(tmp_path / "store")), undisturbed
    assert found["files"] == expected["files"]


def test_what_takes_too_long_is_asked_again(server):
    with Proxy(server, (late,), every=6) as proxy:
        (served,) = survey([proxy.url], [model()])[model()]
        place = servers.ServerPlace(served, seconds=2)
        engine = servers.SpreadEngine(model(), [place])
        samples = generate(engine, requests(24))
        engine.close()
    assert proxy.struck["late"] > 1 and len(proxy.seen) == 24 + proxy.struck["late"]
    expected = generate(shared_engine(), requests(24))
    assert [sample.token_ids for sample in samples] == [sample.token_ids for sample in expected]


def test_closing_gives_up_what_is_under_way(server):
    with Proxy(server, (late,), every=1) as proxy:
        served = survey([proxy.url], [model()])[model()]
        place = servers.ServerPlace(served[0])
        engine = servers.SpreadEngine(model(), [place])
        engine.submit(requests(6))
        engine.close()
        engine.close()


def test_a_server_that_is_down(monkeypatch):
    monkeypatch.setattr(endpoint, "SECONDS_AT_START", 2.0)
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(EngineError, match=rf"no connection to the server {url}, 3 times: .*see whether"):
        survey([url], [model()])


def test_a_server_of_another_model(server):
    with pytest.raises(EngineError, match=rf"serves '{model()}', not 'Qwen/Other'; .*--served-model-name"):
        survey([server], ["Qwen/Other"])
    with pytest.raises(UserError, match="no server has the model 'Qwen/Other'; add one that has to --server"):
        survey([server], [model(), "Qwen/Other"])
    # By its path, whatever it is called; with or without /v1, named twice.
    (served,) = survey([server, f"{server}/v1/"], [model()])[model()]
    assert (served.url, served.context, served.version) == (server, 8192, "0.32.0")


def test_a_server_that_asks_for_another_key(server, monkeypatch):
    for other in ("sk-another", None):
        if other:
            monkeypatch.setenv("VLLM_API_KEY", other)
        else:
            monkeypatch.delenv("VLLM_API_KEY")
        with pytest.raises(EngineError, match=r"refuses the key; set VLLM_API_KEY") as caught:
            survey([server], [model()])
        assert not other or other not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "nonsense"])
def test_what_is_no_address(url):
    with pytest.raises(UserError, match="is no address of a server; give one such as http://localhost:8000"):
        survey([url], [model()])


def test_an_address_with_a_password():
    with pytest.raises(UserError, match=r"http://host/v1 is given with a password.*VLLM_API_KEY") as caught:
        survey(["http://me:secret@host/v1?token=hidden"], [model()])
    assert "secret" not in str(caught.value) and "hidden" not in str(caught.value)


def old(choice):
    del choice["token_ids"]


def bare(choice):
    choice["logprobs"] = None


def processed(choice):
    (top,) = choice["logprobs"]["top_logprobs"]
    for name in list(top)[2:]:
        top[name] = -9999.0


def short(choice):
    choice["finish_reason"] = "length"
    choice["token_ids"] = choice["token_ids"][:3]
    choice["logprobs"] = {name: values[:3] for name, values in choice["logprobs"].items()}


def unasked(choice):
    choice["finish_reason"] = "stop"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (old, r"does not return token ids; it needs vLLM 0\.10\.2 or newer"),
        (bare, "does not return log probabilities"),
        (
            processed,
            "reports log probabilities after top-k and temperature; start it without --logprobs-mode",
        ),
        (unasked, r"ended a reply at the token \d+, which the request does not name; .*generation-config"),
    ],
)
def test_a_server_that_cannot_do_it(server, change, message):
    """A real server's replies, changed as one that is older or started otherwise would write them."""

    def altered(reply):
        change(reply["choices"][0]) if "choices" in reply else None
        return reply

    with Proxy(server, change=altered) as proxy, pytest.raises(EngineError, match=message):
        open_at(proxy.url)


def test_a_server_that_shortens_replies(server):
    with Proxy(server) as proxy:
        engine = open_at(proxy.url)
        proxy.change = lambda reply: short(reply["choices"][0]) or reply
        with pytest.raises(EngineError, match="cut a reply at 3 tokens where 50 were asked for"):
            generate(engine, requests(1))
        engine.close()


def test_a_request_that_is_refused(server):
    engine = open_at(server)
    with pytest.raises(EngineError, match=r"refuses a request \(HTTP 400\): .*8192"):
        generate(engine, [Request([5] * 8300, 50, 0, Sampling(), (1,))])
    engine.close()
    with pytest.raises(EngineError, match=r"refuses a request \(HTTP 400\): .*logprobs"):
        open_servers(model(), survey([server], [model()])[model()], 40)


def test_replies_that_are_no_completions(server):
    with Proxy(server) as proxy:
        engine = open_at(proxy.url)
        proxy.change = lambda reply: {"html": "a gateway's page"}
        with pytest.raises(EngineError, match=r"does not answer as vLLM does: .*choices"):
            generate(engine, requests(1))
        assert len(proxy.seen) == 1 + servers.ATTEMPTS
        engine.close()


def test_the_command(server, tmp_path, capfd, caplog):
    """Two addresses, faults on one; the key is seen by the server alone."""
    caplog.set_level(logging.DEBUG)
    file = write_problems(tmp_path / "problems.jsonl", 4)
    command = ["collect", "--model", model(), "--problems", str(file), "--task", "exact", "--branches", "4"]
    command += ["--segment-tokens", "30", "--max-tokens", "90", "--probe-tokens", "8", "--group", "2"]
    with Proxy(server, (busy, aborted), every=4) as proxy:
        at = ["--server", f"{proxy.url},{server}/v1", "--server-requests", "8"]
        assert main([*command, *at, "--out", str(tmp_path / "served")]) == 0
        assert proxy.struck
        assert proxy.headers[-1]["authorization"] == f"Bearer {KEY}"
        assert main([*command, *at, "--out", str(tmp_path / "served")]) == 0
    said = capfd.readouterr()
    assert "is complete" in said.out
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    plan = plan_of(parser.parse_args([*command[1:], "--out", str(tmp_path / "here")]))
    Collection(plan, problems(4), tmp_path / "here").run(lambda arm: Borrowed())
    served, here = Store.open(tmp_path / "served").meta, Store.open(tmp_path / "here").meta
    assert served["files"] == here["files"] and served["arms"] == here["arms"]
    versions = served["provenance"]["recipe"].pop("versions")
    assert versions["vllm"] == "0.32.0" and "torch" not in versions
    here["provenance"]["recipe"].pop("versions")
    assert served == here
    everything = said.out + said.err + caplog.text + json.dumps(served)
    assert KEY not in everything


def test_options_that_a_running_server_cannot_take(server, tmp_path, capsys):
    file = write_problems(tmp_path / "problems.jsonl", 2)
    command = ["collect", "--model", model(), "--problems", str(file), "--out", str(tmp_path / "store")]
    assert main([*command, "--server", server, "--engine-arg", "dtype=float32"]) == 2
    assert "--engine-arg dtype says nothing to a server that is running" in capsys.readouterr().err
    assert main([*command, "--prm-server", server]) == 2
    assert "--prm-server needs --prm" in capsys.readouterr().err
    assert not Path(f"{tmp_path}/store.collecting").exists()


def test_shards_of_one_plan_make_the_store_of_one_run(server, tmp_path, undisturbed):
    parts = [tmp_path / f"part{index}" for index in (1, 2)]
    for index, part in enumerate(parts, 1):
        shard = Collection(make_plan(), problems(6), part, shard=Shard(index, 2))
        shard.run(lambda arm: open_at(server))
    assert [len(Store.open(part)) for part in parts] == [4, 2]
    merge(parts, tmp_path / "merged")
    assert contents(Store.open(tmp_path / "merged")) == undisturbed[0]


def test_the_rest_of_one_shard_is_not_of_another(tmp_path):
    stopped = Collection(make_plan(group=1), problems(6), tmp_path / "part", shard=Shard(1, 2))
    written = stopped.folder.write_samples

    def write_and_stop(*args):
        written(*args)
        raise EngineError("stopped")

    stopped.folder.write_samples = write_and_stop
    with pytest.raises(EngineError):
        stopped.run(lambda arm: Borrowed())
    assert len(stopped.missing(0)) == 2 and set(stopped.missing(0)) < {0, 2, 4}
    with pytest.raises(FolderError, match=r"other settings \(shard\.index: 1, now 2\)"):
        Collection(make_plan(group=1), problems(6), tmp_path / "part", shard=Shard(2, 2))
