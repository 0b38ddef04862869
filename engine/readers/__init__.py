"""The files of a pool, and their raw rows with the place of each. No Ray, no formats of rows.

Every line that is not blank comes out once: as a row, or with the reason why it is none. One bad
line costs one line. A file that is one document (a JSON array, a table, an archive) and is broken
ends with a `BrokenFileError`, as nothing after the break can be trusted.
"""

from engine.readers.arrow import open_arrow
from engine.readers.files import PoolFile, find_files
from engine.readers.globs import is_glob, would_find
from engine.readers.line import Line
from engine.readers.parquet import open_parquet
from engine.readers.parquet_footer import num_rows as num_parquet_rows
from engine.readers.pieces import (
    PIECE_BYTES,
    Piece,
    count_lines,
    cut,
    kind,
    problem_of,
    read_lines,
)
from engine.readers.remarks import remarks

__all__ = [
    "PIECE_BYTES",
    "Line",
    "Piece",
    "PoolFile",
    "count_lines",
    "cut",
    "find_files",
    "is_glob",
    "kind",
    "num_parquet_rows",
    "open_arrow",
    "open_parquet",
    "problem_of",
    "read_lines",
    "remarks",
    "would_find",
]
