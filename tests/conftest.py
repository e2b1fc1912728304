import os
from pathlib import Path

import pytest
from checkout import ROOT


@pytest.fixture(scope="session")
def replay_dir() -> Path:
    """The published Qwen3 recordings: `<model>/<dataset>.json` and `published.csv`."""
    path = Path(os.environ.get("AUTOTTS_REPLAY_DIR", ROOT.parent / "shared" / "replay"))
    if not (path / "published.csv").is_file():
        pytest.skip(f"no published recordings in {path}: set AUTOTTS_REPLAY_DIR to a folder that has them")
    return path
