import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import polars as pl
import pytest

from env.errors import UserError
from search_agent.archive import Run

CONFIG, STOP = {"seed": 0}, {"rounds": 3, "minutes": None}
FRAME = pl.DataFrame({"problem": ["a", "b"], "correct": [True, False]})


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", CONFIG, STOP)


def test_a_run_comes_back_as_it_was_written(run):
    with run.writing():
        run.add(1, {"round": 1, "status": "evaluated"}, "source", FRAME, FRAME.head(1))
        run.add(2, {"round": 2, "status": "failed"})
        run.add("self_consistency", {"name": "self_consistency"}, "sc", FRAME, FRAME)
        run.write("holdout.json", {"winner": 1})
        run.write("holdout.parquet", FRAME)
    again = Run.open(run.path)
    assert (again.config, again.stop) == (CONFIG, STOP)
    assert [record["status"] for record in again.rounds()] == ["evaluated", "failed"]
    assert [record["name"] for record in again.baselines()] == ["self_consistency"]
    assert (again.source(1), again.source(2)) == ("source", None)
    assert again.episodes(1, "feedback").equals(FRAME)
    assert again.episodes(1, "selection").equals(FRAME.head(1))
    assert again.episodes(2, "feedback") is None
    assert again.read("holdout.json") == {"winner": 1}
    assert again.read("finalists.json") is None


def test_text_of_any_kind_is_archived(run):
    odd = "one\r\ntwo\u2028three \U0001f600"
    with run.writing():
        run.add(1, {"round": 1, "summary": "lone \ud800 surrogate"}, odd)
        run.add(2, {"round": 2}, "lone \ud800")
    assert run.source(1) == odd
    assert run.source(2) == "lone ?"
    assert run.rounds()[0]["summary"] == "lone \ud800 surrogate"


def test_rounds_are_in_order_beyond_four_digits(run):
    with run.writing():
        for number in (10_000, 9_999, 1):
            run.add(number, {"round": number})
    assert [record["round"] for record in run.rounds()] == [1, 9_999, 10_000]


def test_a_folder_with_a_run_or_anything_else_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="holds a run already; add --resume"):
        Run.create(run.path, CONFIG, STOP)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(UserError, match="not an empty folder"):
        Run.create(tmp_path / "mine", CONFIG, STOP)


def test_what_is_no_run_says_so(tmp_path):
    with pytest.raises(UserError, match="no search run in"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Run.open(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": 99, "config": {}, "stop": {}}))
    with pytest.raises(UserError, match="format 99"):
        Run.open(tmp_path)


def test_only_one_search_writes_a_run(run):
    with (
        run.writing(),
        pytest.raises(UserError, match="another search is writing"),
        Run.open(run.path).writing(),
    ):
        pass
    with run.writing():
        pass


def test_what_a_killed_search_left_half_made_is_swept_away(run):
    half = run.path / "rounds" / ".new-0001"
    half.mkdir()
    (half / "round.json").write_text("{}")
    (run.path / ".new-holdout.json").write_text("{")
    assert run.rounds() == []
    with run.writing():
        assert not half.exists()
        assert not (run.path / ".new-holdout.json").exists()


def _write_forever(path: Path) -> None:
    run = Run.open(path)
    with run.writing():
        for number in range(len(run.rounds()) + 1, 10_000):
            run.add(number, {"round": number}, f"source {number}", FRAME, FRAME)


def test_a_writer_killed_at_any_moment_leaves_whole_rounds_only(run):
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        writer = context.Process(target=_write_forever, args=(run.path,))
        before = len(run.rounds())
        writer.start()
        while len(run.rounds()) < before + 3:
            time.sleep(0.001)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        numbers = [record["round"] for record in run.rounds()]
        assert numbers == list(range(1, len(numbers) + 1))
        for number in numbers:
            assert run.source(number) == f"source {number}"
            assert run.episodes(number, "selection").equals(FRAME)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_one_clear_error(run, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    with run.writing():
        monkeypatch.setattr(Path, "write_bytes", refuse)
        with pytest.raises(UserError, match=os.strerror(code)) as caught:
            run.add(1, {"round": 1}, "source", FRAME, FRAME)
    assert "autotts search --resume --out" in str(caught.value)
    assert run.rounds() == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the run.*Give --out a folder that can be written"):
        Run.create(tmp_path / "file" / "run", CONFIG, STOP)


def test_the_books_survive_a_line_cut_short(run):
    run.record_call({"round": 1, "prompt_tokens": 5})
    with (run.path / "usage.jsonl").open("a") as books:
        books.write('{"round": 1, "prom')
    assert run.calls() == [{"round": 1, "prompt_tokens": 5}]
