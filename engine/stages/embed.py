"""2 embed: a sentence embedding for every row that may be scored.

Reads ``1-pool``; writes, shard by shard, `id` and `embedding` (`schema.embeddings`), null for
flagged rows and for those of which the embedder makes NaN or infinity. The text embedded is the
paper's: instruction, input and response of single turns; of longer conversations the first response
that the pool doesn't mask, and what was asked since the response before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine import heartbeat, models, schema
from engine.actor import Made, Skip
from engine.columns import equals
from engine.config import Config
from engine.mapping import map_shards
from engine.models import ModelSource
from engine.nodes import Nodes
from engine.rundir import RunDir
from engine.step import POOL, Outcome, Step

NAME = "embed"
VERSION = 3


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """The embedder by content, what it sees of a row, and its precision."""
    return {
        "model": models.embedder_source(config).identity(run),
        "max_tokens": config.embed.max_tokens,
        "dtype": config.embed.dtype,
    }


def run(step: Step, nodes: Nodes) -> Outcome:
    """Embed every shard on the actor pool."""
    config = step.config
    nodes = nodes.for_shards(len(step.shards()), models.embedder_bytes(config))
    return map_shards(
        step,
        nodes,
        EmbedWorker,
        {
            "source": models.embedder_source(config),
            "dtype": config.embed.dtype,
            "device": nodes.device,
            "max_tokens": config.embed.max_tokens,
            "batch_rows": config.resources.embed_batch_rows,
            "num_threads": nodes.cpus_per_worker,
        },
    )


@dataclass(frozen=True)
class Inputs:
    """A shard of 1-pool: all ids, and the texts of the rows to embed."""

    ids: pa.ChunkedArray
    keep: npt.NDArray[np.int64]
    """Places of those rows."""
    texts: list[str]
    num_failed: int
    """Rows that could be embedded, but are left out."""


class EmbedWorker:
    """Holds the embedder; embeds a shard at a time, which sentence-transformers sorts by length."""

    def __init__(
        self,
        source: ModelSource,
        dtype: str,
        device: str,
        max_tokens: int,
        batch_rows: int,
        num_threads: int,
    ) -> None:
        models.use_threads(num_threads)
        models.use_tokenizer_threads(num_threads)
        self.embedder = models.load_embedder(source, dtype, device, max_tokens)
        self.dimension = int(self.embedder.get_embedding_dimension() or 0)
        self.batch_rows = batch_rows
        # `encode` calls its modules, and none but them, once for each batch.
        self.embedder[0].register_forward_hook(
            lambda _, given, made: heartbeat.beat(len(given[0]["input_ids"]))
        )

    def read(self, step: Step, shard: str, skip: Skip = None) -> Inputs:
        """See `actor.Worker`."""
        pool = step.read(POOL, shard, ["id", "turns", "flag"])
        ok = equals(pool["flag"], schema.OK)
        keep = np.flatnonzero(ok if skip is None else ok & ~skip)
        turns = pool["turns"].take(pa.array(keep)).to_pylist()
        return Inputs(pool["id"], keep, [text_of(row) for row in turns], int(ok.sum()) - len(keep))

    def __call__(self, step: Step, inputs: Inputs) -> Made:
        ids, keep, dimension = inputs.ids, inputs.keep, self.dimension
        vectors = np.zeros((len(ids), dimension), dtype=np.float32)
        if inputs.texts:
            vectors[keep] = self.embed(inputs.texts)
        finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(vectors), axis=1)
        vectors[~finite] = 0
        mask = np.ones(len(ids), dtype=bool)
        mask[keep] = ~finite[keep]
        column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), dimension, mask=pa.array(mask))
        table = pa.table([ids, column], schema=schema.embeddings(dimension))
        num_failed = inputs.num_failed + int((~finite).sum())
        flags = {schema.EMBEDDING_FAILED: num_failed} if num_failed else {}
        return Made(table, flags, {"embedded": int(finite[keep].sum())})

    def embed(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """float32[len(texts), dimension]"""
        return self.embedder.encode(
            texts, batch_size=self.batch_rows, show_progress_bar=False, convert_to_numpy=True
        )


def text_of(turns: Sequence[Mapping[str, Any]]) -> str:
    """The paper's text of a row: ``Instruction: … Response: …``, stripped as its code does.

    Masked answers are context, and so is what was asked before them, once more is asked. Where
    every answer is masked, the first one is taken.
    """
    is_any_scored = any(_is_scored(turn) for turn in turns)
    prompt = response = ""
    is_answered = False
    for turn in turns:
        if turn["role"] == schema.ASSISTANT:
            is_answered = True
            if _is_scored(turn) or not is_any_scored:
                response = turn["content"].strip()
                break
        elif turn["role"] in (schema.USER, schema.INPUT):
            before = "" if is_answered else prompt
            prompt = f"{before} {turn['content'].strip()}".strip()
            is_answered = False
    return f"Instruction: {prompt} Response: {response}"


def _is_scored(turn: Mapping[str, Any]) -> bool:
    """Whether it is an assistant turn that the pool doesn't mask; a null stands for a plain one."""
    return turn["role"] == schema.ASSISTANT and turn.get("scored") is not False
