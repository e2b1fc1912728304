import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT
from serving import serve

TINY = ROOT / "data" / "tiny"


@pytest.fixture(scope="session")
def replay_dir() -> Path:
    """The published Qwen3 recordings: `<model>/<dataset>.json` and `published.csv`."""
    path = Path(os.environ.get("AUTOTTS_REPLAY_DIR", ROOT.parent / "shared" / "replay"))
    if not (path / "published.csv").is_file():
        pytest.skip(f"no published recordings in {path}: set AUTOTTS_REPLAY_DIR to a folder that has them")
    return path


# Servers that whoever asks first starts and all tests share: starting one takes longer than most tests.
# What a test does to its connections happens in a proxy before them.


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory) -> Iterator[str]:
    """The bundled model at a vLLM server, by a name of its own: clients know it by its folder too."""
    options = ("--enable-prompt-tokens-details", "--generation-config", "vllm", "--served-model-name", "tiny")
    with serve(TINY / "model", tmp_path_factory.mktemp("tiny-server") / "log", *options) as url:
        yield url


@pytest.fixture(scope="session")
def tiny_prm_server(tmp_path_factory) -> Iterator[str]:
    """The bundled reward model at a vLLM server."""
    pooling = '{"task": "token_classify", "tok_pooling_type": "ALL"}'
    options = ("--runner", "pooling", "--convert", "classify", "--pooler-config", pooling)
    with serve(TINY / "prm", tmp_path_factory.mktemp("tiny-prm-server") / "log", *options) as url:
        yield url


@pytest.fixture(scope="session")
def random_server(tmp_path_factory) -> Iterator[str]:
    """The model with random weights at a vLLM server; skips where there is no vLLM."""
    from vllm_models import shared_model

    log = tmp_path_factory.mktemp("random-server") / "log"
    with serve(shared_model(), log, "--enable-prompt-tokens-details") as url:
        yield url
