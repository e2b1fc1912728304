"""The formats that `autotts import` reads, in words."""

from typing import NamedTuple

JSONL = """\
Make a store of your own samples: a line a branch, a JSON object with the fields

  problem   the problem's text; lines with the same text are branches of one problem
  gold      the right answer, a string
  text      what the model wrote
  tokens    how many tokens that is; left out, it is counted with --tokenizer
  answer    the final answer, null if there is none; left out, the task reads it out of the text
  probes    what the model answered when it was stopped on the way: [{"tokens": 500, "answer": "12"}, ...],
            tokens counted from the branch's beginning; "cost" may say what asking took

{"problem": "What is 1 + 1?", "gold": "2", "text": "... \\\\boxed{2}", "tokens": 31}
"""
LM_EVAL = """\
Make one store of samples that lm-evaluation-harness logged with --log_samples, of tasks that generate text.

All replies to a question become branches, whatever a filter made of them; `repeats` in the harness's task
makes them many. The harness does not record tokens: they are counted.
"""
INSPECT = """\
Make one store of logs of inspect_ai (`pip install inspect_ai`).

The epochs of a sample become branches, with the tokens that the log has for each. A run must be complete and
a sample a single reply of the model.
"""
BEST_OF_N = """\
Make one store of completions with the step scores of a process reward model, as HuggingFaceH4 publishes and
search-and-learn writes them: a row a problem, with the columns

  problem             the problem's text
  answer (or gold)    the right answer
  completions         a list of texts, sampled independently
  scores              for each of them a list of numbers, a score a step
  completion_tokens   for each of them how many tokens it has

With --tokenizer, steps (parts between blank lines, else lines) become segments where a completion has as many
steps as scores. Without, the tokens of a step are unknown, and a completion is one segment.
"""


class Format(NamedTuple):
    """What the parser of a format says.

    Attributes:
        line: of it in a list.
        description: of it, at length.
        file: what FILE is.
        model: what the model is called unless the user says.
        dataset: what the dataset is called unless the user says.
    """

    line: str
    description: str
    file: str
    model: str = "unknown"
    dataset: str = "the files' names"


FORMATS = {
    "autotts": Format(
        "recordings published with AutoTTS: FILE is MODEL/DATASET.json",
        "Make a store of each recording published with AutoTTS. "
        "Of several files, each becomes the store OUT/MODEL/DATASET.",
        "MODEL/DATASET.json",
        "the file's folder",
        "the file's name without .json",
    ),
    "jsonl": Format(
        "your own samples, a line a branch: problem, gold, text, tokens, answer, probes",
        JSONL,
        "JSON lines",
        dataset="the file's name without its ending",
    ),
    "lm-eval": Format(
        "samples logged by lm-evaluation-harness: samples_TASK_DATE.jsonl",
        LM_EVAL,
        "MODEL/samples_TASK_DATE.jsonl",
        "the files' folder",
        "the harness's task",
    ),
    "inspect": Format("logs of inspect_ai: .eval", INSPECT, "a log", "as logged", "inspect's task"),
    "best-of-n": Format(
        "completions with step scores of a reward model, as of search-and-learn",
        BEST_OF_N,
        "JSON lines, Parquet, or a dataset on Hugging Face (needs `pip install datasets`)",
    ),
}
