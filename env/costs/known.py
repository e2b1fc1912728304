"""What a store tells of itself that costs depend on."""

from dataclasses import dataclass

import numpy as np

from env.index import Ints
from env.store import Store


@dataclass(frozen=True, eq=False)
class Known:
    """Of a store with P problems.

    Attributes:
        prompt: int64[P], tokens of each problem's prompt.
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
            prompt_tokens: how long a prompt is taken to be where the store does not know: `problems.parquet`
                may say so in a column `prompt_tokens`.
            protocol: the published one knows no process reward model.
            arms: how many arms its trees have at least.
        """
        prompt = np.full(len(store), prompt_tokens, np.int64)
        if "prompt_tokens" in store.problems.column_names:
            told = store.problems["prompt_tokens"].to_pylist()
            prompt = np.array([prompt_tokens if each is None else each for each in told], np.int64)
        models = [arm.get("model") or store.model for arm in store.meta.get("arms") or []]
        models += [store.model] * (arms - len(models))
        has_scores = "prm" in store.capabilities and protocol == "standard"
        return cls(prompt, tuple(models), (store.meta.get("prm") or "") if has_scores else None)
