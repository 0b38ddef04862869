"""Text on its way to a terminal or a log: nothing in it may act on what shows it."""

from __future__ import annotations

import codecs
import os
import shutil
import textwrap
import unicodedata
from contextlib import suppress
from typing import TextIO

MAX_WIDTH = 100
"""Characters of a line of prose, where the terminal has room for them."""
MIN_WIDTH = 40
_HARMLESS = "\u00ad\u200c\u200d\u200e\u200f"
"""Soft hyphens, joiners of letters and emoji, marks of direction: they act on one letter."""
_PICTURES = {code: 0x2400 + code for code in range(32)} | {127: 0x2421}

_IN_ASCII = {"→": "->", "…": "...", "×": "x", "·": "-", "–": "-", "—": "-", "−": "-", "⇄": "<->"}
_HANDLER = "poolscore"


def speak_its_charset(*streams: TextIO | None) -> None:
    """Let text through to a terminal of another character set, such as that of the C locale."""
    codecs.register_error(_HANDLER, _spelled_out)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # not of what tests and notebooks put there
            reconfigure(errors=_HANDLER)


def _spelled_out(error: UnicodeError) -> tuple[str, int]:
    """What a character set lacks, in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    spelled = (
        _IN_ASCII.get(letter) or letter.encode("ascii", "backslashreplace").decode()
        for letter in lacking
    )
    return "".join(spelled), error.end


def tell(stream: TextIO, line: str = "") -> None:
    """Write a last line, or what is still to be written, to one that may be gone by now.

    A terminal that closes stops the run; how the run ended must not hang on that it reads on.
    """
    try:
        stream.write(f"{line}\n" if line else "")
        stream.flush()
    except (OSError, ValueError):
        silence(stream)


def silence(stream: TextIO) -> None:
    """Let a stream that nobody reads any more lead nowhere: Python writes to it once more when it
    ends, and a failure of that would be the exit code.
    """
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def width() -> int:
    """Characters that fit on a line of the terminal, or of a log."""
    columns = shutil.get_terminal_size((MAX_WIDTH, 24)).columns
    return max(MIN_WIDTH, min(MAX_WIDTH, columns))


def plain(text: str, keep: str = "") -> str:
    """Text as it can be shown anywhere: control characters as pictures, all but those in `keep`.

    A row's text or a file's name may hold escape sequences, which a terminal would obey, and
    marks that turn the direction of what follows.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter in keep else _shown(letter) for letter in text)


def _shown(letter: str) -> str:
    if letter.isascii():
        return letter.translate(_PICTURES)
    acts = unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp", "Cs")  # C1, directions
    return "\N{REPLACEMENT CHARACTER}" if acts and letter not in _HARMLESS else letter


def lines(text: str) -> str:
    """`plain` of a text of several lines, line by line."""
    return plain(text, keep="\n")


def filled(head: str, text: str) -> str:
    """`text` behind `head`, wrapped below its own first word."""
    return textwrap.fill(
        text, width(), initial_indent=head, subsequent_indent=" " * len(head),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def note(text: str) -> str:
    """``note: …``, wrapped."""
    return filled("  note: ", plain(text))


def warning(text: str) -> str:
    """``warning: …``, wrapped."""
    return filled("  warning: ", plain(text))
