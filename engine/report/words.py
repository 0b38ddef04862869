"""Numbers and texts as the report shows them."""

from __future__ import annotations

import math

from engine import charts
from engine.progress import duration
from engine.terminal import plain

MAX_CHARACTERS = 400


def change(before: float, after: float) -> str:
    """``fell from 166 to 112``, or ``stayed at 166`` where it looks the same."""
    if number(before) == number(after):
        return f"stayed at {number(after)}"
    verb = "fell" if after < before else "rose"
    return f"{verb} from {number(before)} to {number(after)}"


def outside_note(num: int) -> str:
    """What a note adds where values lie beyond the axis."""
    return f" Counted in the end bars, but beyond the axis: {num:,}." if num else ""


def cut(text: str, most: int = MAX_CHARACTERS) -> str:
    """The beginning of a text, control characters as pictures."""
    text = text.replace("\r\n", "\n")
    short = text if len(text) <= most else text[:most].rstrip() + "…"
    return shown(short)


def shown(text: str) -> str:
    """Text with control characters as pictures; in HTML they would vanish or be errors."""
    return plain(text, keep="\n\t")


def count(value: int, noun: str = "") -> str:
    """``1,234``, or with a noun ``1 row`` and ``2 rows``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}" if noun else f"{value:,}"


def number(value: float) -> str:
    """Three or four digits, as many as mean something: ``1.23``, ``45.6``, ``1,234``, ``3×10⁷``."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1e6:
        return charts.tick_label(value)
    digits = 0 if abs(value) >= 100 or value == round(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}".replace("-", "−")


def lp(value: float) -> str:
    """A learning percentage, three digits behind the point."""
    if not math.isfinite(value) or abs(value) >= 1000:
        return number(value)
    return f"{value:.3f}".replace("-", "−")


def part(share: float) -> str:
    """A share in percent; no rounding to 0% or 100% of what is not."""
    if not math.isfinite(share):
        return "–"
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    digits = 0 if share in (0.0, 1.0) or 0.2 <= share < 0.995 else 1
    return f"{100 * share:,.{digits}f}%"


def seconds(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 0.1:
        return "<0.1 s"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
