"""What a store tells of itself that costs depend on."""

from dataclasses import dataclass

import numpy as np

from env.stand import Ints
from env.store import Store


@dataclass(frozen=True, eq=False)
class Known:
    """Of a store with P problems.

    Attributes:
        prompt: int64[P, arms], tokens of each problem's prompt as each arm puts it.
        models: for each arm, the model that decoded its branches.
        prm_model: whose scores the store has; "" where it does not name it, None where it has none.
    """

    prompt: Ints
    models: tuple[str, ...]
    prm_model: str | None

    @classmethod
    def of(cls, store: Store, prompt_tokens: int = 0, protocol: str = "standard", arms: int = 1) -> "Known":
        """Read it off the store.

        Args:
            store: where; its trees are not loaded.
            prompt_tokens: how long a prompt is taken to be where the store does not know.
            protocol: the published one knows no process reward model.
            arms: how many arms its trees have at least.
        """
        models = [arm.get("model") or store.model for arm in store.meta.get("arms") or []]
        models += [store.model] * (arms - len(models))
        prompt = np.full((len(store), len(models)), prompt_tokens, np.int64)
        # An older store lacks the column; one that was imported its values.
        if "prompt_tokens" in store.problems.column_names:
            for problem, told in enumerate(store.problems["prompt_tokens"].to_pylist()):
                prompt[problem] = prompt[problem] if told is None else told
        has_scores = "prm" in store.capabilities and protocol == "standard"
        return cls(prompt, tuple(models), (store.meta.get("prm") or "") if has_scores else None)
