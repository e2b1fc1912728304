"""Play controllers in this process on stores that were never written to disk."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from env.episode import Episode
from env.frames import FrameError
from env.index import Index
from env.lockstep import play
from env.playback import Playback
from env.replay import Replay
from tests.forests import Node, Problem, Trees


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

    episodes = [Episode(replay.seed_keys[e], int(replay.max_branches[e]), True) for e in range(len(replay))]
    play(solve, settings or {}, episodes, exchange)
    assert not replay.live.any()
    return playback


def grow(parent: Node | None, tokens: int, answer: int, end: int = 0, **fields) -> Node:
    node = Node(tokens, answer, 2, end, parent=parent, **fields)
    if parent is not None:
        parent.children.append(node)
    return node


def store(*nodes: Node, right: int = 1, **capabilities) -> Index:
    for place, node in enumerate(nodes):
        node.place = place
    return Index.build(Trees([Problem(list(nodes), frozenset({right}), 3)], **capabilities).forest())


def chain(*segments: tuple[int, int], end: int = 1) -> list[Node]:
    """Nodes of (tokens, answer) one after the other, the last of which ends."""
    nodes: list[Node] = []
    for k, (tokens, answer) in enumerate(segments):
        last = k == len(segments) - 1
        nodes.append(grow(nodes[-1] if nodes else None, tokens, answer, end if last else 0))
    return nodes


def line() -> Index:
    """A store whose every branch runs 10, 20 and 30 tokens and says 0, nothing, 1."""
    return store(*chain((10, 0), (20, -1), (30, 1)), *chain((10, 0), (20, -1), (30, 1)))


def run(index: Index, solve, **options) -> Playback:
    options.setdefault("max_branches", 100)
    playback = play_on(index, solve, **options)
    assert playback.errors == {}
    return playback


def error_of(index: Index, solve, **options) -> str:
    options.setdefault("max_branches", 100)
    (error,) = play_on(index, solve, **options).errors.values()
    return error


def tree() -> Index:
    """A root of 10 tokens with three children of 1, 2 and 4, the first of which goes on for 8."""
    root = grow(None, 10, 0, scores=(0.5,), confidence=1.5)
    kids = [grow(root, 2**k, k, end=int(k > 0), scores=(0.25 * k, 1.0), confidence=2.0) for k in range(3)]
    leaf = grow(kids[0], 8, 1, end=2, confidence=2.5)
    return store(root, *kids, leaf, has_scores=True, has_confidence=True)
