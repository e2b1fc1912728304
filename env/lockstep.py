"""The runner: drives the coroutines of many episodes in lockstep, one frame a round (see `env.episode`).

Like the frames themselves it is the same in this process and in the locked-down child, and needs no more than
the standard library.
"""

import gc
from array import array
from collections.abc import Callable, Generator, Mapping, Sequence
from struct import pack
from typing import Any

from env.episode import HEADER, MAGIC, MAX_ERROR, PRUNE, Answer, ControllerError, Episode, Reply

# What a controller is compiled as, by which errors find their line in it.
SOURCE_NAME = "<controller>"
MAX_ROUNDS = 20_000
Ready = tuple[int, Answer | list[Answer] | None]


def resolve(program: Mapping[str, Any], beta: float, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a controller at beta, with overrides from outside.

    Raises:
        ControllerError: an override names a setting that the schedule does not have.
    """
    settings = dict(program["schedule"](beta))
    unknown = sorted(set(overrides) - set(settings))
    if unknown:
        raise ControllerError(f"no setting {unknown[0]!r}: the schedule has {', '.join(map(str, settings))}")
    return settings | dict(overrides)


def play(
    solve: Callable[..., Any],
    settings: Mapping[str, Any],
    episodes: Sequence[Episode],
    exchange: Callable[[bytes], bytes | bytearray],
) -> None:
    """Run one coroutine an episode to its end, all that are ready in one frame a round.

    `exchange` takes a frame and returns a reply. An episode that raises ends with the error as its outcome;
    the others go on.
    """
    collecting = gc.isenabled()
    # Episodes hold much and make no cycles to speak of; looking for some costs a third of the time.
    gc.disable()
    turns = rounds(solve, settings, episodes)
    try:
        frame = next(turns, None)
        while frame is not None:
            frame = turns.send(exchange(frame))
    except StopIteration:
        pass
    finally:
        if collecting:
            gc.enable()


def describe(error: BaseException) -> str:
    """An error of a controller in one line, with the line of the program where it happened."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == SOURCE_NAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = f"{type(error).__name__}: {error}"
    except Exception:
        message = type(error).__name__
    return message[:MAX_ERROR] + (f" (line {line} of the controller)" if line else "")


def rounds(
    solve: Callable[..., Any], settings: Mapping[str, Any], episodes: Sequence[Episode]
) -> Generator[bytes, bytes | bytearray, None]:
    """The same for whoever answers in his own time: yields a frame a round, and is sent its reply."""
    frame = _Frame()
    sends: dict[int, Callable[[Any], Any]] = {}
    several: dict[int, int] = {}
    ready: list[Ready] = []
    number, reply = 0, None
    for index, episode in enumerate(episodes):
        try:
            sends[index] = solve(episode, **settings).send
            ready.append((index, None))
        except Exception as error:
            frame.failed(index, describe(error))
    while sends or frame.finals:
        number += 1
        actions, ids = frame.actions, frame.ids
        for index, answer in ready:
            episode = episodes[index]
            try:
                if number > MAX_ROUNDS:
                    raise ControllerError(f"no answer after {MAX_ROUNDS} rounds")
                request = sends[index](answer)
                if episode._pruned:
                    actions += (index, PRUNE, 0, len(episode._pruned), 0)
                    ids.extend(episode._pruned)
                    episode._pruned = []
                if type(request) is tuple:
                    kind, probe, branches, count, argument = request
                    actions += (index, kind, probe, count, argument)
                    ids += branches
                else:
                    for kind, probe, branches, count, argument in request:
                        actions += (index, kind, probe, count, argument)
                        ids += branches
                    several[index] = len(request)
            except StopIteration as stop:
                del sends[index]
                frame.ended(index, stop.value)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                del sends[index]
                frame.failed(index, describe(error))
            if episode._notes:
                frame.noted(index, episode._notes)
                episode._notes = []
        if reply is not None:
            reply.forget()
        reply = Reply((yield frame.pack(number)))
        frame = _Frame()
        ready = _answered(reply, several)


class _Frame:
    """What the episodes say in one round."""

    def __init__(self) -> None:
        self.actions: list[int] = []
        self.ids = array("I")
        self.finals: list[int] = []
        self._errors: list[bytes] = []
        self._notes: list[int] = []
        self._note_texts: list[bytes] = []

    def ended(self, episode: int, code: object) -> None:
        if code is None or (type(code) is int and -(2**31) <= code < 2**31):
            self.finals += (episode, -1 if code is None else code, 0)
        else:
            kind = type(code).__name__
            self.failed(episode, f"ControllerError: solve returned {kind}, not an answer code or None")

    def failed(self, episode: int, error: str) -> None:
        text = error.encode("utf-8", "replace")
        self.finals += (episode, -1, len(text))
        self._errors.append(text)

    def noted(self, episode: int, notes: list[bytes]) -> None:
        for note in notes:
            self._notes += (episode, len(note))
            self._note_texts.append(note)

    def pack(self, number: int) -> bytes:
        actions, others = self.actions, (*self.finals, *self._notes)
        text = b"".join(self._errors + self._note_texts)
        counts = len(actions) // 5, len(self.ids), len(self.finals) // 3, len(self._notes) // 2
        header = HEADER.pack(MAGIC, number, *counts, len(text))
        acting, ending = pack(f"{len(actions)}i", *actions), pack(f"{len(others)}i", *others)
        return b"".join((header, acting, self.ids, ending, text))


def _answered(reply: Reply, several: dict[int, int]) -> list[Ready]:
    """The episodes that a reply lets go on; one that awaits several actions gets their answers as a list."""
    ready: list[Ready] = []
    answers: list[Answer] = []
    stop = heard = action = 0
    triples = iter(reply.actions)
    for index, rows, news in zip(triples, triples, triples, strict=True):
        start, first = stop, heard
        heard += news
        if rows > 0:
            stop += rows
        answer = reply, action, start, start + rows, first, heard
        action += 1
        if index not in several:
            ready.append((index, answer))
        else:
            answers.append(answer)
            if len(answers) == several[index]:
                del several[index]
                ready.append((index, answers))
                answers = []
    return ready
