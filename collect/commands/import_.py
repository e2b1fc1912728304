"""Make stores of what exists already: recordings, logs of evaluations, your own samples.

autotts import autotts recordings/Qwen3-0.6B/aime24.json --out stores/aime24
autotts import autotts recordings/*/aime24.json --out stores
autotts import jsonl samples.jsonl --out stores/mine --model my-model
autotts import lm-eval results/my-model/samples_gsm8k_*.jsonl --tokenizer me/my-model --out stores/gsm8k
autotts import inspect logs/2026-01-31_aime.eval --out stores/aime
autotts import best-of-n completions.parquet --tokenizer me/my-model --out stores/math
"""

import argparse
from importlib import import_module
from pathlib import Path

from collect.commands.import_formats import FORMATS
from env.rooms import Rooms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts import`."""
    formats = parser.add_subparsers(dest="format", metavar="FORMAT", required=True)
    for name, form in FORMATS.items():
        each = formats.add_parser(
            name,
            help=form.line,
            description=form.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        each.add_argument("file", nargs=None if name == "jsonl" else "+", metavar="FILE", help=form.file)
        default = "unknown" if form.model == "unknown" else None
        each.add_argument("--model", default=default, help=f"the model's name; default: {form.model}")
        each.add_argument("--dataset", help=f"the dataset's name; default: {form.dataset}")
        if name != "autotts":
            each.add_argument(
                "--tokenizer",
                required=name == "lm-eval",
                metavar="NAME",
                help="counts tokens that were not recorded: a tokenizer.json, or a model on Hugging Face "
                "(needs `pip install tokenizers`)",
            )
        if name == "lm-eval":
            each.add_argument(
                "--question",
                metavar="FIELD",
                help="the field of a document with its question, or `prompt` for all that the model was "
                "sent; default: question, problem, query, input or prompt, whichever there is",
            )
        if name == "best-of-n":
            each.add_argument("--prm", metavar="NAME", help="the reward model's name; default: unknown")
            each.add_argument("--config", help="of a dataset on Hugging Face")
            each.add_argument("--split", default="train", help="of a dataset on Hugging Face; default: train")
            each.add_argument("--revision", help="of a dataset on Hugging Face; default: the newest")
        each.add_argument("--out", required=True, type=Path, metavar="STORE", help="the folder to make")
        each.add_argument(
            "--task",
            default="math",
            help="how answers are read, compared and graded: math, choice, exact, or your own module:Class; "
            "default: math",
        )
        each.add_argument("--force", action="store_true", help="replace what is at STORE")


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Import, and print a line for every store that was made.

    Raises:
        UserError: a file or a store is in the way, missing or malformed.
    """
    from env.commands.terminal import progress_bar

    modules = {"lm-eval": "lm_eval", "inspect": "inspect_ai", "best-of-n": "best_of_n"}
    importer = import_module(f"collect.importers.{modules.get(args.format, args.format)}")
    options = {name: value for name, value in vars(args).items() if name not in ("format", "file", "out")}
    with progress_bar("importing") as progress:
        if args.format == "autotts":
            importer.import_files(args.file, args.out, **options, progress=progress, made=_report)
            return 0
        work = importer.import_file if args.format == "jsonl" else importer.import_files
        work(args.file, args.out, **options, progress=progress)
        _report(args.out)
    return 0


def _report(path: Path) -> None:
    from env.store import Store

    print(f"{path}: {Store.open(path).contents}")
