"""The rows that a proxy is trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine import schema
from engine.columns import equals, to_ragged
from engine.maths.ragged import Ragged
from engine.step import PERPLEXITY, POOL, TOKENS, Step


@dataclass(frozen=True)
class TrainingRows:
    """The rows that take part, as every worker holds them."""

    ids: list[str]
    row: npt.NDArray[np.int64]
    """Place in the pool."""
    input_ids: Ragged
    scored: Ragged


def load_rows(step: Step) -> TrainingRows:
    """Every row that takes part: ``ok``, of the training split, and with a finite first score."""
    columns = ["id", "input_ids", "scored"]
    parts = [_training_part(step, shard, columns) for shard in step.shards()]
    table = pa.concat_tables(parts)
    return TrainingRows(
        ids=table["id"].to_pylist(),
        row=np.asarray(table["row"], dtype=np.int64),
        input_ids=to_ragged(table["input_ids"]),
        scored=to_ragged(table["scored"]),
    )


def _training_part(step: Step, shard: str, columns: list[str]) -> pa.Table:
    """`row` and some columns of 4-tokens, for the rows of one shard that are trained on."""
    pool = step.read(POOL, shard, ["row", "split"])
    tokens = step.read(step.proxy_input(TOKENS), shard, [*columns, "flag"])
    before = step.read(step.proxy_input(PERPLEXITY, 0), shard, ["nll_sum"])["nll_sum"]
    keep = equals(pool["split"], schema.TRAIN) & equals(tokens["flag"], schema.OK)
    # A row that broke the scorer, or made it give no number, would do the same here.
    keep &= np.isfinite(before.to_numpy())  # null becomes NaN
    table = tokens.replace_schema_metadata(None).append_column("row", pool["row"])
    return table.filter(pa.array(keep))


def size(step: Step) -> tuple[int, int]:
    """Rows and tokens of one epoch."""
    columns = ["num_prompt_tokens", "num_response_tokens"]
    parts = [_training_part(step, shard, columns) for shard in step.shards()]
    tokens = sum(int(np.asarray(part[name]).sum()) for part in parts for name in columns)
    return sum(part.num_rows for part in parts), tokens
