"""What the report says, read from the results of the other stages."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine import rundir, schema
from engine.record import Record
from engine.step import (
    CENTROIDS_FILE,
    CLUSTER,
    FINETUNE,
    POOL,
    SCORE,
    SELECT,
    SELECTED_PARQUET,
    STEPS_FILE,
    Step,
)

NUM_EXAMPLES = 10
FloatArray = npt.NDArray[np.float64]


class Findings(NamedTuple):
    """What the page is made from, besides the records and the texts of the rows shown."""

    table: pa.Table
    """Score columns of all rows, no text but `source`, `split` and `flag`."""
    is_ok: npt.NDArray[np.bool_]
    """bool[rows]: the row is scored."""
    selected: npt.NDArray[np.bool_]
    """bool[rows]"""
    hardest: list[dict[str, Any]]
    easiest: list[dict[str, Any]]
    cluster_sizes: npt.NDArray[np.int64]
    """int64[clusters]: embedded rows of each cluster, by its index."""
    losses: list[FloatArray]
    """float64[steps] for every epoch."""


def read_findings(step: Step) -> Findings:
    """The numbers of all rows, a shard at a time; ids only of the rows shown."""
    epochs = range(step.config.finetune.num_epochs + 1)
    columns = ["row", "source", "split", "cluster", "num_response_tokens", "truncated"]
    columns += [*(f"ppl_{i}" for i in epochs), "lp_app_1", "flag"]
    tables: list[pa.Table] = []
    ends: dict[str, list[dict[str, Any]]] = {"ascending": [], "descending": []}
    for shard in step.shards():
        table = step.read(step.proxy_input(SCORE), shard, ["id", *columns])
        ok = table.filter(pc.field("flag") == schema.OK)
        for order, rows in ends.items():
            ordered = ok.sort_by([(key, order) for key in ("lp_app_1", "id", "row")])
            rows += [{**r, "shard": shard} for r in ordered.slice(0, NUM_EXAMPLES).to_pylist()]
        tables.append(_encoded(table.select(columns)))
    table = rundir.concat(tables).unify_dictionaries()
    is_ok = _equal(table["flag"], schema.OK)
    num_ok = int(is_ok.sum())
    num_easy = min(NUM_EXAMPLES, num_ok // 2)  # no row is shown at both ends
    return Findings(
        table,
        is_ok,
        np.isin(np.asarray(table["row"]), _selected_rows(step)),
        _end(ends["ascending"])[: min(NUM_EXAMPLES, num_ok - num_easy)],
        _end(ends["descending"], reverse=True)[:num_easy],
        values(step.read(CLUSTER, CENTROIDS_FILE, ["num_rows"]), "num_rows").astype(np.int64),
        [
            values(step.read(step.proxy_input(FINETUNE, epoch), STEPS_FILE, ["loss"]), "loss")
            for epoch in epochs[1:]
        ],
    )


def _selected_rows(step: Step) -> npt.NDArray[np.int64]:
    """Rows of the selection; its file is made for other tools and carries no fingerprint."""
    table = step.run.read_unmarked(step.proxy_input(SELECT), SELECTED_PARQUET, ["row"])
    return np.asarray(table["row"], dtype=np.int64)


def _encoded(table: pa.Table) -> pa.Table:
    """Text columns as codes: they have few values, and there may be millions of rows."""
    columns = {
        name: column.dictionary_encode() if pa.types.is_string(column.type) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pa.table(columns)


def _equal(column: pa.ChunkedArray, value: str) -> npt.NDArray[np.bool_]:
    """bool[n]: where a column of codes has this value."""
    codes = column.combine_chunks()
    places = [i for i, name in enumerate(codes.dictionary.to_pylist()) if name == value]
    return np.isin(np.asarray(codes.indices), places)


def _end(rows: list[dict[str, Any]], reverse: bool = False) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda r: (r["lp_app_1"], r["id"], r["row"]), reverse=reverse)


def all_records(step: Step) -> dict[str, Record]:
    """Records of the inputs, of their inputs and so on, in the order in which the stages ran."""
    found: dict[str, Record] = {}
    waiting = list(step.inputs)
    while waiting:
        folder = waiting.pop()
        record = step.run.record(folder) if folder not in found else None
        if record is not None:
            found[folder] = record
            waiting += record.inputs
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(folder: str) -> tuple[int, int, bool]:
    """Place of a folder in the way through: 5 and 6 take turns, epoch by epoch."""
    stage, _, epoch = folder.removeprefix("proxies/").partition("/epoch-")
    number = int(stage.rpartition("/")[2].partition("-")[0])
    return (5 if number == 6 else number, int(epoch or 0), number != 6)


def read_texts(step: Step, examples: list[dict[str, Any]]) -> dict[int, list[dict[str, str]]]:
    """Turns of some rows; opens the shards they are in and no other."""
    wanted = [example["row"] for example in examples]
    texts: dict[int, list[dict[str, str]]] = {}
    for shard in sorted({example["shard"] for example in examples}):
        table = step.read(POOL, shard, ["row", "turns"])
        for row in table.filter(pc.field("row").isin(wanted)).to_pylist():
            texts[row["row"]] = row["turns"]
    return texts


def values(table: pa.Table, column: str) -> FloatArray:
    """float64[rows] of a column; NaN where it is null."""
    return np.asarray(table[column], dtype=np.float64)


def ppl_names(table: pa.Table) -> list[str]:
    """The columns of perplexities, by epoch."""
    return [name for name in table.column_names if name.startswith("ppl_")]


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value comes."""
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}


def median(values: FloatArray) -> float:
    """Of the finite values; NaN without any."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan
