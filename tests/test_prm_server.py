"""PRMs at a real vLLM server, with either of the poolings that it can be started with."""

import json

import numpy as np
import pytest

pytest.importorskip("vllm", reason="`pip install 'autotts[cpu]'` to test with vLLM")

from serving import KEY, Proxy, busy, half_json, reset_after, reset_before, serve, truncated, unavailable
from test_prm_vllm import QUESTION, STEPS, plain_scores, token_classifier

from collect.engine import EngineError
from collect.prm.remote import ServerScorer
from env.errors import UserError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]
# A tag of one token, which a question may have in its text too.
TAG = "\n"
ALL = {"task": "token_classify", "tok_pooling_type": "ALL"}
STEP = {"task": "token_classify", "tok_pooling_type": "STEP"}
FAULTS = (reset_before, reset_after, busy, unavailable, truncated)


@pytest.fixture(scope="module", params=["ALL", pytest.param("STEP", marks=pytest.mark.slow)])
def served(request, tmp_path_factory):
    """(folder, torch model, address of a server)."""
    folder = tmp_path_factory.mktemp("prm")
    torch_model = token_classifier(folder)
    pooler = ALL
    if request.param == "STEP":
        from transformers import AutoTokenizer

        (tag,) = AutoTokenizer.from_pretrained(folder).encode(TAG)
        pooler = STEP | {"step_tag_id": tag}
    options = ["--runner", "pooling", "--convert", "classify", "--pooler-config", json.dumps(pooler)]
    with serve(folder, folder / "log", *options) as url:
        yield folder, torch_model, url


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    import openai._base_client

    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.02)


def test_scores_equal_a_plain_forward_pass_whatever_happens_on_the_way(served):
    folder, torch_model, url = served
    paths = [
        (QUESTION, STEPS),
        (QUESTION, [*STEPS[:2], "No: 27.", "So: 27."]),
        (QUESTION, STEPS[:1]),
        (QUESTION, []),
        *((f"What is {n} + 2?", ["It is", f"{n + 2}"]) for n in range(12)),
    ]
    with Proxy(url, FAULTS, every=3) as first, Proxy(url) as second:
        scorer = ServerScorer(str(folder), [first.url, second.url])
        found = scorer.score(paths)
        scorer.close()
    assert first.struck and second.seen
    for (question, steps), scores in zip(paths, found, strict=True):
        assert len(scores) == len(steps)
        if steps:
            expected = plain_scores("token-classifier", folder, torch_model, question, steps)
            np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert found[0][:1] == found[2], "a beginning of another path is not scored again"
    assert (scorer.name, scorer.kind, scorer.context) == (str(folder), "token-classifier", 512)
    assert (scorer.steps, scorer.unscored) == (sum(len(steps) for _, steps in paths), 0)


def test_a_path_beyond_the_context_is_scored_as_far_as_it_goes(served):
    folder, torch_model, url = served
    steps = [f"{number} and so on, and on, and on." for number in range(40)]
    scorer = ServerScorer(str(folder), [url])
    (scores,) = scorer.score([(QUESTION, steps)])
    scorer.close()
    known = [score for score in scores if score is not None]
    assert 3 < len(known) < 40 and scores == known + [None] * (40 - len(known))
    expected = plain_scores("token-classifier", folder, torch_model, QUESTION, steps[: len(known)])
    np.testing.assert_allclose(known, expected, atol=1e-4)


def test_a_server_with_another_tag_or_of_another_sort(served, tmp_path):
    folder, _, url = served

    def shorter(reply):
        for each in reply["data"] if "data" in reply else ():
            if "data" in each:
                each["data"] = each["data"][:-1]
        return reply

    with Proxy(url, change=shorter) as proxy, pytest.raises(EngineError) as caught:
        ServerScorer(str(folder), [proxy.url])
    said = str(caught.value)
    assert "does not score steps as token-classifier needs it" in said and "2 of them tags" in said
    assert """--pooler-config '{"task": "token_classify", "tok_pooling_type": "ALL"}'""" in said
    assert "--runner pooling" in said and "--convert classify" in said
    with Proxy(url, (half_json,), every=1) as proxy, pytest.raises(EngineError, match="as vLLM does"):
        ServerScorer(str(folder), [proxy.url])
    with pytest.raises(EngineError, match=r"serves .*, not '.*nowhere'"):
        ServerScorer(str(tmp_path / "nowhere"), [url])
    with pytest.raises(UserError, match="no kind of PRM is called 'magic'"):
        ServerScorer(str(folder), [url], "magic")
