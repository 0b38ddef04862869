"""Charts as inline SVG: arrays in, markup out. No library, no script, nothing fetched.

Colours come from the page's style sheet by class (those of the series; `grid`, `axis`, `mark`), so
one chart serves light, dark and paper. `Bins` says where a histogram's bars lie; a few far outliers
do not stretch it: they are counted in its first or last bar, and `num_outside` says how many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WIDTH, HEIGHT = 420.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 22.0, 30.0, 44.0
"""Margins that hold the tick labels; a phone shows a chart at 0.8 of this size."""
PLOT_WIDTH, FLOOR = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM

CHARACTER = 11.0
"""Room that one character of a tick label takes, the gap to the next label shared out."""

MIN_BINS, MAX_BINS = 8, 40
FENCE = 6.0
"""Values further than this many interquartile ranges from the middle half lie outside the axis."""
SAME = 1e-9
"""Values that differ by less than this part of their size share one bar."""
HUGE = 1e300
"""Larger values count as this, so that no width overflows."""
MAX_DOTS = 40
"""Points of a line up to which each gets a dot."""


class Labels(NamedTuple):
    """What a chart says in words."""

    title: str
    """Read out in place of the drawing."""
    x: str
    y: str


class Mark(NamedTuple):
    """A dashed vertical line with a word beside it."""

    value: float
    text: str


@dataclass(frozen=True)
class Bins:
    """Where the bars of a histogram lie."""

    edges: FloatArray
    """float64[num + 1], rising."""
    is_log: bool = False
    is_whole: bool = False
    """The values are whole numbers; every edge lies between two of them."""

    def place(self, values: npt.ArrayLike) -> FloatArray:
        """Places along the axis in SVG units."""
        ends, places = self.edges[[0, -1]], np.asarray(values, dtype=np.float64)
        if self.is_log:
            ends, places = np.log10(ends), np.log10(places)
        return LEFT + PLOT_WIDTH * (places - ends[0]) / (ends[1] - ends[0])

    def ticks(self) -> list[float]:
        """Round values along the axis."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        ticks = log_ticks(low, high) if self.is_log else linear_ticks(low, high)
        return [tick for tick in ticks if tick == round(tick)] if self.is_whole else ticks


def linear_bins(values: FloatArray, whole: bool = False) -> Bins:
    """Bars of a round width on round edges, so that 0 is an edge and never inside a bar.

    Args:
        values: float64[n]; what is not finite is left out.
        whole: the values are counts; a bar then holds whole numbers only.
    """
    values = np.clip(values[np.isfinite(values)], -HUGE, HUGE)
    low, high = _range(values) if len(values) else (0.0, 1.0)
    size = max(1.0, abs(low), abs(high))
    if high - low < SAME * size and not whole:
        low, high = low - 0.5 * size, high + 0.5 * size
    step = _round_step((high - low) / _num_bins(len(values)), whole)
    first, last = math.floor(low / step), math.floor(high / step) + 1
    if not whole and (last - 1) * step >= high and last - 1 > first:
        last -= 1  # the highest value lies on an edge, and the last bar includes its edge
    edges = np.arange(first, last + 1, dtype=np.float64) * step
    return Bins(edges - 0.5, is_whole=True) if whole else Bins(edges)


def log_bins(values: FloatArray) -> Bins:
    """Bars of equal width on a logarithmic axis; what is not finite and positive is left out."""
    values = np.log10(values[np.isfinite(values) & (values > 0)])
    low, high = _range(values) if len(values) else (0.0, 1.0)
    if high - low < SAME:
        low, high = low - 0.5, high + 0.5
    return Bins(10 ** np.linspace(low, high, _num_bins(len(values)) + 1), is_log=True)


def bin_counts(values: FloatArray, bins: Bins) -> IntArray:
    """int64[num bins]: finite values per bar, those outside the axis in the first or last bar."""
    finite = values[np.isfinite(values)]
    inside = np.clip(finite, bins.edges[0], bins.edges[-1])
    return np.histogram(inside, bins.edges)[0].astype(np.int64)


def num_outside(values: FloatArray, bins: Bins) -> int:
    """Finite values that lie beyond either end of the axis."""
    finite = values[np.isfinite(values)]
    low, high = bins.edges[[0, -1]]
    slack = SAME * max(abs(low), abs(high))  # log10 and back moves an end by a rounding error
    return int(np.sum((finite < low - slack) | (finite > high + slack)))


def histogram(
    bins: Bins,
    series: Mapping[str, npt.NDArray[np.integer] | FloatArray],
    labels: Labels,
    marks: Sequence[Mark] = (),
) -> Markup:
    """Stepped areas over one axis, drawn in order, all from zero.

    Args:
        bins: the bars' places.
        series: height of every bar, by style class.
        labels: title, horizontal and vertical axis.
        marks: values to point out; one outside the axis is left out.
    """
    top, y_ticks = _heights(list(series.values()))
    x = bins.place(bins.edges)
    areas = [_area(x, _up(heights, 0.0, top), name) for name, heights in series.items()]
    low, high = bins.edges[0], bins.edges[-1]
    lines = [_mark(float(bins.place(m.value)), m.text) for m in marks if low < m.value < high]
    x_ticks = [(float(bins.place(tick)), tick_label(tick)) for tick in bins.ticks()]
    return _svg(labels, x_ticks, [(float(_up(t, 0.0, top)), t) for t in y_ticks], areas + lines)


def bars(names: Sequence[str], series: Mapping[str, IntArray], labels: Labels) -> Markup:
    """One bar per name; several series lie over one another, so each must be a part of the last."""
    top, y_ticks = _heights(list(series.values()))
    slot = PLOT_WIDTH / max(len(names), 1)
    width = min(0.72 * slot, 48.0)
    middle = LEFT + slot * (np.arange(len(names)) + 0.5)
    bar = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    body = [
        bar.format(style, x, y, width, FLOOR - y)
        for style, heights in series.items()
        for x, y in zip(middle - width / 2, _up(heights, 0.0, top), strict=True)
    ]
    every = math.ceil(max(map(len, names), default=1) * CHARACTER / slot)  # names must not touch
    x_ticks = list(zip(middle.tolist(), names, strict=True))[::every]
    return _svg(labels, x_ticks, [(float(_up(t, 0.0, top)), t) for t in y_ticks], body)


def line(x: FloatArray, y: FloatArray, labels: Labels, marks: Sequence[Mark] = ()) -> Markup:
    """A line through the finite points; few points, or a single one, get dots."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    low, high = (float(y.min()), float(y.max())) if len(y) else (0.0, 1.0)
    size = max(1.0, abs(low), abs(high))
    if high - low < SAME * size:
        low, high = low - 0.5 * size, high + 0.5 * size
    y_ticks = linear_ticks(low, high, 5, outward=True)
    bottom, top = y_ticks[0], y_ticks[-1]
    first, last = (float(x.min()), float(x.max())) if len(x) else (0.0, 1.0)
    axis = Bins(np.array([first, last] if first < last else [first - 0.5, last + 0.5]))
    across, up = axis.place(x), _up(y, bottom, top)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, up, strict=True))
    body = [_mark(float(axis.place(m.value)), m.text) for m in marks]
    body.append(Markup('<polyline class="line" points="{}"/>').format(points))
    if len(x) <= MAX_DOTS:
        dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3"/>')
        body += [dot.format(a, b) for a, b in zip(across, up, strict=True)]
    ticks = [t for t in linear_ticks(first, last) if t == round(t)] if first < last else [first]
    x_ticks = [(float(axis.place(tick)), tick_label(tick)) for tick in ticks]
    return _svg(labels, x_ticks, [(float(_up(t, bottom, top)), t) for t in y_ticks], body)


def linear_ticks(low: float, high: float, num: int = 6, outward: bool = False) -> list[float]:
    """About `num` round values inside [low, high]; `outward` adds one beyond each end if needed."""
    step = _round_step((high - low) / num)
    inner = 1e-9  # forgives the rounding of an end that is itself a tick
    if outward:
        first, last = math.floor(low / step + inner), math.ceil(high / step - inner)
    else:
        first, last = math.ceil(low / step - inner), math.floor(high / step + inner)
    return [round(k * step, 12) for k in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` values of the form 1, 2 or 5 times a power of ten inside [low, high]."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    inside = (low * (1 - 1e-9), high * (1 + 1e-9))
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**k for k in range(first, last + 1) for m in multiples]
        ticks = [tick for tick in ticks if inside[0] <= tick <= inside[1]]
        if len(ticks) <= most:
            return ticks if len(ticks) > 1 else linear_ticks(low, high, 4)
    return ticks[:: math.ceil(len(ticks) / most)]


def tick_label(value: float) -> str:
    """A round number as people write it: ``−0.5``, ``2,000``, ``3×10⁷``."""
    sign = "−" if value < 0 else ""
    size = abs(value)
    if size and not 1e-4 <= size < 1e6:
        digits, exponent = f"{size:.2e}".split("e")
        digits = digits.rstrip("0").rstrip(".")
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{sign}10{raised}" if digits == "1" else f"{sign}{digits}×10{raised}"
    text = f"{size:,.6f}".rstrip("0").rstrip(".")
    return f"{sign}{text}"


def _num_bins(num: int) -> int:
    return int(np.clip(2 * math.sqrt(num), MIN_BINS, MAX_BINS))


def _range(values: FloatArray) -> tuple[float, float]:
    """Lowest and highest value, without the few that would squeeze all others together."""
    first, third = np.quantile(values, [0.25, 0.75])
    reach = FENCE * (third - first) or math.inf  # over half of them equal: show everything
    near = values[(values >= first - reach) & (values <= third + reach)]
    return float(near.min()), float(near.max())


def _round_step(width: float, whole: bool = False) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is no less than `width`."""
    if whole:
        width = max(width, 1.0)
    power = 10.0 ** math.floor(math.log10(width)) if width > 0 else 1.0
    multiples = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    return next(m * power for m in multiples if m * power >= width * (1 - 1e-9))


def _heights(series: Sequence[npt.NDArray[np.integer] | FloatArray]) -> tuple[float, list[float]]:
    """Top of the vertical axis, a little above the highest bar, and its ticks."""
    highest = max((float(heights.max()) for heights in series if len(heights)), default=0.0)
    ticks = linear_ticks(0.0, highest or 1.0, 4, outward=True)
    if all(np.issubdtype(heights.dtype, np.integer) for heights in series):
        ticks = [tick for tick in ticks if tick == round(tick)]
    return ticks[-1], ticks


def _up(values: npt.ArrayLike, bottom: float, top: float) -> FloatArray:
    shares = (np.asarray(values, dtype=np.float64) - bottom) / (top - bottom)
    return FLOOR - (FLOOR - TOP) * shares


def _area(x: FloatArray, y: FloatArray, style: str) -> Markup:
    steps = " ".join(f"V{b:.1f} H{a:.1f}" for a, b in zip(x[1:], y, strict=True))
    path = f"M{x[0]:.1f} {FLOOR:.1f} {steps} V{FLOOR:.1f} Z"
    return Markup('<path class="{}" d="{}"/>').format(style, path)


def _mark(x: float, text: str) -> Markup:
    """The word stands right of the line, or left of it in the right third of the chart."""
    is_right = x > LEFT + 0.66 * PLOT_WIDTH
    dashes = Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
    word = Markup('<text class="note" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    place = (x - 5, "end") if is_right else (x + 5, "start")
    return dashes.format(x, TOP, FLOOR) + word.format(place[0], TOP + 9, place[1], text)


def _svg(
    labels: Labels,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, float]],
    body: Sequence[Markup],
) -> Markup:
    """The frame: grid and vertical labels behind, the body, then the horizontal axis."""
    grid = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    small = Markup('<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>')
    parts = [
        Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(
            WIDTH, HEIGHT, labels.title
        ),
        *(grid.format(LEFT, WIDTH - RIGHT, y, y) for y, _ in y_ticks),
        *(text.format(LEFT - 7, y + 4, "end", tick_label(value)) for y, value in y_ticks),
        *body,
        Markup('<line class="axis" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            LEFT, WIDTH - RIGHT, FLOOR, FLOOR
        ),
        *(small.format(x, FLOOR, FLOOR + 4) for x, _ in x_ticks),
        *(text.format(x, FLOOR + 18, "middle", name) for x, name in x_ticks),
        text.format(2, 14, "start", labels.y),
        text.format(LEFT + PLOT_WIDTH / 2, HEIGHT - 6, "middle", labels.x),
        Markup("</svg>"),
    ]
    return Markup("").join(parts)
