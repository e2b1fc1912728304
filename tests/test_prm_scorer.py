"""What is found out about a PRM before any weights are loaded."""

from importlib.util import find_spec

import pytest

from collect.prm.registry import KINDS, MathShepherd, QwenPrm, TokenClassifier, find_kind
from collect.prm.scorer import check_context, open_scorer
from env.errors import UserError


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("Qwen2ForProcessRewardModel", QwenPrm),
        ("Qwen2ForTokenClassification", TokenClassifier),
        ("Qwen3ForTokenClassification", TokenClassifier),
    ],
)
def test_an_architecture_names_the_kind(architecture, kind) -> None:
    assert find_kind("some/model", {"architectures": [architecture]}) is kind


def test_a_language_model_is_a_prm_only_if_something_says_so() -> None:
    config = {"architectures": ["MistralForCausalLM"]}
    assert find_kind("peiyi9979/math-shepherd-mistral-7b-prm", config) is MathShepherd
    assert find_kind("some/model", config, "math-shepherd") is MathShepherd
    with pytest.raises(UserError, match="some/model is a MistralForCausalLM, which is not known") as caught:
        find_kind("some/model", config)
    assert all(name in str(caught.value) for name in [*KINDS, "judge", "--prm-kind"])


@pytest.mark.parametrize("config", [{}, {"architectures": None}, {"architectures": ["BertModel"]}])
def test_other_models_are_refused(config) -> None:
    with pytest.raises(UserError, match="is not known as a PRM"):
        find_kind("some/model", config)


def test_the_context_is_compared_with_what_is_expected() -> None:
    check_context(4096, 4096, None)
    check_context(4096, 17_000, window=4096)
    check_context(None, 17_000, None)
    with pytest.raises(UserError, match=r"reads 4,096 tokens.*have 17,000: --prm-window 4096"):
        check_context(4096, 17_000, None)


def test_a_window_has_at_least_one_token() -> None:
    with pytest.raises(UserError, match="--prm-window is 0"):
        open_scorer("some/model", window=0)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_extra_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"pip install 'autotts\[gpu\]'"):
        open_scorer(str(tmp_path))
