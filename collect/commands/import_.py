"""Make stores of recordings: the ones published with AutoTTS, or your own as plain JSON lines.

autotts import autotts recordings/Qwen3-0.6B/aime24.json --out stores/aime24
autotts import autotts recordings/*/aime24.json --out stores
autotts import jsonl samples.jsonl --out stores/mine --model my-model
"""

import argparse
from pathlib import Path

from env.rooms import Rooms

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts import`."""
    formats = parser.add_subparsers(dest="format", metavar="FORMAT", required=True)
    published = formats.add_parser(
        "autotts",
        help="recordings published with AutoTTS: FILE is MODEL/DATASET.json",
        description="Make a store of each recording published with AutoTTS, MODEL/DATASET.json. "
        "Of several files, each becomes the store OUT/MODEL/DATASET.",
    )
    published.add_argument("file", nargs="+", type=Path, metavar="FILE", help="MODEL/DATASET.json")
    published.add_argument("--model", help="the model's name; default: the file's folder")
    published.add_argument("--dataset", help="the dataset's name; default: the file's name without .json")
    lines = formats.add_parser(
        "jsonl",
        help="your own samples, a line a branch: problem, gold, text, tokens, answer, probes",
        description=JSONL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    lines.add_argument("file", type=Path, metavar="FILE", help="JSON lines")
    lines.add_argument("--model", default="unknown", help="the model's name; default: unknown")
    lines.add_argument("--dataset", help="the dataset's name; default: the file's name without its ending")
    lines.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="count the tokens of lines that do not say: a tokenizer.json, or a model on Hugging Face "
        "(needs `pip install tokenizers`)",
    )
    for each in (published, lines):
        each.add_argument("--out", required=True, type=Path, metavar="STORE", help="the folder to make")
        each.add_argument(
            "--task",
            default="math",
            help="how answers are read, compared and graded: math, choice, exact, or your own module:Class; "
            "default: math",
        )
        each.add_argument("--force", action="store_true", help="replace a store that is there")


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Import, and print a line for every store that was made.

    Raises:
        UserError: a file or a store is in the way, missing or malformed.
    """
    from env.commands.terminal import progress_bar

    with progress_bar("importing") as progress:
        if args.format == "autotts":
            from collect.importers.autotts import import_files

            options = {"model": args.model, "dataset": args.dataset, "task": args.task, "force": args.force}
            import_files(args.file, args.out, **options, progress=progress, made=_report)
        else:
            from collect.importers.jsonl import import_file

            options = {"dataset": args.dataset, "task": args.task, "tokenizer": args.tokenizer}
            import_file(args.file, args.out, args.model, **options, force=args.force, progress=progress)
            _report(args.out)
    return 0


def _report(path: Path) -> None:
    from env.store import Store

    store = Store.open(path)
    counts = store.meta["counts"]
    print(
        f"{path}: {store.model} on {store.dataset}, {counts['problems']} problems, "
        f"{counts['branches']} branches, {counts['nodes']} segments"
    )
