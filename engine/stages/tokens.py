"""4 tokens: every conversation as the proxy sees it, tokenised once.

Reads ``1-pool``; writes, shard by shard, the columns of `schema.TOKENS`: token ids, scored
positions, and the flag that the template or the context's length adds. Null for flagged rows.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from engine import models, schema
from engine.actor import Made, Skip
from engine.columns import equals, from_lists, replaced
from engine.config import Config
from engine.errors import ConfigError
from engine.mapping import map_shards
from engine.models import ModelSource
from engine.nodes import Nodes
from engine.rundir import RunDir
from engine.step import POOL, Outcome, Step
from engine.text import Encoded, make_template

NAME = "tokens"
VERSION = 1


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """The tokenizer (by the model's content), the template and the context."""
    source = models.proxy_source(config)
    return {
        "model": source.identity(run),
        "template": config.proxy.template,
        "max_tokens": config.proxy.max_tokens,
    }


def check(config: Config) -> None:
    """Load the tokenizer once, before any work.

    Raises:
        ModelError: it cannot be used.
        ConfigError: the chat template is asked for and it has none.
    """
    source = models.proxy_source(config)
    tokenizer = models.load_tokenizer(source)
    if config.proxy.template == "chat" and not tokenizer.chat_template:
        raise ConfigError(
            f"proxy.template = 'chat', but the tokenizer of {source.name!r} has no chat template. "
            "Use proxy.template=alpaca."
        )


def run(step: Step, nodes: Nodes) -> Outcome:
    """Tokenise every shard, one actor per core.

    A tokenizer's own threads would leave cores idle while Python reads what they made of a batch.
    """
    source = models.proxy_source(step.config)
    return map_shards(
        step,
        nodes.one_core_each(),
        TokenWorker,
        {
            "source": source,
            "template": step.config.proxy.template,
            "max_tokens": step.config.proxy.max_tokens,
        },
    )


class TokenWorker:
    """Holds the tokenizer and the template."""

    def __init__(self, source: ModelSource, template: str, max_tokens: int) -> None:
        tokenizer = models.load_tokenizer(source)
        length = models.context_length(source, max_tokens)
        self.template = make_template(template, tokenizer, length)

    def read(self, step: Step, shard: str, skip: Skip = None) -> pa.Table:
        """See `actor.Worker`; `flag` says which rows are left out."""
        pool = step.read(POOL, shard, ["id", "turns", "flag"])
        if skip is None or not skip.any():
            return pool
        failed = equals(pool["flag"], schema.OK) & skip
        flag = replaced(pool["flag"], failed, schema.TOKENISING_FAILED)
        return pool.set_column(pool.column_names.index("flag"), "flag", flag)

    def __call__(self, step: Step, pool: pa.Table) -> Made:
        flags = pool["flag"].to_pylist()
        conversations = [
            [(turn["role"], turn["content"]) for turn in turns]
            for turns, flag in zip(pool["turns"].to_pylist(), flags, strict=True)
            if flag == schema.OK
        ]
        encoded = iter(self.template.encode(conversations))
        rows = [next(encoded) if flag == schema.OK else None for flag in flags]
        flags = [row.flag if row else flag for row, flag in zip(rows, flags, strict=True)]
        counts = {
            "tokens": sum(len(row.input_ids) for row in rows if row and row.flag == schema.OK),
            "scored_tokens": sum(len(row.scored) for row in rows if row),
            "truncated": sum(row.truncated for row in rows if row and row.flag == schema.OK),
        }
        return Made(as_table(pool["id"], rows, flags), Counter(flags), counts)


def as_table(ids: pa.ChunkedArray, rows: list[Encoded | None], flags: list[str]) -> pa.Table:
    """The shard's table; rows whose flag is not ``ok`` are null but for id and flag."""
    ok = [row if row is not None and row.flag == schema.OK else None for row in rows]
    return pa.table(
        [
            ids,
            from_lists([row.input_ids if row else None for row in ok]),
            from_lists([row.scored if row else None for row in ok]),
            pa.array([row.end_scored if row else None for row in ok], pa.bool_()),
            pa.array([len(r.input_ids) - len(r.scored) if r else None for r in ok], pa.int32()),
            pa.array([len(row.scored) if row else None for row in ok], pa.int32()),
            pa.array([row.truncated if row else None for row in ok], pa.bool_()),
            pa.array(flags, pa.string()),
        ],
        schema=schema.TOKENS,
    )
