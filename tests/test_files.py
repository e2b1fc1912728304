"""Results on disk: whole or not at all, and errors before the work rather than after it."""

import json
import math
from pathlib import Path

import polars as pl
import pytest

from env import files
from env.errors import UserError


def test_a_file_is_written_in_one_step(tmp_path):
    path = tmp_path / "new" / "rows.json"
    files.ready(path)
    files.write(path, b"one")
    files.write(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_what_was_there(tmp_path):
    (tmp_path / "rows.json").write_bytes(b"old")
    (tmp_path / ".rows.json.partial").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"rows.json cannot be written: No space left on device"):
        files.write(tmp_path / "rows.json", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("rows.json", b"old")]


def test_what_cannot_be_written_is_said_beforehand(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"no folder can be made at .*file"):
        files.ready(tmp_path / "file" / "rows.json")
    with pytest.raises(UserError, match="is a folder, where a file is to be written"):
        files.ready(tmp_path)
    with pytest.raises(UserError, match=r"/proc cannot be written|no folder can be made"):
        files.ready(Path("/proc/nowhere/rows.json"))


def test_json_has_no_infinity():
    values = {"a": math.inf, "b": [-math.inf, 1.5, None], "c": "Infinity"}
    assert json.loads(files.as_json(values), parse_constant=pytest.fail) == {
        "a": "Infinity",
        "b": ["-Infinity", 1.5, None],
        "c": "Infinity",
    }


def test_a_table_comes_back(tmp_path):
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", ""]})
    files.write(tmp_path / "t.parquet", files.as_parquet(frame))
    assert pl.read_parquet(tmp_path / "t.parquet").equals(frame)
