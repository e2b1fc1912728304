"""Probes, log probabilities and PRM scores for branches that were sampled before.

Sampling is the main bill of a collection; this saves it. A model reads a branch in one pass (a prefill),
which gives the log probability of each of its tokens, and is asked on the way as `collect.probes` does.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collect.collection import Collection, Scoring
from collect.engine import Engine
from collect.existing import Existing
from collect.folder import as_stored
from collect.plan import Plan
from collect.reading import Reader, unasked
from collect.rescore import is_made, made_from
from collect.shards import Shard
from collect.tokens import Tokens
from env.errors import UserError
from env.nodes import Nodes
from env.store_writer import StoreWriter
from env.tasks import Task


@dataclass
class Survey:
    """What is there to be read, before any of it is.

    Attributes:
        branches: how many there are, forks included.
        encoded: of them have their tokens from a text.
        left: of them are left as they are.
        reason: why one of these is, after "a branch ".
        tokens: to be read, prompts included.
        probes: to be asked.
        longest: tokens of a prompt and a branch, or a probe, at most.
    """

    branches: int = 0
    encoded: int = 0
    left: int = 0
    reason: str = ""
    tokens: int = 0
    probes: int = 0
    longest: int = 0

    def lines(self) -> list[str]:
        """The same in words."""
        found = [
            f"to read: {self.branches:,} branches, forks included: {self.tokens:,} tokens with their "
            f"prompts; to ask: {self.probes:,} probes"
        ]
        if self.encoded:
            found.append(
                f"{self.encoded:,} of the branches have no token ids; those that the tokenizer makes of "
                "their texts are taken"
            )
        if self.left:
            found.append(
                f"warning: {self.left:,} of the branches are left as they are, without new probes and log "
                f"probabilities; one {self.reason}"
            )
        return found


class FromSamples(Collection):
    """A store, a model that reads its branches, and the store that they become.

    Args:
        existing: the store.
        plan: as for sampling, of which the shape and most of the drawing say nothing here; its arms are the
            store's, its segments matter only if branches are cut anew.
        out: the store to make.
        recut: whether to cut branches anew.
        scoring: as for sampling.
        force: as for sampling.
        shard: as for sampling.

    Attributes:
        survey: what there is to read.

    Raises:
        UserError: the store does not have what is to be read, or the model's tokenizer is another one.
        StoreError: there is something at `out` that may not be replaced.
    """

    def __init__(
        self,
        existing: Existing,
        plan: Plan,
        out: Path,
        recut: bool = False,
        scoring: Scoring | None = None,
        force: bool = False,
        shard: Shard | None = None,
    ) -> None:
        self.existing, self._recut = existing, recut
        self._made_from = made_from(existing, "from-samples")
        self.survey = Survey()
        store = existing.store
        if "text" not in store.capabilities:
            raise UserError(
                f"{store.path} has neither texts nor token ids of its branches, so there is nothing to read; "
                "use a store that was collected, or imported with texts"
            )
        if recut and "prm" in store.capabilities and scoring is None:
            raise UserError(
                f"{store.path} has PRM scores, which belong to its segments as they are; give --prm to score "
                "the new ones, or do not cut anew"
            )
        super().__init__(plan, existing.problems, out, scoring, force, shard)
        if not self.complete:
            self._look()

    def make_recipe(self) -> dict[str, Any]:
        """What decides what is found out."""
        plan = self.plan.recipe(self.problems)
        drawing = plan["drawing"]
        names = ("arms", "probing", "engine_arguments", "group", "versions")
        return {
            "made_from": self._made_from,
            "segments": plan["segments"] if self._recut else None,
            "confidence": {"top_logprobs": drawing["top_logprobs"], "window": drawing["window"]},
            **{name: plan[name] for name in names},
        }

    def make_sampler(self, arm: int, tokens: Tokens, task: Task) -> Any:
        """What reads an arm."""
        usual = self.plan.sampler(arm, tokens, task)
        return Reader(
            self.existing,
            arm,
            tokens,
            usual.prompter,
            usual.cutter if self._recut else None,
            usual.prober,
            self.plan.drawing.top_logprobs,
        )

    def check_room(self, sampler: Any, engine: Engine) -> None:
        """Raises UserError if a branch, or a probe in it, is longer than a model can read."""
        if self.survey.longest > engine.context:
            raise UserError(
                f"{engine.model!r} has a context of {engine.context:,} tokens, and prompt, branch and probe "
                f"have up to {self.survey.longest:,}; give --engine-arg max_model_len={self.survey.longest}"
            )

    def describe(self) -> dict[str, Any]:
        """What the store says of itself."""
        meta, plan = self.existing.store.meta, self.plan
        provenance = dict(meta.get("provenance", {}))
        if "recipe" in provenance and not self._recut:
            # As if it had been collected like this, so that it can be extended.
            asked = self.folder.recipe
            recipe = provenance["recipe"]
            drawing = recipe["drawing"] | asked["confidence"]
            probing = asked["probing"] or recipe["probing"]
            provenance["recipe"] = recipe | {"probing": probing, "drawing": drawing}
        elif self._recut:
            provenance = {"format": "from-samples"}
        survey = {"branches": self.survey.branches, "encoded": self.survey.encoded}
        provenance |= {
            "made_from": self._made_from,
            "read": self.folder.recipe,
            "tokens": survey | {"left": self.survey.left},
        }
        if self._scoring is not None:
            provenance["prm"] = as_stored(self._scoring.recipe)
        tokens = self.samplers[0].tokens
        return {
            "model": meta["model"],
            "dataset": meta["dataset"],
            "task": meta["task"],
            "segment_tokens": plan.segments.tokens if self._recut else meta["segment_tokens"],
            "segment_rule": plan.segment_rule(tokens) if self._recut else meta.get("segment_rule"),
            "sampling": meta.get("sampling"),
            "provenance": provenance,
            "arms": [self._arm(number) for number in range(len(plan.arms))],
            "prm": meta.get("prm") if self._scoring is None else self._scoring.name,
        }

    def add(self, writer: StoreWriter, number: int, nodes: Nodes) -> None:
        """Puts a problem into the store."""
        problem, stored = self.problems[number], self.existing.nodes(number)
        if self._scoring is None:
            nodes = replace(nodes, prm=stored.prm)
        unparsed = self.existing.unparsed(number)
        prompt = self.prompt_tokens(problem)
        writer.add_problem(problem.question, problem.gold, nodes, unparsed=unparsed, prompt_tokens=prompt)

    def _arm(self, number: int) -> dict[str, Any]:
        """What the store says of an arm: what it said before, and how it was read."""
        before = self.existing.store.meta["arms"][number]
        return before | self._about(number) | {"model": before["model"]}

    def _is_complete(self) -> bool:
        if self._force:
            return False
        before = self.existing.store.meta.get("provenance", {}).get("prm")
        prm = before if self._scoring is None else as_stored(self._scoring.recipe)
        return is_made(self.out, self._made_from, prm, self.folder.recipe)

    def _look(self) -> None:
        """Fills the survey."""
        survey = self.survey
        for reader in self.samplers:
            assert isinstance(reader, Reader)
            room = reader.prober.most_tokens if reader.prober else 0
            for group in self.own_groups:
                for number in self.groups[group]:
                    tree = reader.tree(self.problems[number])
                    check_text(reader.tokens, tree.stored)
                    prompt = len(tree.prompt.ids)
                    survey.branches += len(tree.branches)
                    survey.encoded += sum(r.ids is not None and not r.exact for r in tree.recovered)
                    reasons = [r.reason for r in tree.recovered if r.ids is None]
                    survey.left, survey.reason = survey.left + len(reasons), (reasons or [survey.reason])[0]
                    read = [len(tree.branches[n].ids) for n in reader.unread(tree)]
                    survey.tokens += sum(read) + prompt * len(read)
                    asked = [node.last for node in unasked(tree)] if reader.prober else []
                    survey.probes += len(asked)
                    lengths = [length + 1 for length in read] + [last + room for last in asked]
                    survey.longest = max([survey.longest, *(prompt + length for length in lengths)])
        if survey.left > survey.branches / 2:
            raise UserError(
                f"{survey.left:,} of {survey.branches:,} branches cannot be read with the tokenizer of "
                f"{self.plan.arms[0].model!r}: one {survey.reason}; give the model that wrote them with "
                "--model"
            )


def check_text(tokens: Tokens, stored: Nodes) -> None:
    """Raises UserError unless the ids of a tree's first segment are its text."""
    if stored.token_ids is None or stored.text is None:
        return
    ids, text = stored.token_ids[0], stored.text[0]
    if ids is not None and text is not None and tokens.decode(ids) != text:
        raise UserError(
            f"the tokenizer of {tokens.model!r} is another one than the store's: it reads "
            f"{_short(tokens.decode(ids))} where the store has {_short(text)}; give the model that wrote the "
            "samples with --model"
        )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
