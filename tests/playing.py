"""Play controllers in this process on a store that was never written to disk."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from env.episode import Episode
from env.frames import FrameError
from env.index import Index
from env.lockstep import play
from env.playback import Playback
from env.replay import Replay


def play_on(
    index: Index,
    solve: Callable[..., Any],
    settings: Mapping[str, Any] | None = None,
    problems: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,),
    max_branches: int | None = None,
) -> Playback:
    """Play one episode for each pair of `problems` and `seeds`."""
    replay = Replay(index, problems, seeds, max_branches=max_branches, log=True)
    playback = Playback(replay, [range(len(replay))])

    def exchange(frame: bytes) -> bytes:
        (reply,) = playback.answer([(0, frame)])
        if isinstance(reply, FrameError):
            raise reply
        return reply

    episodes = [Episode(replay.seed_key(e), int(replay.max_branches[e]), True) for e in range(len(replay))]
    play(solve, settings or {}, episodes, exchange)
    assert not replay.live.any()
    return playback
