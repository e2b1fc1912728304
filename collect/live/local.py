"""Streams of a vLLM engine in this process: it works in a thread of its own, a step at a time."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from queue import Empty, SimpleQueue
from typing import Any

from collect.engine import Request
from collect.live.streams import Piece
from collect.local import LocalEngine, parameters, values_of
from env.live.model import ModelError


class LocalStreams:
    """One engine; see `collect.live.streams.Streams`. It takes the engine over, and closes it."""

    def __init__(self, engine: LocalEngine) -> None:
        self.where, self.context, self.sessions = engine.model, engine.context, 0
        self._engine = engine
        # A request to begin, the number of one to give up, or the end.
        self._orders: SimpleQueue[tuple[str, Request] | str | None] = SimpleQueue()
        self._queues: dict[str, asyncio.Queue[Piece | ModelError]] = {}
        self._count = 0
        self._failure: ModelError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    async def stream(self, request: Request) -> AsyncGenerator[Piece, None]:
        """See `Streams`."""
        if self._failure is not None:
            raise self._failure
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        self._count += 1
        number = str(self._count)
        queue = self._queues[number] = asyncio.Queue()
        finish = None
        self._orders.put((number, request))
        try:
            while finish is None:
                piece = await queue.get()
                if isinstance(piece, ModelError):
                    raise piece
                finish = piece.finish
                yield piece
        finally:
            del self._queues[number]
            if finish is None:
                self._orders.put(number)

    async def capacity(self) -> int | None:
        """See `Streams`."""
        cache = self._engine.config.cache_config
        return int(cache.num_gpu_blocks) * int(cache.block_size)

    async def preemptions(self) -> int | None:
        """See `Streams`; an engine counts them only for its log."""
        return None

    async def close(self) -> None:
        """See `Streams`."""
        if self._loop is not None:
            self._orders.put(None)
            await asyncio.to_thread(self._thread.join)
        self._engine.close()

    def _work(self) -> None:
        engine = self._engine.vllm
        try:
            while (order := self._next(wait=not engine.has_unfinished_requests())) is not None:
                if order is not False:
                    self._obey(engine, order)
                else:
                    self._tell({output.request_id: _piece(output) for output in engine.step()})
        # Whatever it is, nobody may wait for ever.
        except Exception as error:
            assert self._loop is not None
            failure = ModelError(f"vLLM stopped: {error}; run the same command again")
            self._loop.call_soon_threadsafe(self._fail, failure)

    def _next(self, wait: bool) -> Any:
        """The next order; False if there is none."""
        try:
            return self._orders.get(wait)
        except Empty:
            return False

    def _obey(self, engine: Any, order: tuple[str, Request] | str) -> None:
        if isinstance(order, str):
            engine.abort_request([order])
            return
        from vllm.sampling_params import RequestOutputKind

        number, request = order
        asked = parameters(request)
        asked.output_kind = RequestOutputKind.DELTA
        try:
            engine.add_request(number, {"prompt_token_ids": list(request.prompt)}, asked)
        except ValueError as error:
            self._tell({number: ModelError(f"vLLM refuses a request: {error}")})

    def _fail(self, failure: ModelError) -> None:
        """In the event loop, so that no stream begins between what is told here and what it finds there."""
        self._failure = failure
        self._hand_out(dict.fromkeys(self._queues, failure))

    def _tell(self, pieces: dict[str, Any]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._hand_out, pieces)

    def _hand_out(self, pieces: dict[str, Any]) -> None:
        for number, piece in pieces.items():
            if number in self._queues:
                self._queues[number].put_nowait(piece)


def _piece(output: Any) -> Piece:
    (completion,) = output.outputs
    ids = list(completion.token_ids)
    _, confidence = values_of(completion.logprobs)
    finish = None
    if output.finished:
        finish = "length" if completion.finish_reason == "length" else "stop"
    return Piece(ids, confidence, finish, output.num_cached_tokens or 0)
