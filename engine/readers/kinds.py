"""What kind of file one is: by its name, and by its first bytes where the name may be wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final, Literal

Content = Literal["lines", "json", "csv", "tsv", "parquet", "arrow"]

_CONTENTS: Final[dict[str, Content]] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".jsonlines": "lines",
    ".jl": "lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_CODECS: Final = {".gz": "gzip", ".zst": "zstd"}
KNOWN: Final = ".jsonl, .json, .csv, .tsv (also .gz, .zst), .parquet, .arrow"
"""The suffixes, for messages."""

MAGIC: Final = {
    b"version https://git-lfs": "a Git LFS pointer, not the data: git lfs pull fetches them",
    b"\x1f\x8b": "gzip, so its name must end in .gz, as .jsonl.gz does",
    b"\x28\xb5\x2f\xfd": "zstd, so its name must end in .zst, as .jsonl.zst does",
    b"PAR1": "Parquet, so its name must end in .parquet",
    b"ARROW1": "Arrow, so its name must end in .arrow",
    b"\xff\xff\xff\xff": "Arrow, so its name must end in .arrow",
    b"FEA1": "Feather of version 1: read it with pyarrow and write it as .parquet",
    b"PK\x03\x04": "a zip archive, which has to be unpacked (or an Excel workbook: save it as CSV)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save it as CSV",
    b"\xfd7zXZ": "xz: unxz unpacks it",
    b"BZh": "bzip2: bunzip2 unpacks it",
    b"SQLite format 3": "an SQLite database: write its table to a .csv or .jsonl file",
    b"\x80\x04\x95": "a Python pickle, which can run code: write the rows to a .jsonl file",
    b"%PDF-": "a PDF",
    b"\xff\xfe": "UTF-16 text: iconv -f UTF-16 -t UTF-8 mends it",
    b"\xfe\xff": "UTF-16 text: iconv -f UTF-16 -t UTF-8 mends it",
}
"""What no pool file begins with, but for one of its own kind; and what it is then."""
_PAGES: Final = (b"<!doctype", b"<html", b"<?xml")
_PAGE: Final = (
    "a web page, such as a login or an error: open it in a browser, and download the file again"
)
HEAD_BYTES: Final = 64
"""As much of a file as `wrong_kind` wants."""
_OWN: Final = {"parquet": (b"PAR1",), "arrow": (b"ARROW1", b"\xff\xff\xff\xff")}
_OWN_CODEC: Final = {"gzip": (b"\x1f\x8b",), "zstd": (b"\x28\xb5\x2f\xfd",)}

_SNIFFED_LINES: Final = 8


@dataclass(frozen=True)
class Kind:
    """What a file's name says of it."""

    content: Content
    codec: str | None = None
    """``gzip`` or ``zstd``, around text."""


def kind_of(name: str) -> Kind | None:
    """The kind that a file's name says, in any case; None if its suffix is none that is known."""
    name = name.lower()
    codec = next((suffix for suffix in _CODECS if name.endswith(suffix)), "")
    stem = name.removesuffix(codec)
    content: Content | None = next(
        (kind for suffix, kind in _CONTENTS.items() if stem.endswith(suffix)), None
    )
    if content is None or (codec and content in _OWN):
        return None
    return Kind(content, _CODECS.get(codec))


def wrong_kind(head: bytes, kind: Kind) -> str | None:
    """What a file is by its first `HEAD_BYTES`, if that is surely not what its name says."""
    own = _OWN_CODEC.get(kind.codec or "", ()) + _OWN.get(kind.content, ())
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES):
        return _PAGE
    found = (what for magic, what in MAGIC.items() if head.startswith(magic) and magic not in own)
    return next(found, None)


def are_lines(lines: Iterable[bytes]) -> bool:
    """Whether the text of a .json file is JSON lines: an object alone on its line, then more.

    In a document a comma or a bracket would follow. The first lines are enough, and one of them may
    be broken.

    Args:
        lines: the file's, from its beginning.
    """
    stripped = (line.removeprefix(b"\xef\xbb\xbf").strip() for line in lines)
    first = list(islice((line for line in stripped if line), _SNIFFED_LINES))
    if not first or not first[0].startswith(b"{"):
        return False
    return any(after[:1] not in b"]}," and _is_object(line) for line, after in pairwise(first))


def _is_object(line: bytes) -> bool:
    try:
        return type(json.loads(line)) is dict
    except (ValueError, RecursionError):
        return False
