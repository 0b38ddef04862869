"""How many bad lines a pool may have before it is not what somebody took it for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine import schema, terminal
from engine.census import Census, closest
from engine.config import FieldMap, PoolConfig
from engine.errors import PoolError
from engine.readers import PoolFile

MAX_LISTED = 5
MAX_NAMES = 12
"""Keys that a message names."""
_PAGE = "docs/formats.md"
_SHAPE = (
    "the lines are no rows: a .jsonl file holds one JSON object a line, a .json file one array of "
    "objects. No setting helps where a file is something else: convert it first"
)
_NO_ROWS = {
    schema.INVALID_JSON: _SHAPE,
    schema.NOT_AN_OBJECT: _SHAPE,
    schema.INVALID_UTF8: "the text is not UTF-8: write the files again in that encoding",
    schema.RAGGED_ROW: "look whether the columns are separated as the header is, and whether a "
    "text that holds the separator or a line end stands in quotes, its own quotes doubled",
    schema.DUPLICATE_KEY: "write the rows again with each key once",
}


def refuse_rotten(
    config: PoolConfig,
    files: Sequence[PoolFile],
    num_rows: int,
    rejected: pa.Table,
    census: Census,
    where: Path,
) -> None:
    """Stop on a pool that is not what somebody took it for, and show the worst of it.

    Args:
        config: how much of it may be bad.
        files: of the pool.
        num_rows: lines that became rows.
        rejected: those that did not (`schema.REJECTED`).
        census: what the rows' keys are.
        where: the file that lists them, for the message.

    Raises:
        PoolError: there is no row, a file is broken, or too many lines are rejected.
    """
    listed = f"\n         all of them in {where}" if len(rejected) else ""
    if not num_rows:
        raise PoolError(
            what=f"the pool has no row that can be read; {len(rejected):,} lines were rejected",
            where=f"{_first(files)}{_worst(rejected)}{listed}",
            fix=_hint(config, rejected, census),
        )
    broken = rejected.filter(pa.array(np.isin(rejected["reason"].to_pylist(), schema.FILE_REASONS)))
    if len(broken) and not config.keep_broken_files:
        raise PoolError(
            what=f"files of the pool are broken: {len(broken):,}",
            where=f"{_lines_of(broken)}{listed}",
            fix="mend them or leave them out. --set pool.keep_broken_files=true scores the rows "
            "before each break",
        )
    num_lines = num_rows + len(rejected)
    share = len(rejected) / num_lines
    if len(rejected) > max(1, config.max_reject_fraction * num_lines):
        raise PoolError(
            what=f"{len(rejected):,} of {num_lines:,} lines were rejected "
            f"({share:.1%}), and pool.max_reject_fraction is {config.max_reject_fraction:.1%}",
            where=f"{_worst(rejected).strip()}{listed}",
            fix=f"look whether the pool is what you meant. {_hint(config, rejected, census)}. "
            f"--set pool.max_reject_fraction={math.ceil(1000 * share) / 1000:g} goes on without "
            "those lines",
        )


def refuse_unknown_source(
    config: PoolConfig, files: Sequence[PoolFile], num_rows: int, census: Census
) -> None:
    """Stop where no row has the field that is to name its source.

    Raises:
        PoolError: names the keys that there are.
    """
    if config.source_field is None or census.num_without_source < num_rows:
        return
    names = list(census.without_source.listed())
    if config.source_field in names:
        raise PoolError(
            what=f"the pool.source_field {config.source_field!r} is empty in every row",
            where=_first(files),
            fix="leave pool.source_field out: then the source is the file's name; or name another "
            "key",
        )
    last_parts = {name.rpartition(".")[2]: name for name in reversed(names)}
    last = closest(last_parts, [config.source_field.rpartition(".")[2]])
    meant = closest(names, [config.source_field]) or (last_parts[last] if last else None)
    guess = f"did you mean {meant!r}? " if meant else ""
    more = " and more" if len(names) > MAX_NAMES or census.without_source.others else ""
    raise PoolError(
        what=f"no row of the pool has pool.source_field = {config.source_field!r}",
        where=_first(files),
        fix=f"{guess}The rows have {', '.join(names[:MAX_NAMES]) or 'no names'}{more}. A key "
        "inside an object is named with a dot: meta.source",
    )


def _hint(config: PoolConfig, rejected: pa.Table, census: Census) -> str:
    """What to do about most of the rejected lines."""
    if not len(rejected):
        return "the files hold no rows: name others, or look how these were written"
    reasons = rejected["reason"].value_counts().to_pylist()
    reason = max(reasons, key=lambda r: r["counts"])["values"]
    first = rejected["detail"][rejected["reason"].index(reason).as_py()].as_py()
    if reason in _NO_ROWS:
        return _NO_ROWS[reason]
    if reason in schema.FILE_REASONS:
        return terminal.plain(first.partition("; ")[2] or first)
    if reason in (schema.WRONG_TYPE, schema.NO_TURNS):
        return (
            f"{terminal.plain(first)}: write each text as text and each list of turns as a list "
            f"with turns in it, not as JSON in a text. {_PAGE} has the formats"
        )
    if reason == schema.UNKNOWN_ROLE:
        key, inside = census.turn_keys()
        also = "KEY being that of the list of turns"
        if key:
            also = f"and pool.fields.role=KEY where {inside} has another key for it"
        return (
            f"say whose turns they are: --set pool.fields.turns={key or 'KEY'} "
            "--set pool.fields.roles.NAME=user (or system, assistant), "
            f"{also}"
        )
    if config.fields is not None:
        return _fields_hint(config.fields, census)
    if reason in (schema.LONE_SURROGATE, schema.ROW_TOO_LARGE):
        return f"see {_PAGE}"
    return f"{census.fields_hint()}. {_PAGE} has the formats that need no such setting"


def _fields_hint(fields: FieldMap, census: Census) -> str:
    """For rows that do not have the keys that `pool.fields` names."""
    have = list(census.rejected.listed())
    named = (fields.prompt, fields.response, fields.turns)
    typos = [name for name in named if name is not None and name not in have]
    guesses = [f"{name!r} may be {meant!r}" for name in typos if (meant := closest(have, [name]))]
    return (
        "pool.fields names the keys to read, and the rejected rows have "
        f"{', '.join(have[:MAX_NAMES]) or 'none that is a name'}"
        + (f"; {', '.join(guesses)}" if guesses else "")
    )


def _first(files: Sequence[PoolFile]) -> str:
    return ", ".join(terminal.plain(file.name) for file in files[:3])


def _worst(rejected: pa.Table) -> str:
    """How many lines of which file were rejected why, most first, each with its first line."""
    groups = rejected.group_by(["file", "reason"], use_threads=False)
    counts = groups.aggregate([([], "count_all"), ("line", "first"), ("detail", "first")])
    rows = sorted(counts.to_pylist(), key=lambda row: -row["count_all"])
    return "".join(
        f"\n         {terminal.plain(row['file'])}: {row['count_all']:,} × {row['reason']}, first "
        f"in line {row['line_first']} ({terminal.plain(row['detail_first'])})"
        for row in rows[:MAX_LISTED]
    )


def _lines_of(rejected: pa.Table) -> str:
    return "\n         ".join(
        f"{terminal.plain(row['file'])}, line {row['line']}: {row['reason']}, "
        f"{terminal.plain(row['detail'])}"
        for row in rejected.slice(0, MAX_LISTED).to_pylist()
    )
