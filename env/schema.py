"""What a store looks like on disk: names, columns, and the errors that reading and writing share."""

from __future__ import annotations

import pyarrow as pa

from env.errors import UserError

FORMAT = "autotts-store"
FORMAT_VERSION = 1
META_FILE = "store.json"
PROBLEMS_FILE = "problems.parquet"
CAPABILITIES = ("probes", "forks", "prm", "logprob", "confidence", "text", "arms")

# `problem` counts from 0 in the store; `node` and `parent` count from 0 in the problem, -1 = no parent.
NODES = pa.schema(
    [
        pa.field("problem", pa.int32(), nullable=False),
        pa.field("node", pa.int32(), nullable=False),
        pa.field("parent", pa.int32(), nullable=False),
        pa.field("depth", pa.int32(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("probed", pa.bool_(), nullable=False),
        pa.field("answer_raw", pa.string()),
        pa.field("answer", pa.int32()),
        pa.field("probe_tokens", pa.int32()),
        pa.field("end", pa.uint8(), nullable=False),
        pa.field("prm", pa.list_(pa.float32())),
        pa.field("logprob", pa.float32()),
        pa.field("confidence", pa.float32()),
        pa.field("arm", pa.int16(), nullable=False),
    ]
)

# `classes` holds each class's representative, the string that founded it; `class_correct` its grade.
# `prompt_tokens` is the length of the question's prompt for each arm, where it is known.
PROBLEMS = pa.schema(
    [
        pa.field("problem", pa.int32(), nullable=False),
        pa.field("question_hash", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("gold", pa.string(), nullable=False),
        pa.field("nodes", pa.int64(), nullable=False),
        pa.field("classes", pa.list_(pa.string()), nullable=False),
        pa.field("class_correct", pa.list_(pa.bool_()), nullable=False),
        pa.field("prompt_tokens", pa.list_(pa.int32())),
    ]
)

TEXT = pa.schema(
    [
        pa.field("problem", pa.int32(), nullable=False),
        pa.field("node", pa.int32(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("token_ids", pa.list_(pa.int32())),
    ]
)


class StoreError(UserError):
    """A store cannot be read or written: it is missing, damaged, too new, or in the way."""
