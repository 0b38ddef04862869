"""Text on its way to a terminal or a log: nothing in it may act on what shows it."""

from __future__ import annotations

import textwrap
import unicodedata

WIDTH = 100
"""Characters of a line of prose."""
_JOINERS = "\u200c\u200d"  # of letters in Persian, of emoji: harmless, and meant
_PICTURES = {code: 0x2400 + code for code in range(32)} | {127: 0x2421}


def plain(text: str) -> str:
    """One line of text as it can be shown anywhere: control characters as pictures.

    A row's text or a file's name may hold escape sequences, which a terminal would obey, and
    marks that turn the direction of what follows.
    """
    shown = text.translate(_PICTURES)
    return "".join("\N{REPLACEMENT CHARACTER}" if _acts(letter) else letter for letter in shown)


def _acts(letter: str) -> bool:
    """Whether it is no letter but tells the terminal something (C1 controls, directions)."""
    return (
        letter not in _JOINERS
        and not letter.isascii()
        and unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp", "Cs")
    )


def warning(text: str) -> str:
    """``warning: …``, wrapped, its further lines below its first word."""
    return textwrap.fill(
        text, WIDTH, initial_indent="  warning: ", subsequent_indent=" " * 11,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
