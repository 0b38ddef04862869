"""The files of a pool, and their raw rows with the place of each. No Ray, no formats of rows.

Every line that is not blank comes out once: as a row, or with the reason why it is none. One bad
line costs one line. A file that is one document (a JSON array, Parquet, an archive) and is broken
ends with a `BrokenFileError`, as nothing after the break can be trusted.
"""

from engine.readers.files import PoolFile, find_files
from engine.readers.line import Line
from engine.readers.parquet import open_parquet
from engine.readers.pieces import PIECE_BYTES, Piece, count_lines, cut, read_lines

__all__ = [
    "PIECE_BYTES",
    "Line",
    "Piece",
    "PoolFile",
    "count_lines",
    "cut",
    "find_files",
    "open_parquet",
    "read_lines",
]
