"""Charts: bars that hold every value, axes that cover the data, markup that is well formed."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import charts
from engine.charts import (
    Bins,
    Labels,
    Mark,
    bin_counts,
    linear_bins,
    linear_ticks,
    log_bins,
    log_ticks,
    num_outside,
    tick_label,
)

WORDS = Labels("a title", "across", "up")
numbers = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60)
positive = st.lists(st.floats(min_value=1e-30, max_value=1e300), max_size=60)
counts = st.lists(st.integers(min_value=0, max_value=10**7), max_size=60)


def array(values: list[float] | list[int]) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(svg).iter("text")]


def drawn_x(svg: str, style: str) -> list[float]:
    """Left ends of the bars of one style."""
    return [
        float(node.attrib["x"])
        for node in ET.fromstring(svg).iter("rect")
        if node.attrib["class"] == style
    ]


# ── bins ─────────────────────────────────────────────────────────────────────────────────────────


def test_bins_by_hand() -> None:
    bins = linear_bins(array([0.0, 0.1, 0.1, 0.35, 0.8]))
    assert bins.edges.tolist() == pytest.approx([0.1 * k for k in range(9)])
    assert bin_counts(array([0.0, 0.05, 0.15, 0.8]), bins).tolist() == [2, 1, 0, 0, 0, 0, 0, 1]


def test_zero_is_an_edge_so_that_rows_that_got_harder_have_bars_of_their_own() -> None:
    values = np.random.default_rng(0).normal(0.2, 0.3, 500)
    bins = linear_bins(values)
    assert 0.0 in bins.edges
    left = bin_counts(values, bins)[bins.edges[:-1] < 0]
    assert left.sum() == (values < 0).sum()


@given(numbers)
def test_every_finite_value_is_in_one_linear_bar(values: list[float]) -> None:
    bins = linear_bins(array(values))
    assert (np.diff(bins.edges) > 0).all()
    assert bin_counts(array(values), bins).sum() == np.isfinite(array(values)).sum()


@given(positive)
def test_every_positive_value_is_in_one_logarithmic_bar(values: list[float]) -> None:
    bins = log_bins(array(values))
    assert (np.diff(bins.edges) > 0).all()
    assert bin_counts(array(values), bins).sum() == len(values)


@given(counts)
def test_a_bar_of_whole_numbers_holds_as_many_as_every_other(values: list[int]) -> None:
    bins = linear_bins(array(values), whole=True)
    assert bin_counts(array(values), bins).sum() == len(values)
    assert len(set(np.diff(bins.edges))) == 1
    assert set(bins.edges % 1) == {0.5}


@pytest.mark.parametrize("is_log", [False, True])
def test_the_axis_covers_the_data(is_log: bool) -> None:
    values = np.random.default_rng(1).uniform(1, 1000, 300)
    bins = log_bins(values) if is_log else linear_bins(values)
    assert num_outside(values, bins) == 0
    places = bins.place(values)
    assert places.min() >= charts.LEFT - 1e-6
    assert places.max() <= charts.WIDTH - charts.RIGHT + 1e-6


def test_far_outliers_are_counted_in_the_end_bars_and_named() -> None:
    values = np.concatenate([np.linspace(0, 1, 100), [-1e9, -4e4, 1e300]])
    bins = linear_bins(values)
    assert bins.edges[0] >= -0.1
    assert bins.edges[-1] <= 1.1
    heights = bin_counts(values, bins)
    assert heights.sum() == 103
    assert num_outside(values, bins) == 3
    inside = bin_counts(values[:100], bins)
    assert (heights[0] - inside[0], heights[-1] - inside[-1]) == (2, 1)


def test_equal_values_share_one_bar_inside_the_axis() -> None:
    for bins in (linear_bins(np.full(50, 0.25)), log_bins(np.full(50, 7.0))):
        heights = bin_counts(np.full(50, 0.25 if not bins.is_log else 7.0), bins)
        assert sorted(set(heights)) == [0, 50]
        assert 0 < int(heights.argmax()) < len(heights) - 1


def test_values_that_are_not_finite_are_left_out() -> None:
    values = array([np.nan, np.inf, -np.inf, 1.0, 2.0])
    assert bin_counts(values, linear_bins(values)).sum() == 2
    assert bin_counts(values, log_bins(values)).sum() == 2
    assert num_outside(values, linear_bins(values)) == 0


# ── ticks ────────────────────────────────────────────────────────────────────────────────────────


def test_linear_ticks() -> None:
    assert linear_ticks(0.0, 1.0, 4) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert linear_ticks(-0.43, 0.95) == [-0.25, 0.0, 0.25, 0.5, 0.75]
    assert linear_ticks(3.72, 5.04, 5, outward=True) == [3.5, 4.0, 4.5, 5.0, 5.5]


def test_log_ticks() -> None:
    assert log_ticks(8, 60) == [10, 20, 50]
    assert log_ticks(19, 4000) == [30, 100, 300, 1000, 3000]
    assert log_ticks(1, 1e5) == [1, 10, 100, 1e3, 1e4, 1e5]
    assert log_ticks(1, 1e12) == [1, 1e3, 1e6, 1e9, 1e12]
    assert log_ticks(31, 39) == [32, 34, 36, 38]  # too narrow for two of them


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.25, "−0.25"),
        (30000.0, "30,000"),
        (1e6, "10⁶"),
        (-2.5e8, "−2.5×10⁸"),
        (3e-7, "3×10⁻⁷"),
    ],
)
def test_tick_label(value: float, text: str) -> None:
    assert tick_label(value) == text


# ── drawings ─────────────────────────────────────────────────────────────────────────────────────


def test_histogram_draws_each_bar_at_its_height() -> None:
    bins = Bins(array([0, 1, 2]))
    svg = charts.histogram(bins, {"a": np.array([4, 2])}, WORDS)
    assert "M52.0 186.0 V30.0 H225.0 V108.0 H398.0 V186.0 Z" in svg  # 2 is half as high as 4
    assert texts(svg) == ["0", "1", "2", "3", "4", "0", "0.5", "1", "1.5", "2", "up", "across"]


def test_a_mark_outside_the_axis_is_left_out() -> None:
    bins = Bins(array([0, 1, 2]))
    heights = {"a": np.array([1, 1])}
    assert "here" in charts.histogram(bins, heights, WORDS, [Mark(1.5, "here")])
    assert "here" not in charts.histogram(bins, heights, WORDS, [Mark(2.5, "here")])


def test_counts_get_whole_ticks() -> None:
    svg = charts.histogram(Bins(array([0, 1, 2])), {"a": np.array([0, 1])}, WORDS)
    assert texts(svg)[:2] == ["0", "1"]


def test_bars_stand_over_their_names() -> None:
    svg = charts.bars(["x", "y"], {"a": np.array([2, 1]), "part": np.array([1, 0])}, WORDS)
    assert drawn_x(svg, "a") == drawn_x(svg, "part") == pytest.approx([114.5, 287.5])
    assert texts(svg)[3:5] == ["x", "y"]


def test_line_leaves_out_what_is_not_finite() -> None:
    svg = charts.line(array([1, 2, 3]), array([2.0, np.nan, 1.0]), WORDS)
    assert 'points="52.0,30.0 398.0,186.0"' in svg
    assert svg.count("<circle") == 2


@pytest.mark.parametrize("values", [[], [1.5], [1.5, 1.5], [np.nan]])
def test_line_of_hardly_anything(values: list[float]) -> None:
    svg = charts.line(np.arange(len(values)) + 1.0, array(values), WORDS)
    ET.fromstring(svg)
    assert "nan" not in svg


def test_a_long_line_has_no_dots() -> None:
    x = np.arange(1.0, 101.0)
    assert "<circle" not in charts.line(x, np.sqrt(x), WORDS)


def test_words_are_escaped() -> None:
    nasty = '<b>"&'
    words = Labels(nasty, nasty, nasty)
    drawings = [
        charts.histogram(Bins(array([0, 1])), {"a": np.array([1])}, words, [Mark(0.5, nasty)]),
        charts.bars([nasty], {"a": np.array([1])}, words),
        charts.line(array([1, 2]), array([1, 2]), words, [Mark(1.5, nasty)]),
    ]
    for svg in drawings:
        assert "<b>" not in svg
        assert ET.fromstring(svg).attrib["aria-label"] == nasty
        assert nasty in texts(svg)
