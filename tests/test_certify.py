"""Certificates of a made-up model: they hold, fail and stay undecided where they should, and say why."""

import asyncio
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from certify_world import World, certify
from checkout import ROOT
from programs import shipped, written

from autotts import main
from env.certificate import design as designs
from env.certificate.design import FIGURES, Design
from env.certificate.exported import Exported
from env.certificate.page import page
from env.errors import UserError
from env.live.bench import Question
from env.live.folder import RunFolder
from env.program import Program
from env.tasks import ExactTask, load_task

TOLD = {"expected": {"holds": 0.9, "tokens": {"total": 1000}}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return World().store(tmp_path_factory.mktemp("world") / "store")


@pytest.fixture(scope="module")
def design(store):
    return Design(store, range(len(store)), [shipped("self_consistency")], 0.25, 16, 12, 0.1, 0.15)


def test_the_same_model_holds_with_everything_within_its_margin(design, tmp_path):
    found = certify(design, World(), tmp_path)
    assert found["verdict"] == "holds" and found["why"] == [
        "all 11 figures lie within their margins, on 40 problems"
    ]
    branches, played = found["parts"]
    assert [each["figure"] for each in branches["figures"]] == ["pass rate", "length"]
    assert [each["figure"] for each in played["figures"]] == list(FIGURES)
    assert min(branches["p_values"].values()) > branches["p_level"] == 0.01 / 11
    (opened,) = (each for each in played["figures"] if each["figure"] == "branches opened")
    assert opened["live"] == opened["replay"] == 3 and opened["ratio"] == 1
    # A row an episode, kept as it is in the folder.
    assert len(list(tmp_path.glob("episodes/.branches/*.json"))) == 40
    rows = [json.loads(file.read_text()) for file in tmp_path.glob("episodes/8/*.json")]
    assert sum(row["tokens"] for row in rows) == played["tokens"] and len(rows) == 40 * 12


@pytest.mark.parametrize(
    ("model", "reason"), [(World(right=-0.3), "pass rate: "), (World(longer=1.4), "length: ")]
)
def test_another_model_fails_before_a_controller_is_played(design, model, reason, tmp_path):
    found = certify(design, model, tmp_path)
    assert found["verdict"] == "fails" and len(found["parts"]) == 1
    assert any(reason in why and why.endswith("surely beyond it") for why in found["why"])
    assert any("more than chance would have it" in why for why in found["why"])
    assert found["why"][-1].startswith("no controller was played")


def test_a_controller_can_fail_although_branches_are_alike(design, tmp_path):
    """What a live run does otherwise than replay: here it opens other branches than it should."""
    other = written(
        "self_consistency", "votes = await ep.branch(6, probe=False)\nawait ep.finish(votes)\nreturn 0"
    )
    program = Program("self_consistency", other.source, trusted=True)
    replayed = replace(design, episodes=4).replay(lambda done, total: None)
    found = certify(replace(design, episodes=4, programs=[program]), World(), tmp_path, replayed=replayed)
    assert found["parts"][0]["verdict"] == "holds" and found["verdict"] == "fails"
    assert any("branches opened: 6.0 live, 3.0 replayed: × 2.000" in why for why in found["why"])


def test_few_problems_are_undecided_and_it_says_how_many_would_do(design, tmp_path):
    few = replace(design, problems=range(0, 40, 5), branches=2, episodes=1)
    found = certify(few, World(), tmp_path)
    assert found["verdict"] == "undecided"
    assert any("problems like these instead of 8 would decide it, or" in why for why in found["why"])
    assert found["why"][-1].startswith("more takes a new run with another --seed")


def test_what_the_model_failed_decides_nothing_and_is_asked_again(design, tmp_path):
    small = replace(design, branches=8, episodes=2)
    found = certify(small, World(fails=0.3), tmp_path)
    failed = found["parts"][0]["model_failures"]
    assert found["verdict"] == "undecided" and 2 < failed < 20
    assert f"the model failed in {failed} of 40 episodes, which decides nothing" in found["why"][0]
    assert "ModelError: the model is gone" in found["why"][0]
    drawn = {file.name: file.read_bytes() for file in tmp_path.glob("episodes/.branches/*.json")}
    again = certify(small, World(), tmp_path)
    assert again["parts"][0]["model_failures"] == 0 == again["parts"][1]["model_failures"]
    changed = [
        file for file in tmp_path.glob("episodes/.branches/*.json") if file.read_bytes() != drawn[file.name]
    ]
    assert len(changed) == failed


def test_power_is_simulated_from_the_store_and_the_bill_is_its_own(design):
    known = list(design.known().values())
    replayed = design.replay(lambda done, total: None)
    cost = designs.bill(design, known, replayed)
    assert cost.branches == round(16 * sum(each.tokens.mean() for each in known))
    assert cost.programs["self_consistency"] == round(
        12 * replayed["self_consistency"]["tokens"].mean(1).sum()
    )
    asked = np.mean([len(said) - 1 for each in known for said in each.answers])
    assert cost.probes == pytest.approx(16 * 40 * 3 * asked, abs=2)
    rng = np.random.default_rng(0)
    well, little = (
        designs.power(each, known, replayed, rng) for each in (design, replace(design, branches=2))
    )
    assert well.holds > 0.9 and little.holds < 0.5 and max(well.fails, little.fails) < 0.01
    assert designs.enough(replace(design, branches=2), known, replayed, rng) in (2, 4, 8)
    # What would be found is beyond the margin, and less the more is played.
    few = designs.power(replace(design, episodes=2), known, replayed, rng).detectable
    name = "self_consistency: accuracy"
    assert 0.1 < well.detectable[name] < few[name] < 0.5
    lines = designs.told(little, 8, replace(design, branches=2))
    assert "that is little; --episodes 96 --branches 16 would do" in lines[-1]


def test_a_controller_that_replay_cannot_play_is_refused(design):
    raises = replace(design, programs=[Program("raises", written("raises", "return 7").source, trusted=True)])
    with pytest.raises(UserError, match=r"raises fails in .* replayed episodes, so there is nothing"):
        raises.replay(lambda done, total: None)


def test_the_page_is_one_file_that_loads_nothing(design, tmp_path):
    design = replace(design, branches=8, episodes=2)
    found = certify(design, World(fails=0.2), tmp_path) | TOLD
    found["parts"][1]["errors"], found["parts"][1]["error"] = 3, "<script>alert(1)</script>"
    found["asked"]["sampling"] = {"temperature": 0.3}
    html = page(json.loads(json.dumps(found)))
    assert "undecided: these episodes cannot tell" in html and "temperature 0.3, stored 1" in html
    assert "<script" not in html and "http:" not in html.replace("http://here", "")
    assert "3 episodes ended with an error of the controller: &lt;script&gt;" in html
    for figure in ("pass rate", "answers by depth", *FIGURES):
        assert figure in html


ASK = """
import json, sys
# SHA
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
seed = int(sys.argv[sys.argv.index("--seed") + 1])
for number, line in enumerate(sys.stdin):
    question = json.loads(line)["question"]
    if number == 1:
        print(json.dumps({"question": question, "error": "ServerError: gone"}), flush=True)
    elif number == 3:
        sys.exit("broke")
    else:
        branch = {"done": "stop", "depth": 1, "tokens": 7, "answer": "right"}
        told = {"text": "so \\\\boxed{right}", "answer": "right", "spent": [7 + seed, 2, 1, 9], "rounds": 3}
        print(json.dumps(told | {"branches": [branch] * 2, "usage": {"seconds": 0.5}}), flush=True)
"""


def test_an_exported_file_is_run_as_it_is(tmp_path):
    program, path = shipped("self_consistency"), tmp_path / "ask.py"
    path.write_text(ASK.replace("SHA", hashlib.sha256(program.source.encode()).hexdigest()))
    subject = Exported(path, program, 0.5, "http://127.0.0.1:9", "m", load_task("exact"), 5)
    folder, questions = RunFolder(tmp_path / "run", {}), [Question(f"q{n}", "right") for n in range(4)]
    steps = []

    def play(seeds):
        how = questions, seeds, 8, folder, "ask", lambda *done: steps.append(done)
        return asyncio.run(subject.keep_all(*how))

    first, gone, third, broke = play([0])
    assert first["correct"] and (first["tokens"], first["sequential"], first["rounds"]) == (15, 9, 3)
    assert first["granted"] == 2 and not first["model_failed"] and steps[-1] == (4, 4)
    assert (gone["model_failed"], gone["error"]) == (True, "ServerError: gone")
    assert (broke["model_failed"], broke["error"]) == (True, "broke") and third["problem"] == questions[
        2
    ].name

    class Fails(ExactTask):
        def extract(self, text):
            raise ValueError("odd")

    odd = replace(subject, task=Fails())
    rows = asyncio.run(
        odd.keep_all(questions[:1], [0], 8, RunFolder(tmp_path / "odd", {}), "ask", lambda *done: None)
    )
    assert [(row["model_failed"], row["error"]) for row in rows] == [(True, "Fails failed: ValueError: odd")]
    # Only what failed is asked again; of two questions the second one fails once more.
    assert [row["model_failed"] for row in play([0])] == [False, False, False, True]
    with pytest.raises(UserError, match="no export of adaptive_consistency as it is now"):
        replace(subject, program=shipped("adaptive_consistency"))


def test_the_command_says_what_it_takes(capsys, tmp_path):
    command = ["certify", "--controller", "adaptive_consistency", "--beta", "0.25", "--store", str(TINY)]
    command += ["--limit", "6", "--baseline", "self_consistency", "--episodes", "2"]
    assert main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "6 problems: " in out and "for adaptive_consistency" in out and "for self_consistency" in out
    assert "if replay is right, this says so with probability" in out
    assert main([*command, "--dry-run", "--limit", "5"]) == 0
    out = capsys.readouterr().out
    assert "5 problems: " in out and "it takes 6 at least" in out and "fails 4 times in 5" not in out
    assert main(command) == 2 and "--out and --server are missing" in capsys.readouterr().err
    assert main([*command, "--dry-run", "--baseline", "adaptive_consistency", "nobody"]) == 2


TINY = ROOT / "data" / "stores" / "tiny-search"


@pytest.fixture(
    params=[["--dry-run"], ["--server", "http://127.0.0.1:9", "--out", "OUT"]], ids=["dry", "real"]
)
def refused(request, tmp_path, capsys):
    """What the command says of mistakes, before it replays or asks anything."""

    def refused(*options, store=TINY):
        command = ["certify", "--beta", "0.5", "--store", str(store), *options, *request.param]
        assert main([part.replace("OUT", str(tmp_path / "run")) for part in command]) == 2
        said = capsys.readouterr()
        assert not said.out and "replays" not in said.err and not (tmp_path / "run").exists()
        return said.err

    return refused


def test_a_store_that_cannot_be_certified_has_no_price(store, refused):
    told = refused("--controller", "self_consistency", store=store.path)
    assert "was not made by `autotts collect`" in told
    assert "certify against a store that `autotts collect` made" in told
    assert "would be drawn once more" in refused("--controller", "self_consistency", "--seed", "0")


def test_what_is_no_export_of_the_controller_has_no_price(tmp_path, refused):
    command = ["--controller", "adaptive_consistency", "--exported"]
    assert "nofile.py cannot be read: " in refused(*command, str(tmp_path / "nofile.py"))
    ask = tmp_path / "ask.py"
    for text in ("print('mine')", hashlib.sha256(shipped("self_consistency").source.encode()).hexdigest()):
        ask.write_text(text)
        assert f"{ask} is no export of adaptive_consistency as it is now" in refused(*command, str(ask))


def test_an_exported_file_of_code_that_nobody_vouches_for_is_not_run(tmp_path, refused):
    mine, ask = tmp_path / "mine.py", tmp_path / "ask.py"
    mine.write_text(written("mine", "return None").source)
    ask.write_text(hashlib.sha256(mine.read_bytes()).hexdigest())
    said = refused("--controller", str(mine), "--exported", str(ask))
    assert "read it, then add --i-trust-this-code" in said
