"""What `serve` adds to a request, and how it bears 200 clients: `python tests/benchmarks/serve.py`.

A scripted upstream server, ours and the clients are a process each. At concurrency 1 the same prompt is asked
for at the upstream server's /v1/completions, as a stream that is read to its end, and through ours, in turns;
the controller opens a single branch. Then so many clients ask at once, each several times, for several
branches a chat. The script's own time counts in both: it is Python too.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chatting import ChatServer, server_for  # noqa: E402
from streaming import ASK, END, MODEL  # noqa: E402

from env.program import Program  # noqa: E402
from env.serve.app import Limits, serve  # noqa: E402
from tests.programs import shipped  # noqa: E402

QUESTION = "what is it"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "seed": 1}
COMPLETION = {
    "model": MODEL,
    "prompt": [*map(ord, f"user: {QUESTION}\n"), ASK],
    "stream": True,
    "seed": 1,
    "max_tokens": 400,
    "stop_token_ids": [END],
    "logprobs": None,
}


async def upstream(tokens: int) -> None:
    server = ChatServer(tokens_an_event=tokens)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", flush=True)
    await listening.serve_forever()


async def ours(url: str, branches: int, apart: bool) -> None:
    program = shipped("self_consistency")
    if apart:
        program = Program(program.name, program.source)
    server, close = server_for(url, program=program, settings={"max_branches": branches}, limits=Limits(1024))
    try:
        await serve(server, "127.0.0.1", 0, lambda said: print(said.split()[-1], flush=True))
    finally:
        await close()


async def clients(direct: str, through: str, many: str, args: argparse.Namespace) -> None:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(url: str, body) -> float:
            begin = time.perf_counter()
            async with session.post(url, json=body) as response:
                said = await response.read()
                assert response.status == 200 and b"usage" in said, said
            return time.perf_counter() - begin

        found: dict[str, list[float]] = {direct: [], through: []}
        for _ in range(args.requests):
            found[direct].append(await ask(direct, COMPLETION))
            found[through].append(await ask(through, CHAT))
        medians = [1000 * statistics.median(found[url][args.requests // 10 :]) for url in (direct, through)]
        added = sorted(b - a for a, b in zip(found[direct], found[through], strict=True))
        print(
            f"one at a time: {medians[0]:.2f} ms without, {medians[1]:.2f} ms through serve; it adds "
            f"{1000 * statistics.median(added):.2f} ms (10% under {1000 * added[len(added) // 10]:.2f}, "
            f"90% under {1000 * added[len(added) * 9 // 10]:.2f})"
        )

        async def client(number: int) -> list[float]:
            body = CHAT | {
                "seed": number,
                "stream": number % 2 == 0,
                "stream_options": {"include_usage": True},
            }
            return [await ask(many, body) for _ in range(args.rounds)]

        begin = time.perf_counter()
        results = await asyncio.gather(*map(client, range(args.clients)), return_exceptions=True)
        seconds = time.perf_counter() - begin
        failures = [each for each in results if isinstance(each, BaseException)]
        times = sorted(each for some in results if isinstance(some, list) for each in some)
        print(
            f"{args.clients} clients at once, {args.rounds} chats of {args.branches} branches each: "
            f"{len(failures)} failed, {len(times) / seconds:.0f} chats/s, "
            f"p50 {times[len(times) // 2]:.2f} s, p95 {times[len(times) * 95 // 100]:.2f} s"
        )
        if failures:
            raise failures[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=300, help="one at a time")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5, help="chats of each client")
    parser.add_argument("--branches", type=int, default=4, help="of each of those")
    parser.add_argument("--tokens", type=int, default=4, help="of an event of the upstream server")
    parser.add_argument("--apart", action="store_true", help="the controller in locked-down children")
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        asyncio.run({"upstream": upstream, "ours": ours}[args.run[0]](*args.run[1:]))
        return
    started: list[subprocess.Popen] = []

    def start(*what) -> str:
        process = subprocess.Popen(
            [sys.executable, __file__, "--run", json.dumps(what)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    try:
        url = start("upstream", args.tokens)
        one, many = (start("ours", url, branches, args.apart) for branches in (1, args.branches))
        ends = f"{url}/v1/completions", f"{one}/chat/completions", f"{many}/chat/completions"
        asyncio.run(clients(*ends, args))
    finally:
        for process in started:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
