"""Live episodes against a scripted server of another process, and a bare loop that sends the same requests.

    python tests/benchmarks/live.py                     64 problems in flight, 8 branches each
    python tests/benchmarks/live.py --seconds 0         a server that answers as fast as it can

The bare loop asks with the same package, reads each reply to its end as JSON, and does nothing with it. What
is lost beside it is ours: cutting, answers, the ledger, the log and the controller's own time. Processor
seconds are of the asking process alone; on a machine that does other things they are the steadier figure.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from collect.live.server import ServerStreams  # noqa: E402
from env.live.bench import Bench, Question  # noqa: E402
from env.live.folder import CallLog, RunFolder  # noqa: E402
from env.live.player import Player  # noqa: E402
from env.live.run import play_all  # noqa: E402
from env.tasks import load_task  # noqa: E402
from tests.programs import shipped  # noqa: E402
from tests.streaming import StreamingServer, scripted_model  # noqa: E402


async def serve(seconds: float, tokens: int) -> None:
    server = StreamingServer(seconds=seconds, tokens_an_event=tokens)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=4096)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


async def live(url: str, program, questions, in_flight: int, branches: int) -> tuple[float, list[bytes]]:
    """Seconds that the run took, and the requests that it sent."""
    sent: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        log = CallLog(Path(folder))
        model = scripted_model(url, seconds=600, log=log, confidence=False)
        (place,) = model.arms[0].places
        original = place.stream

        def recording(request):
            sent.append(request)
            return original(request)

        place.stream = recording
        player = Player(program, 0.5, {"max_branches": branches})
        begin = time.monotonic()
        rows = await play_all(
            Bench(model, player, load_task("exact")), questions, [0], in_flight, RunFolder(Path(folder), {})
        )
        seconds = time.monotonic() - begin
        await model.close()
        player.close()
        log.close()
    assert not any(row["error"] for row in rows), rows[0]["error"]
    assert sum(row["usage"]["requests"] for row in rows) == len(sent) == branches * len(questions)
    return seconds, sent


async def bare(url: str, requests, in_flight: int, branches: int) -> float:
    """Seconds for the same requests, the branches of a problem at once and as many problems."""
    from collect.endpoint import Served

    place = ServerStreams(Served(url, "scripted", 4096, None), seconds=600)
    groups: dict[tuple, list] = {}
    for request in requests:
        groups.setdefault(tuple(request.prompt), []).append(request)
    todo = deque(groups.values())

    async def ask(request) -> int:
        from collect.live.server import _body

        create, count, rest = place._client.completions.with_streaming_response.create, 0, b""
        async with create(model="scripted", prompt="", stream=True, extra_body=_body(request)) as response:
            async for chunk in response.iter_bytes():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: {"):
                        count += len(json.loads(line[6:])["choices"])
        return count

    async def work() -> None:
        while todo:
            await asyncio.gather(*(ask(request) for request in todo.popleft()))

    begin = time.monotonic()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    seconds = time.monotonic() - begin
    await place.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", type=int, default=192)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--branches", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.05, help="between two events of a reply")
    parser.add_argument("--tokens", type=int, default=4, help="of an event")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--apart", action="store_true", help="the controller in locked-down children")
    parser.add_argument("--serve", action="store_true", help="be the server")
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.seconds, args.tokens))
        return
    program = shipped("self_consistency")
    if args.apart:
        program = type(program)(program.name, program.source)
    questions = [Question(f"What is {n}?", "0") for n in range(args.problems)]
    command = [
        sys.executable,
        __file__,
        "--serve",
        "--seconds",
        str(args.seconds),
        "--tokens",
        str(args.tokens),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            found = []
            # Whatever is loaded on first use is loaded.
            asyncio.run(live(url, program, questions[:2], args.in_flight, args.branches))
            for _ in range(args.runs):
                marks = [time.process_time()]
                ours, sent = asyncio.run(live(url, program, questions, args.in_flight, args.branches))
                marks.append(time.process_time())
                theirs = asyncio.run(bare(url, sent, args.in_flight, args.branches))
                marks.append(time.process_time())
                found.append(theirs / ours)
                spent = marks[1] - marks[0], marks[2] - marks[1]
                print(
                    f"live {ours:.2f} s, bare {theirs:.2f} s: {theirs / ours:.0%} of its speed; "
                    f"processor {spent[0]:.2f} s and {spent[1]:.2f} s",
                    flush=True,
                )
            print(f"best of {args.runs}: {max(found):.0%}; {len(sent) / ours:,.0f} requests a second")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
