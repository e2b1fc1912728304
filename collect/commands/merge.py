"""Put the shards of a collection together: the store that one run would have made.

autotts collect ... --out parts/1 --shard 1/8
...
autotts collect ... --out parts/8 --shard 8/8
autotts merge parts/* --out stores/mine
"""

import argparse
from pathlib import Path

from env.rooms import Rooms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts merge`."""
    parser.add_argument("part", nargs="+", type=Path, metavar="PART", help="the store of a shard")
    parser.add_argument("--out", required=True, type=Path, metavar="STORE", help="the folder to make")
    parser.add_argument("--force", action="store_true", help="replace a store that is at STORE")


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Merge, and print what was made.

    Raises:
        UserError: the parts do not fit together, or something is in the way.
    """
    from collect.merging import merge
    from env.store import Store

    merge(args.part, args.out, args.force)
    print(f"{args.out}: {len(args.part)} shards, {Store.open(args.out).contents}")
    return 0
