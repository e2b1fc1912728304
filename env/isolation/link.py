"""The trusted end of one child's pipes: frames in, replies out, every size checked before it is read."""

import os
import time
from dataclasses import dataclass
from typing import Any

from env.episode import HEADER
from env.frames import FrameError, body_size
from env.isolation.wire import CODE, LENGTH, MAX_NOTICE, NOTICE, WireError, printable, unpack
from env.lockstep import MAX_ROUNDS

READ = 1 << 16
# A read is charged at least this much of a job's traffic, so that a frame cannot be drip-fed byte by byte.
LEAST_CHARGE = 1 << 10

_NOTICE, _CODE = NOTICE.to_bytes(4, "little"), CODE.to_bytes(4, "little")


@dataclass(frozen=True)
class Limits:
    """What one job may use.

    Attributes:
        memory: bytes of address space of its process.
        cpu: seconds of processor time, a whole number.
        wall: seconds that we wait for it, all its turns together; the time it waits for us does not count.
        traffic: bytes that it may send in all.
        text: bytes of notes and error texts that it may send in all.
    """

    memory: int = 512 << 20
    cpu: int = 20
    wall: float = 60.0
    traffic: int = 256 << 20
    text: int = 4 << 20


class Failure(Exception):
    """Why a job ends early, in words fit for its outcome."""


class Gone(Exception):
    """The child has closed its pipe, most often by ending."""


class Link:
    """Speaks with one child in turns: it sends a frame, then waits for the reply.

    Attributes:
        code: its program as code, once the child has sent it, unless it was given that; see `wire`.
        settings: what the controller's schedule resolved to, once the child has said so.
        unanswered: episodes whose final the child has not sent yet.
        unsent: the part of a reply that its pipe had no room for.
        theirs: whether it is the child's turn; it is ours from its frame to our reply.
    """

    def __init__(self, inbox: int, outbox: int, episodes: int, tracing: bool, limits: Limits) -> None:
        self.inbox, self.outbox = inbox, outbox
        self.code: bytes | None = None
        self.settings: dict[str, Any] | None = None
        self.unanswered = episodes
        self.unsent = memoryview(b"")
        self._limits = limits
        self._tracing = tracing
        self._episodes = episodes
        self._buffer = bytearray()
        self._size = self._rounds = self._traffic = self._text = 0
        self.theirs, self._waited, self._turn_began = True, 0.0, time.monotonic()
        for end in (inbox, outbox):
            os.set_blocking(end, False)

    def send(self, message: bytes) -> None:
        """Begin the child's turn; what its pipe has no room for is left in `unsent`, for `flush`."""
        self.theirs, self._turn_began = True, time.monotonic()
        size = LENGTH.pack(len(message))
        try:
            sent = os.writev(self.outbox, (size, message))
        except BlockingIOError:
            sent = 0
        except BrokenPipeError:
            # Its last words, if any, are still in the other pipe.
            return
        if sent < len(message) + LENGTH.size:
            self.unsent = memoryview(size + message)[sent:]

    def flush(self) -> None:
        """Send more of `unsent`, as far as the pipe has room."""
        try:
            self.unsent = self.unsent[os.write(self.outbox, self.unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self.unsent = memoryview(b"")

    def receive(self) -> bytes | None:
        """Read once, without waiting; the frame if that completed one.

        Raises:
            Failure: a header out of bounds, bytes out of turn, a limit passed, or the child's own word.
            Gone: the pipe is closed.
        """
        self._read()
        buffer = self._buffer
        while len(buffer) >= HEADER.size:
            if not self._size:
                self._size = self._measure(bytes(buffer[: HEADER.size]))
            if len(buffer) < self._size:
                break
            message = bytes(buffer[: self._size])
            del buffer[: self._size]
            self._size = 0
            if message.startswith(_NOTICE):
                self._notice(message[HEADER.size :])
                continue
            if message.startswith(_CODE):
                # Its own program speaks before its settings are sent, and is not heard.
                if self.code is not None or self.settings is not None:
                    raise Failure("sent code out of turn")
                self.code = message[HEADER.size :]
                continue
            if buffer:
                raise Failure("sent more than one frame in its turn")
            self._waited += time.monotonic() - self._turn_began
            self.theirs = False
            return message
        return None

    def check_patience(self, now: float) -> None:
        """Raise Failure if we have waited for this child longer than its limit allows."""
        if self.theirs and self._waited + now - self._turn_began > self._limits.wall:
            raise Failure(f"kept us waiting for more than {self._limits.wall:g} seconds")

    def close(self) -> None:
        """Close both pipes."""
        os.close(self.inbox)
        os.close(self.outbox)

    def _read(self) -> None:
        try:
            data = os.read(self.inbox, READ)
        except BlockingIOError:
            return
        if not data:
            raise Gone
        if self.unsent or not self.theirs:
            raise Failure("spoke before it had heard us out")
        self._buffer += data
        self._traffic += max(len(data), LEAST_CHARGE)
        if self._traffic > self._limits.traffic:
            raise Failure(f"sent more than {self._limits.traffic >> 10} KiB")

    def _measure(self, header: bytes) -> int:
        """The size of a message from its header, if all that the header claims can be true."""
        magic, rounds, actions, ids, finals, notes, text = HEADER.unpack(header)
        if magic in (NOTICE, CODE):
            if any((rounds, actions, ids, finals, notes)) or text > MAX_NOTICE:
                raise Failure("sent a malformed notice")
            return HEADER.size + int(text)
        try:
            size: int = HEADER.size + body_size(header, self._episodes)
        except FrameError as error:
            raise Failure(f"sent a {error}") from error
        self._rounds += 1
        if self.settings is None or rounds != self._rounds or rounds > MAX_ROUNDS + 1:
            raise Failure(f"sent a frame out of turn: round {rounds} where {self._rounds} was due")
        if finals > self.unanswered or not actions + finals:
            raise Failure(f"sent {actions} actions and {finals} answers with {self.unanswered} episodes left")
        self._text += text
        if (notes and not self._tracing) or self._text > self._limits.text:
            raise Failure(f"sent more text than it may: {notes} notes, {self._text} bytes so far")
        self.unanswered -= finals
        return size

    def _notice(self, data: bytes) -> None:
        try:
            value = unpack(data)
        except WireError as error:
            raise Failure(f"sent a malformed notice: {error}") from error
        match value:
            case {"error": str(text), **rest} if not rest:
                raise Failure(printable(text))
            case {"settings": dict(settings), **rest} if not rest and self.settings is None:
                self.settings = settings
            case _:
                raise Failure("sent a notice of a kind that there is not")
