"""4 tokens: every conversation as the proxy sees it, tokenised once.

Reads ``1-pool``; writes, shard by shard, the columns of `schema.TOKENS`: token ids, scored
positions, and the flag that the template or the context's length adds. Null for flagged rows.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from jinja2 import TemplateError

from engine import models, schema
from engine.actor import Made, Skip
from engine.columns import equals, from_lists, replaced
from engine.config import Config
from engine.encoding import Encoded
from engine.errors import ConfigError, in_short
from engine.formats import Turn
from engine.mapping import map_shards
from engine.models import ModelSource
from engine.nodes import Nodes
from engine.rundir import RunDir
from engine.step import POOL, Outcome, Step
from engine.terminal import plain
from engine.text import make_template
from engine.trial import TEMPLATE_FLAGS, lost, try_template

NAME = "tokens"
VERSION = 3


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """The tokenizer (by the model's content), the template and the context."""
    source = models.proxy_source(config)
    return {
        "model": source.identity(run),
        "template": config.proxy.template,
        "scored_turns": config.proxy.scored_turns,
        "date": config.proxy.date.isoformat() if config.proxy.date else None,
        "max_tokens": config.proxy.max_tokens,
    }


def check(config: Config) -> list[str]:
    """Try tokenizer and template before any work; warnings about rows that would be lost.

    Raises:
        ModelError: the tokenizer cannot be used.
        ConfigError: the template cannot be used, or not on most of the pool's rows.
    """
    source = models.proxy_source(config)
    tokenizer = models.load_tokenizer(source)
    if config.proxy.template == "chat" and not tokenizer.chat_template:
        raise ConfigError(
            f"proxy.template = 'chat', but the tokenizer of {source.name!r} has no chat template. "
            "Use proxy.template=alpaca."
        )
    proxy = config.proxy
    length = models.context_length(source, proxy.max_tokens)
    try:
        template = make_template(proxy.template, tokenizer, length, proxy.scored_turns, proxy.date)
    except (TemplateError, ValueError) as error:
        raise ConfigError(
            f"proxy.template = 'chat', but the chat template of {source.name!r} cannot be used: "
            f"{plain(in_short(error)).rstrip('.')}.\nOr use proxy.template=alpaca."
        ) from None
    return try_template(template, config)


def run(step: Step, nodes: Nodes) -> Outcome:
    """Tokenise every shard, one actor per core.

    A tokenizer's own threads would leave cores idle while Python reads what they made of a batch.
    """
    source = models.proxy_of(step)
    proxy = step.config.proxy
    outcome = map_shards(
        step,
        nodes.one_core_each(),
        TokenWorker,
        {
            "source": source,
            "template": proxy.template,
            "max_tokens": proxy.max_tokens,
            "which": proxy.scored_turns,
            "date": proxy.date,
        },
    )
    flags = Counter(outcome.flags)
    tried = sum(flags[flag] for flag in (schema.OK, schema.PROMPT_TOO_LONG, *TEMPLATE_FLAGS))
    warnings = lost(flags, tried, step.config, "of the rows")
    return replace(outcome, warnings=[*outcome.warnings, *warnings])


class TokenWorker:
    """Holds the tokenizer and the template."""

    def __init__(
        self,
        source: ModelSource,
        template: str,
        max_tokens: int,
        which: str = "all",
        date: datetime.date | None = None,
    ) -> None:
        tokenizer = models.load_tokenizer(source)
        length = models.context_length(source, max_tokens)
        self.template = make_template(template, tokenizer, length, which, date)
        self.num_tokens = models.vocabulary_size(source)

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
            [as_turn(turn) for turn in turns]
            for turns, flag in zip(pool["turns"].to_pylist(), flags, strict=True)
            if flag == schema.OK
        ]
        encoded = map(self._known, self.template.encode(conversations))
        rows = [next(encoded) if flag == schema.OK else None for flag in flags]
        flags = [row.flag if row else flag for row, flag in zip(rows, flags, strict=True)]
        counts = {
            "tokens": sum(len(row.input_ids) for row in rows if row and row.flag == schema.OK),
            "scored_tokens": sum(len(row.scored) for row in rows if row and row.flag == schema.OK),
            "truncated": sum(row.truncated for row in rows if row and row.flag == schema.OK),
        }
        return Made(as_table(pool["id"], rows, flags), Counter(flags), counts)

    def _known(self, row: Encoded) -> Encoded:
        """The row, flagged where the model has no embedding for one of its tokens."""
        if not self.num_tokens or row.flag != schema.OK or row.input_ids.max() < self.num_tokens:
            return row
        return replace(row, flag=schema.UNKNOWN_TOKEN)


def as_turn(turn: Mapping[str, Any]) -> Turn:
    """A turn out of the pool's shard; a null stands for a plain one."""
    scored = turn["scored"] is not False
    return Turn(turn["role"], turn["content"], turn["thinking"] or "", scored)


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
