r"""Serve a controller as an OpenAI-compatible endpoint, in front of a model at a vLLM server.

autotts serve --controller mine.py --beta 0.5 --upstream http://localhost:8000
autotts serve --controller mine.py --beta 0.5 --upstream http://localhost:8000 --store stores/mine

Clients call the model by its name at the upstream server, or by that with a beta behind it, such as
"Qwen/Qwen3-8B@0.25". A reply is the text of the branch that won. A chat with nothing to vote on gets a single
branch, and so does whatever a vote has no meaning for: tools, a response format, images, several choices. If
AUTOTTS_API_KEY is set, clients must have that key; the upstream server's own is read from VLLM_API_KEY.
"""

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING

from collect.commands import asking, where
from env.commands.options import add_controller, add_settings, beta, natural, positive
from env.errors import UserError
from env.rooms import Rooms

if TYPE_CHECKING:
    from collect.live.model import LiveModel
    from env.live.player import Player
    from env.serve.app import Server

# What clients must have, if it is set.
KEY = "AUTOTTS_API_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `autotts serve`."""
    add_controller(parser)
    parser.add_argument(
        "--beta",
        type=beta,
        required=True,
        metavar="B",
        help="from 0, cheap, to 1, thorough; where clients do not say",
    )
    add_settings(parser)
    parser.add_argument(
        "--task",
        default="math",
        help="how answers are read and compared: math, choice, exact, or your own module:Class; "
        "default: math",
    )
    parser.add_argument(
        "--max-branches",
        type=positive,
        default=64,
        metavar="N",
        help="branches a chat may open at the root; default: 64",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="to listen at; default: this machine alone"
    )
    parser.add_argument("--port", type=natural, default=8080, metavar="N", help="default: 8080; 0: any")
    parser.add_argument(
        "--max-requests", type=positive, default=256, metavar="N", help="under way at a time; default: 256"
    )
    parser.add_argument(
        "--max-body", type=positive, default=4 * 2**20, metavar="BYTES", help="of a request; default: 4 MiB"
    )
    parser.add_argument(
        "--i-trust-this-code",
        action="store_true",
        help="run a controller of others even where this machine cannot isolate it",
    )
    # By the other name, too, for that is what errors of servers speak of.
    asking.add_arguments(parser, problems=False, servers=("--upstream", "--server"))


def run(args: argparse.Namespace, rooms: Rooms) -> int:
    """Serve until a signal.

    Raises:
        UserError: the controller, the server, the address or an option cannot be used.
    """
    program = rooms.program(args.controller)
    _check_installed()
    if not args.server:
        raise UserError("--upstream is missing: which vLLM server has the model? (http://localhost:8000)")
    from collect.live.model import NoLog
    from env.live.player import Player

    where.Where(args).check_vllm()
    asked = asking.read(args, add_arguments)
    # The checker is loaded before the first chat needs it.
    asked.task.extract("Hello!")
    if not os.environ.get(KEY) and args.host not in LOOPBACK:
        print(f"whoever reaches {args.host} may use this; set {KEY} to ask for a key", file=sys.stderr)
    player = Player(program, args.beta, dict(args.set), i_trust_this_code=args.i_trust_this_code)
    places = asking.open_places(args, asked.plan)
    model = asking.open_model(args, asked, places, program, NoLog())
    asyncio.run(_serve(args, _server(args, asked, model, player), model, player))
    return 0


def _server(args: argparse.Namespace, asked: asking.Asked, model: "LiveModel", player: "Player") -> "Server":
    from collect.endpoint import SECONDS, key
    from collect.live.chat import LiveChats
    from env.serve.app import Limits, Server
    from env.serve.chats import Chats
    from env.serve.relay import Place, Relay
    from env.serve.request import Offer

    places = [Place(place.where, place.name, place.context) for place in model.arms[0].places]
    offer = Offer(places[0].model, args.beta, asked.plan.drawing.max_tokens, args.max_branches)
    return Server(
        offer,
        Chats(LiveChats(model), player, asked.task, args.max_branches),
        Relay(places, key(), offer, args.server_timeout, max(args.server_timeout, SECONDS)),
        Limits(args.max_requests, args.max_body),
        os.environ.get(KEY) or None,
    )


async def _serve(args: argparse.Namespace, server: "Server", model: "LiveModel", player: "Player") -> None:
    from env.serve.app import serve

    try:
        await serve(server, args.host, args.port, lambda said: print(said, file=sys.stderr, flush=True))
    finally:
        await server.close()
        await model.close()
        player.close()


def _check_installed() -> None:
    try:
        import aiohttp  # noqa: F401
    except ImportError:
        raise UserError("serving needs aiohttp: run `pip install 'autotts[serve]'`") from None
