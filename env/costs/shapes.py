"""The sizes of models, as far as costs depend on them."""

import json
import math
import struct
from dataclasses import dataclass, fields
from pathlib import Path

from env.costs.tables import read_table
from env.errors import UserError


@dataclass(frozen=True)
class Shape:
    """A dense transformer with grouped-query attention.

    Attributes:
        parameters: those that a token passes through.
        layers: transformer layers.
        heads: query heads of a layer.
        kv_heads: key and value heads of a layer.
        head_dim: width of a head.
        kv_bytes: bytes of one number in the cache; 2 = 16 bits.
    """

    parameters: float
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    kv_bytes: int = 2

    @property
    def attention(self) -> int:
        """FLOPs for a token to attend to one other: a product with its key and one with its value."""
        return 4 * self.layers * self.heads * self.head_dim

    @property
    def cache(self) -> int:
        """Bytes of the key-value cache for one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bytes


# Layers and heads as in each model's config.json. Parameters of Qwen3 as in the cost model that was released
# with Kinetics (github.com/Infini-AI-Lab/Kinetics, cost_model/; for 0.6B and 1.7B it counts the embedding
# twice, though both its uses share it), all others as those files imply.
SHAPES = {
    "Qwen3-0.6B": Shape(0.752e9, 28, 16, 8, 128),
    "Qwen3-1.7B": Shape(2.03e9, 28, 16, 8, 128),
    "Qwen3-4B": Shape(4.02e9, 36, 32, 8, 128),
    "Qwen3-8B": Shape(8.19e9, 36, 32, 8, 128),
    "Qwen3-14B": Shape(14.77e9, 40, 40, 8, 128),
    "Qwen3-32B": Shape(32.76e9, 64, 64, 8, 128),
    "Llama-3.2-1B-Instruct": Shape(1.24e9, 16, 32, 8, 64),
    "Llama-3.2-3B-Instruct": Shape(3.21e9, 28, 24, 8, 128),
    "Llama-3.1-8B-Instruct": Shape(8.03e9, 32, 32, 8, 128),
    "Qwen2.5-Math-PRM-7B": Shape(7.08e9, 28, 28, 4, 128),
    "math-shepherd-mistral-7b-prm": Shape(7.24e9, 32, 32, 8, 128),
}
EXAMPLE = '{"parameters": 8.19e9, "layers": 36, "heads": 32, "kv_heads": 8, "head_dim": 128}'


def shape(name: str) -> Shape:
    """The shape of a model by its name, with or without its owner, from a JSON file or the model's folder.

    Raises:
        UserError: nobody knows the model, or file or folder do not hold a shape.
    """
    if name.endswith(".json"):
        return _read(name)
    if Path(name).is_dir():
        return _of_checkpoint(Path(name))
    known = {each.lower(): found for each, found in SHAPES.items()}
    found = known.get(name.rpartition("/")[2].lower())
    if found is None:
        raise UserError(
            f"no shape is known for the model {name!r}: name one of {', '.join(SHAPES)}, "
            f"or give a JSON file such as {EXAMPLE} or the model's folder"
        )
    return found


def _read(path: str) -> Shape:
    table = read_table(path, EXAMPLE)
    names = [field.name for field in fields(Shape)]
    if set(table) - set(names) or set(names[:-1]) - set(table) or not all(table.values()):
        raise UserError(f"{path} is no shape of a model: expected JSON such as {EXAMPLE}")
    return Shape(table.pop("parameters"), **{name: int(value) for name, value in table.items()})


def _of_checkpoint(folder: Path) -> Shape:
    """As config.json says; parameters are counted in the weights, whose precision the cache has, too."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads = told["num_attention_heads"]
        parameters = sum(_parameters(file) for file in folder.glob("*.safetensors"))
        if not parameters:
            raise ValueError("it has no weights in *.safetensors")
        return Shape(
            parameters,
            told["num_hidden_layers"],
            heads,
            told.get("num_key_value_heads", heads),
            told.get("head_dim") or told["hidden_size"] // heads,
            4 if told.get("dtype", told.get("torch_dtype")) == "float32" else 2,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{folder} is no folder of a model as Hugging Face keeps them ({reason}): give one with "
            f"config.json and *.safetensors, or a JSON file such as {EXAMPLE}"
        ) from None


def _parameters(file: Path) -> int:
    """How many numbers a safetensors file holds, by its header; 8 bytes before that hold its size."""
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        tensors = json.loads(stream.read(size))
    return sum(math.prod(tensor["shape"]) for name, tensor in tensors.items() if name != "__metadata__")
