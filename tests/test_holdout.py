import os
import threading

import pytest

from env.holdout import Looks, count, ledger, lookups, record

WHAT = {"betas": [0.0, 1.0], "seeds": range(100), "protocol": "standard", "purpose": "evaluate"}
MINE = ("mine", "async def solve(ep): return None")


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "stores" / "aime25"
    path.mkdir(parents=True)
    return path


def test_a_store_starts_without_looks(store) -> None:
    assert count(store) == Looks(0, 0)
    assert lookups(store) == []
    assert str(count(store)) == "not evaluated before"


def test_every_program_of_an_evaluation_is_a_look(store) -> None:
    assert record(store, [MINE, ("other", "x = 1")], **WHAT) is None
    assert record(store, [MINE], **WHAT) is None
    assert count(store) == Looks(3, 2)
    assert str(count(store)) == "evaluated 3 times (2 different programs)"


def test_a_single_look_reads_well(store) -> None:
    record(store, [MINE], **WHAT)
    assert str(count(store)) == "evaluated once (1 program)"


def test_an_entry_says_what_was_looked_at(store) -> None:
    record(store, [MINE], problems=["b" * 32, "a" * 32], **WHAT)
    (entry,) = lookups(store)
    assert entry.pop("time").startswith("20")
    assert len(entry.pop("sha256")) == 64
    assert entry == {
        "format": 1,
        "controller": "mine",
        "betas": [0.0, 1.0],
        "seeds": 100,
        "problems": ["a" * 12, "b" * 12],
        "protocol": "standard",
        "purpose": "evaluate",
    }


def test_the_ledger_lies_beside_the_store_however_it_is_spelt(store, monkeypatch) -> None:
    monkeypatch.chdir(store)
    link = store.parent / "link"
    link.symlink_to(store)
    for spelling in (store, f"{store}/", ".", "../aime25", link):
        assert ledger(spelling) == store.parent.resolve() / "aime25.lookups.jsonl"
        assert record(spelling, [MINE], **WHAT) is None
    assert count(store).total == 5
    assert list(store.iterdir()) == []


def test_only_looks_at_the_problems_asked_about_count(store) -> None:
    record(store, [MINE], problems=["a" * 32, "b" * 32], **WHAT)
    record(store, [MINE], problems=["c" * 32], **WHAT)
    record(store, [MINE], **WHAT)
    assert count(store).total == 3
    assert count(store, ["a" * 32]).total == 2
    assert count(store, ["d" * 32]).total == 1


def test_where_nothing_can_be_written_there_is_a_warning_and_no_failure(store) -> None:
    ledger(store).mkdir()
    warning = record(store, [MINE], **WHAT)
    assert str(store) in warning and str(ledger(store)) in warning
    assert count(store) == Looks(0, 0)


def test_a_read_only_folder_and_a_full_disk_are_warned_of(store, monkeypatch) -> None:
    def refuse(*args):
        raise OSError(30, os.strerror(30))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        assert "Read-only file system" in record(store, [MINE], **WHAT)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda handle, data: 3)
        assert "the disk is full" in record(store, [MINE], **WHAT)


def test_a_remote_store_is_warned_of(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "s3://bucket/store" in record("s3://bucket/store", [MINE], **WHAT)
    assert list(tmp_path.iterdir()) == []


def test_a_torn_line_still_counts(store) -> None:
    record(store, [MINE], problems=["a" * 32], **WHAT)
    with ledger(store).open("a") as file:
        file.write('{"format": 1, "contr\n[1]\n\n')
    assert lookups(store)[1:] == [{}, {}]
    assert count(store, ["b" * 32]).total == 2


def test_concurrent_looks_do_not_mix(store) -> None:
    def look(k: int) -> None:
        for _ in range(20):
            record(store, [(f"controller {k}", str(k) * 500)] * 3, **WHAT)

    threads = [threading.Thread(target=look, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = lookups(store)
    assert len(entries) == 8 * 20 * 3
    assert all(entry["purpose"] == "evaluate" for entry in entries)
    assert count(store) == Looks(480, 8)
