"""Reading answers may take seconds, in which other episodes go on."""

import asyncio
import time
from dataclasses import replace

import pytest

from env.live.bench import Bench, Question
from env.live.player import Player
from env.program import Program
from env.tasks import ExactTask
from tests.programs import written
from tests.streaming import PLAN, Letters, StreamingServer, running, scripted_model


@pytest.mark.parametrize("probe", [False, True])
def test_nobody_waits_while_an_answer_is_read(probe):
    class Slow(ExactTask):
        def extract(self, text):
            time.sleep(0.4)
            return super().extract(text)

    what = "await ep.branch(2)" if probe else "await ep.finish(await ep.branch(2, probe=False))"
    source = written("reads", f"{what}\nreturn ep.answer[0]").source
    program = Program("reads", source, trusted=True)

    async def run(url):
        worst = 0.0

        async def beat():
            nonlocal worst
            while True:
                begin = time.monotonic()
                await asyncio.sleep(0.005)
                worst = max(worst, time.monotonic() - begin)

        model, player = scripted_model(url), Player(program, 0.5)
        sampler = PLAN.sampler(0, Letters(), Slow())
        model = replace(model, arms=[replace(model.arms[0], sampler=sampler)])
        beating = asyncio.ensure_future(beat())
        played = await Bench(model, player, ExactTask()).play(Question("What is 1?", "1"), 0)
        beating.cancel()
        await model.close()
        assert not played.error and played.answer >= 0
        return worst

    with running(StreamingServer(tokens_an_event=8)) as server:
        assert asyncio.run(run(server.url)) < 0.4
