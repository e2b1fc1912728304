"""The kinds of process reward models that run in vLLM: what each reads, and where its scores stand.

A kind turns a question and its steps into one sequence of token ids in which every step ends with a tag; the
model's output at a tag is its score of the steps so far. The tag's position is known from building the
sequence, not searched for in it: a question or a step may well contain the same token.

A further kind is an entry of `KINDS`. A judge (`collect.prm.judge`) is not among them: it writes its verdict.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from env.errors import UserError

JUDGE = "judge"


class Tagged(NamedTuple):
    """A path as a PRM reads it.

    Attributes:
        ids: token ids.
        tags: for each step the position in `ids` of the tag that ends it, ascending.
    """

    ids: list[int]
    tags: list[int]


class Kind(ABC):
    """One way to ask for step scores, bound to a checkpoint's tokenizer.

    Args:
        model: name or folder, for errors.
        config: what the checkpoint's config.json says; may name a tag as `step_separator`.
        tokenizer: of transformers.
        tag: text of the step tag; None = the checkpoint's, else the kind's.

    Attributes:
        name: as in `--prm-kind`.
        default_tag: what the kind's first model was trained with.

    Raises:
        UserError: the tag is not one token of this tokenizer, so the model was not trained with it.
    """

    name: ClassVar[str]
    default_tag: ClassVar[str]

    def __init__(self, model: str, config: Mapping[str, Any], tokenizer: Any, tag: str | None) -> None:
        self.model = model
        self.config = config
        self.tokenizer = tokenizer
        self.tag: str = config.get("step_separator", self.default_tag) if tag is None else tag
        self.tag_id = self._single(self.tag)

    @abstractmethod
    def read(self, question: str, steps: Sequence[str]) -> Tagged:
        """One path of at least one step as the model was trained to see it."""

    def engine_args(self) -> dict[str, Any]:
        """What vLLM must be told so that column 1 of its output is the probability that a step is good."""
        return {}

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _join(self, head: list[int], steps: Sequence[str]) -> Tagged:
        """The head, then each step's tokens and the tag."""
        ids, tags = list(head), []
        for step in self.tokenizer(list(steps), add_special_tokens=False, verbose=False)["input_ids"]:
            ids += step
            tags.append(len(ids))
            ids.append(self.tag_id)
        return Tagged(ids, tags)

    def _single(self, text: str, before: str = "") -> int:
        ids, known = self._ids(before + text), self._ids(before)
        if len(ids) != len(known) + 1 or ids[-1] == self.tokenizer.unk_token_id:
            raise UserError(
                f"the PRM {self.model} cannot score steps: its tokenizer has no token {text.strip(' ')!r}, "
                f"which --prm-kind {self.name} needs; name its own tag (--prm-step-tag), or its "
                f"kind: {', '.join([*KINDS, JUDGE])}"
            )
        return ids[-1]


class QwenPrm(Kind):
    """Qwen2.5-Math-PRM (Zhang et al. 2025, arXiv:2501.07301), in the chat format of its model card.

    The probability is that of the second of two labels, at the `<extra_0>` after each step.
    """

    name = "qwen-prm"
    default_tag = "<extra_0>"
    system = "Please reason step by step, and put your final answer within \\boxed{}."

    def read(self, question: str, steps: Sequence[str]) -> Tagged:
        """System prompt and question by the chat template, then the steps, a tag after each."""
        if not self.tokenizer.chat_template:
            raise UserError(
                f"the PRM {self.model} has no chat template, which --prm-kind {self.name} needs; "
                "copy tokenizer_config.json (or chat_template.jinja) of the model it was made from"
            )
        chat = [
            {"role": "system", "content": self.system},
            {"role": "user", "content": question},
            {"role": "assistant", "content": self.tag},
        ]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False)
        return self._join(self._ids(text.rpartition(self.tag)[0]), steps)


class TokenClassifier(Kind):
    r"""A token classifier as TRL's PRMTrainer trains them (Qwen2, Qwen3, ...ForTokenClassification).

    The question, then each step and the separator, tokenised one by one (`PRMTrainer.tokenize_row`). The
    label stands at the separator, TRL's default is a line break. What TRL does not keep of its data a
    checkpoint may say in config.json: another `step_separator`, and a `prompt_template` with "{question}".
    """

    name = "token-classifier"
    default_tag = "\n"

    def read(self, question: str, steps: Sequence[str]) -> Tagged:
        """The question, then the steps, a separator after each."""
        bos = self.tokenizer.bos_token_id
        prompt = self.config.get("prompt_template", "{question}").replace("{question}", question)
        return self._join([*([] if bos is None else [bos]), *self._ids(prompt)], steps)

    def engine_args(self) -> dict[str, Any]:
        """Serve it as a classifier."""
        return {"convert": "classify"}


class MathShepherd(Kind):
    """Math-Shepherd (Wang et al. 2023, arXiv:2312.08935): a language model that answers + or - at a tag.

    As in the card of peiyi9979/math-shepherd-mistral-7b-prm: question, a space, then steps that end in " ки",
    a line each; the softmax over the logits of "+" and "-" at the tag.
    """

    name = "math-shepherd"
    default_tag = "ки"
    word = "a"  # A token inside a sentence is not the one at its start: all are read behind a word.

    def __init__(self, model: str, config: Mapping[str, Any], tokenizer: Any, tag: str | None) -> None:
        super().__init__(model, config, tokenizer, tag)
        self.verdicts = [self._single(f" {sign}", self.word) for sign in "-+"]

    def read(self, question: str, steps: Sequence[str]) -> Tagged:
        """All as one text, the tags found again by where their characters end."""
        text, ends = f"{question} ", []
        for step in steps:
            # Two spaces are one token to many tokenizers, and the tag behind them another than it was.
            text += f"{step.rstrip()} {self.tag}"
            ends.append(len(text))
            text += "\n"
        encoded = self.tokenizer(text[:-1], return_offsets_mapping=True, verbose=False)
        ids = encoded["input_ids"]
        place = {
            end: at
            for at, ((_, end), token) in enumerate(zip(encoded["offset_mapping"], ids, strict=True))
            if token == self.tag_id
        }
        return Tagged(ids, [place[end] for end in ends])

    def engine_args(self) -> dict[str, Any]:
        """Make a two-label classifier of the language model's head."""
        labels = self.tokenizer.convert_ids_to_tokens(self.verdicts)
        override = {"classifier_from_token": labels, "method": "no_post_processing", "num_labels": 2}
        return {"convert": "classify", "hf_overrides": override}

    def _single(self, text: str, before: str = "") -> int:
        return super()._single(text, before) if before else super()._single(f" {text}", self.word)


KINDS: Mapping[str, type[Kind]] = {kind.name: kind for kind in (QwenPrm, TokenClassifier, MathShepherd)}


def find_kind(model: str, config: Mapping[str, Any], named: str | None = None) -> type[Kind]:
    """The kind of a checkpoint.

    Args:
        model: its name or folder, for errors.
        config: what its config.json says.
        named: what the user says it is; None = by its architecture.

    Raises:
        UserError: there is no such kind, or it cannot be told from the architecture.
    """
    if named is not None:
        if named not in KINDS:
            raise UserError(f"no kind of PRM is called {named!r}: choose {', '.join([*KINDS, JUDGE])}")
        return KINDS[named]
    architectures = config.get("architectures") or []
    for architecture in architectures:
        if architecture == "Qwen2ForProcessRewardModel":
            return QwenPrm
        if architecture.endswith("ForTokenClassification"):
            return TokenClassifier
        # Any language model could be asked for + or -, and few were trained to answer.
        if architecture.endswith("ForCausalLM") and "shepherd" in model.lower():
            return MathShepherd
    raise UserError(
        f"{model} is a {' and '.join(architectures) or 'model of unknown architecture'}, which is not known "
        f"as a PRM; if it is one, say of which kind with --prm-kind: {', '.join([*KINDS, JUDGE])}"
    )
