"""Fresh branches and live episodes of a certificate, as the options of its command say."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from collect.commands import asking
from env.commands.terminal import progress_bar

if TYPE_CHECKING:
    from collect.commands.asking import Asked
    from collect.live.calls import Log
    from env.certificate.certificate import Part
    from env.certificate.design import Design, Replayed
    from env.certificate.exported import Exported
    from env.live.bench import Question
    from env.live.folder import RunFolder
    from env.program import Program

# The part of the run's folder that fresh branches are in; no controller can have this name.
BRANCHES = ".branches"
# Fresh branches under way, where nothing is said of it.
AT_ONCE = 64


@dataclass(frozen=True)
class Certifying:
    """A certificate under way.

    Attributes:
        args: of the command.
        asked: how the model is asked, and what.
        design: what is compared.
        folder: keeps what is done.
        log: of the calls to the model.
    """

    args: argparse.Namespace
    asked: "Asked"
    design: "Design"
    folder: "RunFolder"
    log: "Log"

    async def compare(self, replayed: "Mapping[str, Replayed]") -> "list[Part]":
        """Branches first; the programs only if those do not fail. Raises UserError as `autotts live`."""
        import numpy as np

        from env.certificate.branches import from_row
        from env.certificate.certificate import judge_branches, judge_program
        from env.certificate.equivalence import Verdict

        known, design = self.design.known(), self.design
        rows = await self._draw(any(len(said) > 1 for each in known.values() for said in each.answers))
        drawn = [row for row in rows if not row["model_failed"]]
        pairs = [(from_row(row), known[row["problem"], row["seed"]]) for row in drawn]
        parts = [judge_branches(design, pairs, rows, np.random.default_rng(self.args.seed))]
        if parts[0].verdict is Verdict.FAILS:
            return parts
        for number, program in enumerate(design.programs):
            rows = await self._play(program, exported=number == 0 and self.args.exported is not None)
            parts.append(judge_program(design, program.name, replayed[program.name], rows))
        return parts

    async def _draw(self, probes: bool) -> list[dict[str, Any]]:
        """Fresh branches of every problem and arm."""
        from collect.live.opening import live_model
        from env.certificate.fresh import draw
        from env.live.run import keep_all

        args, asked = self.args, self.asked
        problems = self.design.store.problems
        names, classes = problems["question_hash"].to_pylist(), problems["classes"].to_pylist()
        classes_of = dict(zip(names, classes, strict=True))
        places = asking.open_places(args, asked.plan)
        # Nobody holds these branches back, so none is cancelled.
        ahead = asked.plan.drawing.max_tokens
        model = live_model(asked.plan, asked.task, places, run_ahead=ahead, confidence=False, log=self.log)

        async def branches(question: "Question", arm: int) -> dict[str, Any]:
            known = classes_of[question.name]
            return await draw(model, asked.task, question, known, args.seed, arm, args.branches, probes)

        concurrency = args.concurrency or max(1, AT_ONCE // args.branches)
        arms = range(len(asked.plan.arms))
        try:
            with progress_bar("problems, fresh branches of each") as progress:
                return await keep_all(
                    branches, asked.questions, arms, concurrency, self.folder, BRANCHES, progress
                )
        finally:
            await model.close()

    async def _play(self, program: "Program", exported: bool) -> list[dict[str, Any]]:
        """Live episodes of a program, by the live engine or by an exported file."""
        from collect.commands.live import room_of
        from env.live.bench import Bench
        from env.live.player import Player
        from env.live.run import keep_all, row_of

        args, asked = self.args, self.asked
        places = asking.open_places(args, asked.plan)
        model = asking.open_model(args, asked, places, program, self.log)
        player = Player(program, args.beta, i_trust_this_code=args.i_trust_this_code)
        # The seed before these is that of the fresh branches.
        bench = Bench(model, player, asked.task, args.seed + 1, args.max_branches)

        async def play(question: "Question", seed: int) -> dict[str, Any]:
            return row_of(question, seed, await bench.play(question, seed))

        try:
            everywhere = [place for some in places.values() for place in some]
            concurrency = args.concurrency or (await room_of(args, asked, player, everywhere)).episodes
            with progress_bar(f"episodes of {program.name}") as progress:
                how = asked.questions, range(args.episodes), concurrency, self.folder, program.name, progress
                if exported:
                    return await self._exported(program).keep_all(*how)
                return await keep_all(play, *how)
        finally:
            await model.close()
            player.close()

    def _exported(self, program: "Program") -> "Exported":
        from collect.endpoint import survey
        from env.certificate.exported import Exported
        from env.program import needs

        def served(urls: Sequence[str], model: str) -> tuple[str, str]:
            first = survey(urls, [model])[model][0]
            return first.url, first.name

        args, asked = self.args, self.asked
        prm = served(args.prm_server, args.prm) if "prm" in needs(program.source) else None
        url, name = served(args.server, asked.plan.arms[0].model)
        return Exported(args.exported, program, args.beta, url, name, asked.task, args.seed + 1, prm)
