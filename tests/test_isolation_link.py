import os
import time

import pytest

from env.episode import HEADER, MAGIC
from env.isolation import wire
from env.isolation.link import Failure, Gone, Limits, Link
from env.isolation.wire import pack


@pytest.fixture
def ends():
    """A link with two episodes, and what the child would write to and read from."""
    theirs_in, outbox = os.pipe()
    inbox, theirs_out = os.pipe()
    link = Link(inbox, outbox, 2, True, Limits(wall=5.0, traffic=1 << 20, text=1000))
    yield link, theirs_out, theirs_in
    link.close()
    os.close(theirs_in)
    os.close(theirs_out)


def notice(value) -> bytes:
    data = pack(value)
    return HEADER.pack(wire.NOTICE, 0, 0, 0, 0, 0, len(data)) + data


FRAME = HEADER.pack(MAGIC, 1, 0, 0, 1, 0, 0) + bytes(12)


def test_a_frame_in_pieces(ends):
    link, out, _ = ends
    message = notice({"settings": {"n": 1}}) + FRAME
    for byte in message[:-1]:
        os.write(out, bytes([byte]))
        assert link.receive() is None
    os.write(out, message[-1:])
    assert link.receive() == FRAME and link.settings == {"n": 1} and link.unanswered == 1


def test_a_frame_before_the_settings(ends):
    link, out, _ = ends
    os.write(out, FRAME)
    with pytest.raises(Failure, match="out of turn"):
        link.receive()


def test_traffic_is_bounded_however_small_the_pieces(ends):
    link, out, _ = ends
    os.write(out, notice({"settings": {}}) + HEADER.pack(MAGIC, 1, 400, 9_000, 0, 0, 0))
    link.receive()
    with pytest.raises(Failure, match="more than 1024 KiB"):
        for _ in range(2_000):
            os.write(out, b"x")
            link.receive()


def test_a_long_reply_waits_for_room(ends):
    link, _, theirs_in = ends
    reply = os.urandom(300_000)
    link.send(reply)
    assert link.unsent
    heard = b""
    while len(heard) < len(reply) + 4:
        heard += os.read(theirs_in, 1 << 16)
        link.flush()
    assert heard[4:] == reply and not link.unsent


def test_nobody_speaks_before_hearing_us_out(ends):
    link, out, _ = ends
    link.send(bytes(300_000))
    os.write(out, FRAME)
    with pytest.raises(Failure, match="heard us out"):
        link.receive()


def test_nobody_speaks_twice_before_our_answer(ends):
    link, out, _ = ends
    os.write(out, notice({"settings": {}}) + FRAME)
    assert link.receive() == FRAME
    os.write(out, HEADER.pack(MAGIC, 2, 0, 0, 1, 0, 0) + bytes(12))
    with pytest.raises(Failure, match="heard us out"):
        link.receive()


def test_our_own_time_is_not_counted(ends):
    link, out, _ = ends
    os.write(out, notice({"settings": {}}) + FRAME)
    assert link.receive() == FRAME
    link.check_patience(time.monotonic() + 60)
    link.send(b"")
    with pytest.raises(Failure, match="kept us waiting"):
        link.check_patience(time.monotonic() + 6)


def test_a_closed_pipe(ends):
    link, out, _ = ends
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, out)
    os.close(null)
    with pytest.raises(Gone):
        link.receive()


def test_patience(ends):
    link, _, _ = ends
    link.check_patience(time.monotonic() + 4)
    with pytest.raises(Failure, match="kept us waiting"):
        link.check_patience(time.monotonic() + 6)
