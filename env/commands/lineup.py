"""What `autotts evaluate --all` says and draws of all controllers together."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from env import files

if TYPE_CHECKING:
    from env.evaluate import Episodes
    from env.lineup import Entry
    from env.program import Program
    from env.store import Store

PICTURE = "frontiers.html"


def side_by_side(
    episodes: "Episodes",
    stores: "Sequence[Store]",
    programs: "Sequence[Program]",
    left_out: Sequence[str],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Print how the controllers stand, draw them, and return the figures as plain values.

    Args:
        left_out: a sentence for each controller that the stores have not the means for.
    """
    from env.commands.tables import show_lineup
    from env.drawing.lineup import page
    from env.failures import never_ran
    from env.frontier import reference
    from env.lineup import by_difficulty, lineup
    from env.program import needs
    from env.statistics import resolution

    references = {store.path: reference(store.forest(), args.protocol) for store in stores}
    failed = never_ran(episodes.frame)
    frame = episodes.frame.filter(~episodes.frame["controller"].is_in(list(failed)))
    entries = lineup(frame, references)
    levels = by_difficulty(frame, references)
    verifiers = {program.name for program in programs if "prm" in needs(program.source)}
    show_lineup(entries, verifiers)
    broken = [
        f"{name} is not among them, since all of its episodes failed: {why}" for name, why in failed.items()
    ]
    notes = [*_too_few(entries), *left_out, *broken]
    for sentence in notes:
        print(sentence)
    played = resolution(episodes.frame)
    facts = [
        ("stores", ", ".join(f"{store.dataset}: {store.model}" for store in stores)),
        ("problems", f"{played.problems}, of which {played.problems_in_play} tell controllers apart"),
        ("seeds", str(args.seeds)),
        ("protocol", f"{args.protocol}; probes of unknown cost count {args.probe_tokens} tokens"),
    ]
    datasets = list(dict.fromkeys(store.dataset for store in stores))
    picture = args.out / PICTURE
    files.write(
        picture, page(entries, levels, verifiers, datasets=datasets, facts=facts, notes=notes).encode()
    )
    print(f"picture: {picture}")
    return {
        "lineup": [entry.as_json() for entry in entries],
        "difficulty": [level.as_json() for level in levels],
        "left_out": list(left_out),
    }


def _too_few(entries: "Sequence[Entry]") -> Iterator[str]:
    """What to know of a store that has not the branches which self-consistency asks for."""
    from env.lineup import BASELINE

    for entry in entries:
        if entry.controller == BASELINE and not all(place.replayable for place in entry.points):
            yield (
                "self_consistency asks for more branches than there are: where it is to have more, it is "
                "taken with those that it got"
            )
