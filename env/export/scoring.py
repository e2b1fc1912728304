"""Step scores by a reward model at a vLLM server: a path, a tag after each of its steps, goes to /pooling."""

from env.export.server import Model, ServerError, Usage
from env.export.settings import Settings

# As on the model card of Qwen2.5-Math-PRM.
PRM_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


class Scorer:
    """A reward model, asked about the branches of one question."""

    def __init__(self, model: Model, question: str, settings: Settings, usage: Usage) -> None:
        self._model, self._question, self._settings, self._usage = model, question, settings, usage
        self._head: list[int] = []
        self._steps: dict[str, list[int]] = {}

    async def score(self, text: str, ended: bool) -> list[float]:
        """The probability that each step is good, as far as the reward model can read.

        A step ends with its separator; what is left at the end of a branch that has ended is a step too.
        """
        *steps, rest = text.split(self._settings.separator)
        steps = [step.strip() for step in [*steps, *([rest] if ended else [])] if step.strip()]
        if not steps:
            return []
        (tag,) = await self._model.known(self._settings.prm_step_tag)
        self._head = self._head or await self._read_question(tag)
        ids, places = list(self._head), []
        for step in steps:
            if step not in self._steps:
                self._steps[step] = await self._model.encode(step)
            ids += [*self._steps[step], tag]
            places.append(len(ids) - 1)
        limit = min(self._model.context, self._settings.prm_window or self._model.context)
        places = [place for place in places if place < limit]
        if not places:
            return []
        ids = ids[: places[-1] + 1]
        self._usage.prm_tokens += len(ids)
        return await self._ask(ids, places, tag)

    async def _read_question(self, tag: int) -> list[int]:
        settings, question = self._settings, self._question
        if settings.prm_prompt is not None:
            return await self._model.encode(settings.prm_prompt.replace("{question}", question))
        messages = [
            {"role": "system", "content": PRM_SYSTEM},
            {"role": "user", "content": question},
            {"role": "assistant", "content": settings.prm_step_tag},
        ]
        ids = await self._model.tokenize(messages=messages, add_generation_prompt=False)
        return ids[: len(ids) - 1 - ids[::-1].index(tag)]

    async def _ask(self, ids: list[int], places: list[int], tag: int) -> list[float]:
        body = {"model": self._model.name, "input": ids, "task": "token_classify"}
        reply = await self._model.post("/pooling", {**body, "add_special_tokens": False})
        (data,) = reply["data"]
        outputs = data["data"]
        if len(outputs) != len(ids):
            # Pooled at the tags alone: those of the question and of steps are among them.
            tags = [place for place, token in enumerate(ids) if token == tag]
            if len(outputs) != len(tags):
                raise ServerError(
                    f"the server {self._model.root} does not score steps: {len(outputs)} outputs for "
                    f"{len(ids)} tokens, {len(tags)} of them step tags"
                )
            outputs = dict(zip(tags, outputs, strict=True))
        return [float(outputs[place][1]) for place in places]
