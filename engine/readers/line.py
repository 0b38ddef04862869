"""What comes out of a file for each of its lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine import schema


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a piece: raw and row, or reason and detail."""

    line: int
    """Line of the piece from 1; for a JSON array the line its element starts on; for Parquet the
    row."""
    raw: str | None
    """The row's own JSON, byte for byte; for Parquet its JSON encoding."""
    row: dict[str, Any] | None
    reason: str | None
    detail: str | None


def too_large(number: int, max_row_bytes: int) -> Line:
    """A row that is over the limit, whatever it holds."""
    return Line(number, None, None, schema.ROW_TOO_LARGE, f"more than {max_row_bytes:,} bytes")
