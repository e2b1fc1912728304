"""Certificates of real vLLM servers: the bundled store holds; another temperature or another model fails."""

import json
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="`pip install 'autotts[cpu]'` to test with vLLM")

from checkout import ROOT
from serving import KEY, serve
from streaming import Meddler, running

from autotts import main
from collect.existing import Existing, of_arm
from collect.live import calls
from env.store_writer import StoreWriter

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

STORE = ROOT / "data" / "stores" / "tiny-search"
# Few problems and wide margins: what takes long here is the model.
SIZE = "--limit 16 --branches 4 --episodes 1 --accuracy-margin 35 --tokens-margin 60 --concurrency 8".split()
PROBLEMS = 16


@pytest.fixture(scope="module", autouse=True)
def environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", KEY)
        patch.setattr(calls, "PAUSE", 0.02)
        yield


@pytest.fixture(scope="module")
def server(tiny_server):
    return tiny_server


def certify(url: str, out: Path, *options: str, store: Path = STORE) -> tuple[int, dict]:
    command = ["certify", "--controller", "self_consistency", "--beta", "0.25", "--store", str(store)]
    status = main([*command, "--server", url, "--out", str(out), *SIZE, *options])
    return status, json.loads((out / "certificate.json").read_text())


def test_the_store_of_the_model_that_is_served_holds(server, tmp_path, capsys):
    """The controller as an exported file, a baseline by the live engine."""
    ask = tmp_path / "ask.py"
    export = ["export", "--controller", "adaptive_consistency", "--beta", "0.25", "--store", str(STORE)]
    assert main([*export, "--out", str(ask)]) == 0
    command = ["--controller", "adaptive_consistency", "--exported", str(ask)]
    status, found = certify(server, tmp_path / "run", *command)
    out = capsys.readouterr().out
    assert (status, found["verdict"]) == (0, "holds"), found["why"]
    assert "16 problems: " in out and "the certificate: holds" in out
    _, exported, baseline = found["parts"]
    assert (exported["name"], baseline["name"]) == ("adaptive_consistency", "self_consistency")
    for part in (exported, baseline):
        assert part["episodes"] == PROBLEMS and part["model_failures"] == part["errors"] == 0
    # Spent is what was said beforehand, more or less.
    assert 0.6 < sum(part["tokens"] for part in found["parts"]) / found["expected"]["tokens"]["total"] < 1.6
    # The store's own name for it where that is a folder from here, else the server's.
    assert [Path(model).resolve() for model in found["asked"]["models"]] == [ROOT / "data" / "tiny" / "model"]
    assert "replay told the truth" in (tmp_path / "run" / "certificate.html").read_text()
    assert KEY not in (tmp_path / "run" / "calls.jsonl").read_text()
    # All is there: the same command asks nobody.
    said = (tmp_path / "run" / "calls.jsonl").read_bytes()
    assert certify(server, tmp_path / "run", *command) == (status, found)
    assert (tmp_path / "run" / "calls.jsonl").read_bytes() == said


def test_faults_on_the_way_do_not_change_what_it_says(server, tmp_path):
    with running(Meddler(server)) as meddler:
        status, found = certify(meddler.url, tmp_path / "same")
        assert (status, found["verdict"]) == (0, "holds"), found["why"]
        assert sum(meddler.struck.values()) > 20 and set(meddler.struck) == set(meddler.KINDS)
        rows = [json.loads(file.read_text()) for file in (tmp_path / "same" / "episodes").rglob("*.json")]
        assert len(rows) == 2 * PROBLEMS and not any(row["model_failed"] for row in rows)
        before = meddler.seen
        status, found = certify(meddler.url, tmp_path / "cooler", "--temperature", "0.3")
        assert (status, found["verdict"]) == (1, "fails")
    assert found["asked"]["sampling"]["temperature"] == 0.3 and len(found["parts"]) == 1
    assert any("more than chance would have it" in why for why in found["why"])
    assert meddler.seen > before and not (tmp_path / "cooler" / "episodes" / "self_consistency").exists()


def test_a_store_of_another_model_fails(server, tmp_path):
    """What the small model wrote, as if it were this one's; the server knows its own by another name."""
    arms = Existing(ROOT / "data" / "stores" / "tiny-arms")
    meta = arms.store.meta
    provenance = meta["provenance"] | {
        "recipe": meta["provenance"]["recipe"] | {"arms": meta["provenance"]["recipe"]["arms"][:1]}
    }
    kept = {name: meta[name] for name in ("dataset", "task", "segment_tokens", "segment_rule", "sampling")}
    options = kept | {"model": meta["arms"][0]["model"], "arms": meta["arms"][:1], "provenance": provenance}
    with StoreWriter(tmp_path / "small", **options) as writer:
        for number, problem in enumerate(arms.problems[:PROBLEMS]):
            writer.add_problem(problem.question, problem.gold, of_arm(arms.nodes(number), 0))
    status, found = certify(server, tmp_path / "run", store=tmp_path / "small")
    assert (status, found["verdict"]) == (1, "fails")
    assert found["store"]["model"] != found["asked"]["models"][0]


def test_a_store_of_two_models_holds(server, tmp_path, tmp_path_factory, monkeypatch):
    # The store knows its models by folders from there.
    monkeypatch.chdir(ROOT)
    small = ROOT / "data" / "tiny" / "small"
    log = tmp_path_factory.mktemp("small-server") / "log"
    with serve(small, log, "--enable-prompt-tokens-details", "--generation-config", "vllm") as other:
        command = ["certify", "--controller", "cascade", "--beta", "0.5", "--baseline"]
        command += [
            "--server",
            f"{other},{server}",
            "--store",
            str(ROOT / "data" / "stores" / "tiny-arms"),
            "--out",
            str(tmp_path),
        ]
        status = main([*command, *SIZE])
    found = json.loads((tmp_path / "certificate.json").read_text())
    assert (status, found["verdict"]) == (0, "holds"), found["why"]
    calls = list(map(json.loads, (tmp_path / "calls.jsonl").read_text().splitlines()))
    assert {call["server"] for call in calls} == {server, other}
