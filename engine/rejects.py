"""How many bad lines a pool may have before it is not what somebody took it for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from engine import schema
from engine.config import PoolConfig
from engine.errors import PoolError
from engine.readers import PoolFile

MAX_LISTED = 5


def refuse_rotten(
    config: PoolConfig, files: Sequence[PoolFile], num_rows: int, rejected: pa.Table, where: Path
) -> None:
    """Stop on a pool that is not what somebody took it for, and show the worst of it.

    Args:
        config: how much of it may be bad.
        files: of the pool.
        num_rows: lines that became rows.
        rejected: those that did not (`schema.REJECTED`).
        where: the file that lists them, for the message.

    Raises:
        PoolError: there is no row, a file is broken, or too many lines are rejected.
    """
    listed = f"\n         all of them in {where}" if len(rejected) else ""
    if not num_rows:
        raise PoolError(
            what=f"the pool has no row that can be read; {len(rejected):,} lines were rejected",
            where=f"{', '.join(file.name for file in files[:3])}{_worst(rejected)}{listed}",
            fix="see docs/formats.md for the formats known, or name the rows' own keys with "
            "--set pool.fields.prompt=… --set pool.fields.response=…",
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
            fix="look whether the pool is what you meant. --set pool.max_reject_fraction="
            f"{math.ceil(1000 * share) / 1000:g} goes on without those lines",
        )


def _worst(rejected: pa.Table) -> str:
    """How many lines of which file were rejected why, most first, each with its first line."""
    groups = rejected.group_by(["file", "reason"], use_threads=False)
    counts = groups.aggregate([([], "count_all"), ("line", "first"), ("detail", "first")])
    rows = sorted(counts.to_pylist(), key=lambda row: -row["count_all"])
    return "".join(
        f"\n         {row['file']}: {row['count_all']:,} × {row['reason']}, first in line "
        f"{row['line_first']} ({row['detail_first']})"
        for row in rows[:MAX_LISTED]
    )


def _lines_of(rejected: pa.Table) -> str:
    return "\n         ".join(
        f"{row['file']}, line {row['line']}: {row['reason']}, {row['detail']}"
        for row in rejected.slice(0, MAX_LISTED).to_pylist()
    )
