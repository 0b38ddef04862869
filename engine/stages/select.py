"""8 select: the hard rows of every cluster, as files that people train on.

Reads ``7-score`` and `raw` from ``1-pool``; writes ``selected.parquet`` (`schema.selection`: the
score columns and `raw`) and ``selected.jsonl`` (the pool's own lines). `choose` and `write` also
serve ``poolscore select``, which selects again from a finished run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine import schema
from engine.columns import equals, ranking_keys
from engine.config import Config, SelectConfig
from engine.errors import ConfigError, did_you_mean
from engine.maths import ranking
from engine.maths.ranking import Keys
from engine.nodes import Nodes
from engine.parallel import peak_memory_bytes
from engine.rundir import RunDir
from engine.step import POOL, SCORE, SELECTED_JSONL, SELECTED_PARQUET, Outcome, Step
from engine.threads import in_order

NAME = "select"
VERSION = 1
DEFAULT_PERCENT = Decimal(10)

Rows = npt.NDArray[np.int64]


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """Every setting of the selection."""
    return config.select.model_dump(mode="json")


def check(config: Config) -> None:
    """Refuse, before any work, a metric that no score column will hold.

    Raises:
        ConfigError: names the columns there will be.
    """
    _metric(config, config.select.metric)


def run(step: Step, nodes: Nodes) -> Outcome:
    """Choose the rows and write both files."""
    candidates, rows = choose(step, step.config.select)
    for name in (SELECTED_JSONL, SELECTED_PARQUET):
        suffix = name.rsplit(".", 1)[1]
        step.run.commit_made(f"{step.folder}/{name}", partial(write, step, rows, suffix=suffix))
    return Outcome(
        rows_in=len(candidates.row),
        rows_out=len(rows),
        flags={schema.OK: len(rows)},
        peak_memory_bytes=peak_memory_bytes(),
        details={"candidates": len(candidates.row), "selected": len(rows)},
    )


def choose(step: Step, config: SelectConfig) -> tuple[Keys, Rows]:
    """The candidates (scored training rows) and the pool rows selected from them, sorted.

    Raises:
        ConfigError: the metric is no numeric score column, or more is asked for than there is.
    """
    metric = _metric(step.config, config.metric)
    keys, num_tokens = _candidates(step, metric)
    if config.tokens is not None:
        taken = ranking.select_tokens(keys, num_tokens, config.tokens, config.order)
    elif config.rows is not None:
        if config.rows > len(keys.row):
            raise ConfigError(
                f"select.rows = {config.rows:,}, but only {len(keys.row):,} rows are scored and "
                "in the training split. Ask for fewer."
            )
        share = Fraction(config.rows, max(len(keys.row), 1))
        taken = ranking.select_share(keys, share, config.rows, config.order)
    else:
        percent = Fraction(config.percent if config.percent is not None else DEFAULT_PERCENT)
        if config.rule == "reference":
            taken = ranking.select_reference(keys, percent, config.order)
        else:
            total = ranking.share_of_percent(percent, len(keys.row))
            taken = ranking.select_share(keys, percent / 100, total, config.order)
    return keys, np.sort(keys.row[taken])


def write(step: Step, rows: Rows, path: Path, suffix: str) -> None:
    """Write the selected rows in pool order: ``jsonl`` (own lines) or ``parquet`` (with scores)."""
    if suffix == "jsonl":
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for raw in _selected(step, rows, _raw):
                file.writelines(f"{one_line(text)}\n" for text in raw.to_pylist())
        return
    wanted = schema.selection(step.config.finetune.num_epochs)
    with pq.ParquetWriter(path, wanted, compression="zstd", write_page_checksum=True) as writer:
        for table in _selected(step, rows, _scores_and_raw):
            writer.write_table(table)


def one_line(raw: str) -> str:
    """A row's JSON on one line: elements of a pretty-printed array span several.

    Inside strings JSON has no bare line ends, so only white space between values is touched.
    """
    return raw.replace("\r", " ").replace("\n", " ")


def _selected(step: Step, rows: Rows, read: Callable[[Step, str, pa.Array], Any]) -> Iterator[Any]:
    """What `read` gives for the selected places of every shard that has any, in pool order."""
    shards = step.shards()
    ends = np.cumsum([step.run.num_rows(POOL, shard) for shard in shards])
    places: list[tuple[str, pa.Array]] = []
    for shard, start, part in zip(
        shards, [0, *ends[:-1]], np.split(rows, np.searchsorted(rows, ends[:-1])), strict=True
    ):
        if len(part):
            places.append((shard, pa.array(part - start)))
    return in_order(lambda item: read(step, *item), places)


def _raw(step: Step, shard: str, places: pa.Array) -> pa.ChunkedArray:
    return step.read(POOL, shard, ["raw"])["raw"].take(places)


def _scores_and_raw(step: Step, shard: str, places: pa.Array) -> pa.Table:
    """Some rows of a shard, as `schema.selection`."""
    wanted = schema.selection(step.config.finetune.num_epochs)
    scores = step.read(step.proxy_input(SCORE), shard).replace_schema_metadata(None).take(places)
    return scores.append_column(wanted.field("raw"), _raw(step, shard, places)).cast(wanted)


def _metric(config: Config, name: str) -> str:
    columns = schema.scores(config.finetune.num_epochs)
    allowed = [
        field.name
        for field in columns
        if pa.types.is_floating(field.type) or field.name.endswith("_tokens")
    ]
    if name not in allowed:
        raise ConfigError(
            f"select.metric = {name!r} is no score column{did_you_mean(name, allowed)}\n"
            f"Use one of: {', '.join(allowed)}"
        )
    return name


def _candidates(step: Step, metric: str) -> tuple[Keys, Rows]:
    """Keys and token counts of every scored row of the training split that has the metric."""
    parts = list(in_order(lambda shard: _shard_candidates(step, shard, metric), step.shards()))
    return Keys.stack([keys for keys, _ in parts]), np.concatenate([n for _, n in parts])


def _shard_candidates(step: Step, shard: str, metric: str) -> tuple[Keys, Rows]:
    columns = ["id", "row", "cluster", "num_prompt_tokens", "num_response_tokens", "split", "flag"]
    table = step.read(step.proxy_input(SCORE), shard, list(dict.fromkeys([*columns, metric])))
    keep = equals(table["flag"], schema.OK) & equals(table["split"], schema.TRAIN)
    table = table.filter(pa.array(keep & np.asarray(table[metric].is_valid())))
    tokens = np.asarray(table["num_prompt_tokens"]) + np.asarray(table["num_response_tokens"])
    return ranking_keys(table, metric), tokens.astype(np.int64)
