"""Counting the tokens of texts, where whoever wrote them did not."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from collect.importers.checking import ImportFileError

Counter = Callable[[Sequence[str]], list[int]]


def load_counter(name: str) -> Counter:
    """What counts the tokens of each piece of a text that was cut into pieces, given in order.

    The text is encoded whole and without special tokens; a token across a cut belongs to the piece after it.

    Args:
        name: a tokenizer.json, or a model on the Hugging Face hub.

    Raises:
        ImportFileError: the package `tokenizers` is not installed, or the tokenizer cannot be loaded.
    """
    try:
        from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ImportFileError("--tokenizer needs a package: run `pip install tokenizers`") from None
    try:
        tokenizer = Tokenizer.from_file(name) if Path(name).is_file() else Tokenizer.from_pretrained(name)
    # The package raises bare Exceptions.
    except Exception as error:
        raise ImportFileError(
            f"the tokenizer {name} cannot be loaded: {error}; name a tokenizer.json or a model of the hub"
        ) from error

    def count(pieces: Sequence[str]) -> list[int]:
        encoding = tokenizer.encode("".join(pieces), add_special_tokens=False)
        # Ends, because some tokenizers leave the white space before a token out of its offsets.
        ends = [end for _, end in encoding.offsets]
        cuts = [bisect.bisect_right(ends, cut) for cut in accumulate(map(len, pieces[:-1]))]
        return [last - first for first, last in pairwise([0, *cuts, len(ends)])]

    return count
