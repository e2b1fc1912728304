"""An engine of this process that breaks: whoever waits for it is told, and whoever comes later."""

import asyncio
from types import SimpleNamespace

import pytest

from collect.engine import Request, Sampling
from collect.live.local import LocalStreams
from collect.live.streams import Piece
from env.live.model import ModelError


class Broken:
    """As vLLM's engine, but for its health."""

    def has_unfinished_requests(self) -> bool:
        raise RuntimeError("out of memory")


async def first_piece(streams: LocalStreams) -> Piece:
    async for piece in streams.stream(Request((1, 2), 3, 0, Sampling(), ())):
        return piece
    raise AssertionError("a stream without a piece")


def test_whatever_breaks_an_engine_nobody_waits_for_ever():
    closed = []
    engine = SimpleNamespace(model="m", context=9, vllm=Broken(), close=lambda: closed.append(True))

    async def main() -> None:
        streams = LocalStreams(engine)
        for _ in range(2):
            with pytest.raises(ModelError, match="out of memory; run the same command again"):
                await asyncio.wait_for(first_piece(streams), 10)
        await streams.close()

    asyncio.run(main())
    assert closed
