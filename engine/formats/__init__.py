"""One row of a pool, in whatever format, to one conversation. Pure: no files, no Ray.

Formats are told apart by their keys. What is mapped, what is flagged and what is rejected is said
once, in ``docs/formats.md``, whose every line is a test. `row` finds the format; `flat`, `chat` and
`answers` read what there is, `beside` and `history` what stands around it; `media` knows pictures
by their names, `turns` is what comes out, `values` what may be in a row.
"""

from engine.formats.names import Found, find
from engine.formats.row import Converted, convert, looks_like_turns, to_conversation
from engine.formats.turns import Turn, canonical, row_id
from engine.formats.values import RowError, is_empty, is_plain_name, json_text, json_type

__all__ = [
    "Converted",
    "Found",
    "RowError",
    "Turn",
    "canonical",
    "convert",
    "find",
    "is_empty",
    "is_plain_name",
    "json_text",
    "json_type",
    "looks_like_turns",
    "row_id",
    "to_conversation",
]
