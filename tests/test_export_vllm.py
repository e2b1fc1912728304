"""An exported file at a real vLLM server, in a process without AutoTTS: it draws a collection's branches."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("vllm", reason="`pip install 'autotts[cpu]'` to test with vLLM")

from collecting import collect, make_plan, problems
from programs import written
from serving import KEY
from test_export_runtime import ASK
from vllm_models import shared_model

from autotts import main
from collect.plan import Segments
from collect.sampler import Shape
from env.store import Store

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
# All that a collection has of three branches, each forked once: their segments, and a probe of each.
EVERYTHING = written(
    "everything",
    """
roots = await ep.branch(3)
await ep.together(*[ep.fork(b, 1) for b in roots if not ep.done[b]])
going = [b for b in range(len(ep.done)) if not ep.done[b]]
while going:
    going = await ep.extend(going)
return ep.answer[0]
""",
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Six branches a problem, of which an episode may open three; segments are tokens, or steps."""
    folder = tmp_path_factory.mktemp("stores")
    for name, segments in (("tokens", Segments(30)), ("steps", Segments(None, 2, " "))):
        collect(make_plan(shape=Shape(6, (1,), (2,)), segments=segments), folder / name, 3)
    return folder


@pytest.mark.parametrize("name", ["tokens", "steps"])
def test_it_draws_the_branches_of_the_collection(stores, random_server, tmp_path, name):
    controller, out = tmp_path / "everything.py", tmp_path / "ask.py"
    controller.write_text(EVERYTHING.source)
    command = ["export", "--controller", str(controller), "--beta", "0", "--store", str(stores / name)]
    assert main([*command, "--out", str(out)]) == 0
    there = ["--base-url", f"{random_server}/v1", "--model", str(shared_model()), "--json"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", ASK, out, *there],
        input="\n".join(json.dumps({"question": problem.question}) for problem in problems(3)),
        env={"VLLM_API_KEY": KEY, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    forest = Store.open(stores / name).forest()
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 3
    for problem, each in enumerate(told):
        first, last = forest.first_node[problem : problem + 2].tolist()
        nodes = [n for n in range(first, last) if forest.parent[n] < 0][:3]
        for node in range(first, last):
            if forest.parent[node] in nodes:
                nodes.append(node)
        ended = [node for node in nodes if forest.end[node]]
        decode, probe, _, _ = each["spent"]
        assert decode == sum(forest.tokens[nodes].tolist()) == each["usage"]["decoded_tokens"] > 200
        assert probe == sum(forest.probe_tokens[n] for n in nodes if n not in ended) > 10
        ends = sorted(branch["done"] for branch in each["branches"])
        assert ends == sorted(("stop", "length")[forest.end[node] - 1] for node in ended)
        assert each["usage"]["cached_tokens"] > 0
