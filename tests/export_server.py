"""A scripted vLLM server that writes the branches of a made-up store; a token is a character or a tag.

Branches are asked for by seed, as a collection seeds them; the k-th that is opened is the k-th which replay
serves, the j-th fork of a position replay's j-th child. A branch that goes on takes the first child.
"""

import json
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
from forests import Node, Problem, Trees
from loopback import LoopbackServer

from env.index import Index
from env.order import Order

TAGS = {"<eos>": 0, "<think>": 1, "</think>": 2, "<extra_0>": 3}
NAMES = {number: name for name, number in TAGS.items()}
QUESTION = "What is 6 times 7?"
CONTEXT = 100_000
SEPARATOR = "\n\n"
PROBE = "\nSo \\boxed{"
# How answers are spelt; the third has braces of its own.
SPELT = ("0", "1", "\\text{two}", "3")


def encode(text: str) -> list[int]:
    parts = re.split("(" + "|".join(map(re.escape, TAGS)) + ")", text)
    return [token for part in parts for token in ([TAGS[part]] if part in TAGS else map(ord, part))]


def decode(ids: list[int]) -> str:
    return "".join(NAMES.get(token) or chr(token) for token in ids)


def goodness(steps: list[str]) -> float:
    """What the scripted reward model thinks of the last of these steps."""
    return zlib.crc32("|".join(steps).encode()) % 64 / 64


@dataclass
class Written:
    """A made-up problem whose nodes have texts.

    Attributes:
        path: for each node its token ids from the branch's beginning.
    """

    problem: Problem
    path: dict[int, list[int]] = field(default_factory=dict)

    def index(self) -> Index:
        return Index.build(Trees([self.problem], has_scores=True, has_confidence=True).forest())


def write(
    rng: random.Random,
    roots: int,
    depth: int,
    width: int = 1,
    tokens: int = 0,
    early: float = 0.15,
) -> Written:
    """A problem of `roots` trees up to `depth` segments deep; positions have `width` children, or none.

    A segment is a step, of just so many `tokens` unless that is 0.
    """
    written = Written(Problem([], frozenset({0}), len(SPELT)))
    nodes = written.problem.nodes

    def grow(parent: Node | None, level: int) -> None:
        last = level == depth or rng.random() < early
        answer = rng.choice((-1, 0, 0, 1, 2, 3))
        text = f"{len(nodes)}:{'so ' * rng.randrange(4)}"
        if last:
            text = text[: tokens - 2] if tokens else text
            text += f"</think>Now{SEPARATOR}then " + (f"\\boxed{{{SPELT[answer]}}}" if answer >= 0 else "?")
            ids = [*encode(text), TAGS["<eos>"]]
        else:
            text = text.ljust(tokens, ".")[: tokens - len(SEPARATOR)] if tokens else text.strip()
            ids = encode(text + SEPARATOR)
        path = [*(written.path[parent.place] if parent else []), *ids]
        *steps, rest = decode(path[:-1] if last else path).split(SEPARATOR)
        steps += [rest] if last else []
        node = Node(
            tokens=len(ids),
            answer=answer,
            probe_tokens=len(spelt(answer)),
            end=int(last),
            scores=tuple(goodness(steps[: k + 1]) for k in range(level - 1, len(steps))),
            confidence=confidence_of(len(nodes)),
            parent=parent,
            place=len(nodes),
        )
        nodes.append(node)
        written.path[node.place] = path
        if parent is not None:
            parent.children.append(node)
        for _ in range(0 if last else width):
            grow(node, level + 1)

    for _ in range(roots):
        grow(None, 1)
    return written


def spelt(answer: int) -> str:
    """What a probe goes on with."""
    return "}" if answer < 0 else SPELT[answer] + "}"


def confidence_of(place: int) -> float:
    return (place * 7 % 32) / 8 + 0.5


# Takes the handler and the token ids that would be sent; returns those that are, None = it has answered.
Fault = Callable[["Handler", list[int]], list[int] | None]


class ExportServer(LoopbackServer):
    """Attributes: asked, bodies of completions; streams, how many are open; left, how many were cut off."""

    daemon_threads = True

    def __init__(self, written: Written, seed: int, seed_of: Callable[[tuple[int, ...]], int]) -> None:
        super().__init__(Handler)
        self.written, self.faults = written, list[Fault]()
        self.asked: list[dict[str, Any]] = []
        self.streams = self.left = 0
        self.context = CONTEXT
        self.pause = 0.0
        self.lock = threading.Lock()
        self.dice = random.Random(seed)
        self.prompt = encode(f"user: {QUESTION}<think>")
        self.by_path = {tuple(path): place for place, path in written.path.items()}
        self._index = written.index()
        self._order = Order(self._index, np.array([0]), [seed])
        self._inverse = np.argsort(self._index.order)
        self.chains: dict[int, tuple[list[int], list[int]]] = {}
        for k in range(len(written.problem.roots)):
            root = int(self._order.root(*map(_one, (0, 0, k)))[0])
            self._name((k,), self._place(root), [], 1, seed_of)

    def _name(self, path, place: int, above: list[int], depth: int, seed_of) -> None:
        """The branch of a path that begins with a node, and whatever is forked from it."""
        start, chain = list(above), list(self.written.path[place])
        seed, node = seed_of(path), place
        while children := self._children(node):
            for number, child in enumerate(children if len(children) > 1 else (), 1):
                self._name((*path, depth, number), child, self.written.path[node], depth + 1, seed_of)
            node, depth = children[0], depth + 1
            chain = list(self.written.path[node])
        self.chains[seed] = start, chain

    def _children(self, place: int) -> list[int]:
        node = self._node(place)
        count = int(self._index.child_count[node])
        return [self._place(int(self._order.child(*map(_one, (0, node, k)))[0])) for k in range(count)]

    def _place(self, node: int) -> int:
        return int(self._index.order[node])

    def _node(self, place: int) -> int:
        return int(self._inverse[place])

    def continuation(self, body: dict[str, Any]) -> list[int] | None:
        """The tokens that follow a prompt, None if no branch has this prefix."""
        at = len(self.prompt)
        if body["prompt"][:at] != self.prompt:
            return None
        prefix = body["prompt"][at:]
        start, chain = self.chains.get(body["seed"], (None, []))
        if start == prefix:
            return chain[len(prefix) :]
        goes_on = (chain for _, chain in self.chains.values() if prefix and chain[: len(prefix)] == prefix)
        chain = next(goes_on, None)
        return None if chain is None else chain[len(prefix) :]


def _one(value: int):
    return np.array([value], np.int64)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ExportServer

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        routes = {
            "/tokenize": self.tokenize,
            "/detokenize": lambda body: self.send({"prompt": decode(body["tokens"])}),
            "/pooling": self.pooling,
            "/v1/completions": self.complete,
        }
        routes[self.path](body)

    def tokenize(self, body):
        if "messages" in body:
            text = "".join(f"{m['role']}: {m['content']}" for m in body["messages"])
            tokens = encode(text + ("<think>" if body.get("add_generation_prompt", True) else "<eos>"))
        else:
            tokens = encode(body["prompt"])
        self.send({"tokens": tokens, "count": len(tokens), "max_model_len": self.server.context})

    def pooling(self, body):
        text = decode(body["input"])
        *steps, _ = text[text.index("assistant: ") + len("assistant: ") :].split("<extra_0>")
        scores = [goodness([step.strip() for step in steps[: k + 1]]) for k in range(len(steps))]
        self.send({"data": [{"data": [[1 - score, score] for score in scores]}]})

    def complete(self, body):
        with self.server.lock:
            self.server.asked.append(body)
            fault = self.server.faults.pop(0) if self.server.faults else None
        if body.get("stream"):
            ids = self.server.continuation(body)
            assert body["ignore_eos"] and body["stop_token_ids"] == [0]
        else:
            ids = self.answer(body)
        if ids is None:
            return self.send({"error": {"message": "no branch has this prefix"}}, 400)
        ids = ids[: body["max_tokens"]]
        sent = ids if fault is None else fault(self, ids)
        if sent is None:
            return None
        finish = None if len(sent) < len(ids) else "stop" if ids[-1] in (0, ord("}")) else "length"
        if not body.get("stream"):
            choice = {
                "index": 0,
                "text": decode(ids),
                "token_ids": ids,
                "finish_reason": finish,
                "stop_reason": "}",
            }
            return self.send({**ENVELOPE, "choices": [choice], "usage": usage(body, ids)})
        return self.stream(body, sent, finish)

    def answer(self, body) -> list[int] | None:
        """What a probe is told up to the next closing brace."""
        ids, opening = body["prompt"], encode("</think>" + PROBE)
        at = next(k for k in range(len(ids), 0, -1) if ids[k : k + len(opening)] == opening)
        place = self.server.by_path.get(tuple(ids[len(self.server.prompt) : at]))
        if place is None:
            return None
        left = spelt(self.server.written.problem.nodes[place].answer)[len(ids) - at - len(opening) :]
        return encode(left[: left.index("}") + 1])

    def stream(self, body, ids, finish):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with self.server.lock:
            self.server.streams += 1
        try:
            for event in self.events(body, ids, finish):
                data = f"data: {json.dumps(event) if event else '[DONE]'}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                time.sleep(self.server.pause)
            if finish is None:
                self.reset()
            else:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            with self.server.lock:
                self.server.left += 1
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.streams -= 1

    def events(self, body, ids, finish) -> Iterator[dict[str, Any] | None]:
        at, places = 0, self.places(body) if body.get("logprobs") else []
        while at < len(ids):
            size = self.server.dice.randrange(1, 12)
            some = ids[at : at + size]
            at += len(some)
            choice = {"index": 0, "text": decode(some), "token_ids": some}
            choice["finish_reason"] = finish if at == len(ids) else None
            if places:
                # The token itself is not among the likeliest, so it comes on top of them.
                values = [confidence_of(place) for place in places[at - len(some) : at]]
                tops = [
                    {"token_id:9": -value, "token_id:8": -value, f"token_id:{token}": -50}
                    for token, value in zip(some, values, strict=True)
                ]
                choice["logprobs"] = {"top_logprobs": tops}
            yield {**ENVELOPE, "choices": [choice]}
        if finish:
            yield {**ENVELOPE, "choices": [], "usage": usage(body, ids)}
            yield None

    def places(self, body) -> list[int]:
        """For each token that follows a prompt, the node it is in."""
        _, chain = self.server.chains[body["seed"]]
        ends = [(len(p), place) for place, p in self.server.written.path.items() if chain[: len(p)] == p]
        start = len(body["prompt"]) - len(self.server.prompt)
        return [min(end for end in ends if end[0] > k)[1] for k in range(start, len(chain))]

    def send(self, reply, status: int = 200, headers=None):
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, *args):
        pass


ENVELOPE = {"id": "x", "object": "text_completion", "created": 0, "model": "scripted"}


def usage(body, ids) -> dict[str, Any]:
    count = len(body["prompt"])
    return {
        "prompt_tokens": count,
        "completion_tokens": len(ids),
        "total_tokens": count + len(ids),
        "prompt_tokens_details": {"cached_tokens": count // 2},
    }


def busy(handler: Handler, ids: list[int]) -> None:
    handler.send({"error": {"message": "slow down"}}, 429, {"retry-after": "0.01"})


def reset_before(handler: Handler, ids: list[int]) -> None:
    handler.reset()


def cut_after(count: int) -> Fault:
    """The connection is reset after so many tokens."""
    return lambda handler, ids: ids[:count]
