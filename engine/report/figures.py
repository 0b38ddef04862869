"""The charts of the report, each with the words around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from markupsafe import Markup

from engine import charts
from engine.charts import Labels, Mark
from engine.report import words
from engine.report.findings import Findings, FloatArray, median, ppl_names, values

MAX_BARS = 24
"""Clusters up to which each gets a bar of its own."""
MAX_POINTS = 200


@dataclass(frozen=True)
class Figure:
    """A chart with the words around it."""

    title: str
    """What there is to see, as a sentence."""
    svg: Markup
    note: str
    """What one bar or point is, and how many there are."""
    legend: tuple[tuple[str, str], ...] = ()
    """Style class and meaning of each series."""


def all_figures(found: Findings, ok: pa.Table, taken: npt.NDArray[np.bool_]) -> list[Figure]:
    """Every chart that has something to show."""
    figures: list[Figure] = []
    if len(ok):
        figures += [_perplexity_figure(ok), _learning_figure(ok, taken)]
    if taken.any():
        figures.append(_length_figure(ok, taken))
    if len(found.cluster_sizes) > MAX_BARS:
        figures.append(_cluster_histogram(found.cluster_sizes))
    elif len(found.cluster_sizes) > 1:
        chosen = np.asarray(ok["cluster"], dtype=np.int64)[taken]
        figures.append(_cluster_bars(found.cluster_sizes, chosen))
    if any(np.isfinite(loss).any() for loss in found.losses):
        figures.append(_training_figure(found.losses))
    return figures


def _perplexity_figure(ok: pa.Table) -> Figure:
    series = [values(ok, name) for name in ppl_names(ok)]
    if len(series) > 3:  # more than three areas over one another are not readable
        series = [series[0], series[1], series[-1]]
    last = len(ppl_names(ok)) - 1
    bins = charts.log_bins(np.concatenate(series))
    title = f"Median perplexity {words.change(median(series[0]), median(series[1]))}"
    names = ["before training", "after one epoch", f"after {last} epochs"]
    styles = dict(zip("abc", series, strict=False))
    return Figure(
        title,
        charts.histogram(
            bins,
            {style: charts.bin_counts(each, bins) for style, each in styles.items()},
            Labels(title, "perplexity of the response (log scale)", "rows"),
        ),
        f"Each of {len(ok):,} scored rows is counted once per measurement."
        + words.outside_note(sum(charts.num_outside(each, bins) for each in series)),
        tuple(zip(styles, names, strict=False)),
    )


def _learning_figure(ok: pa.Table, taken: npt.NDArray[np.bool_]) -> Figure:
    lp = values(ok, "lp_app_1")
    bins = charts.linear_bins(lp)
    middle = median(lp)
    verb = "lost" if middle >= 0 else "gained"
    title = f"The median row {verb} {words.part(abs(middle))} of its first perplexity"
    heights = {"a": charts.bin_counts(lp, bins), "part": charts.bin_counts(lp[taken], bins)}
    return Figure(
        title,
        charts.histogram(
            bins,
            heights,
            Labels(title, "LP_app(1), share of the first perplexity lost", "rows"),
            [Mark(0.0, "no change")],
        ),
        f"n = {len(lp):,} scored rows, {int(taken.sum()):,} of them selected. Left is hard; "
        "left of 0 the row got harder." + words.outside_note(charts.num_outside(lp, bins)),
        (("a", "scored"), ("part", "of these selected")),
    )


def _length_figure(ok: pa.Table, taken: npt.NDArray[np.bool_]) -> Figure:
    length = values(ok, "num_response_tokens")
    bins = charts.linear_bins(length, whole=True)
    pool, chosen = median(length), median(length[taken])
    word = "shorter" if chosen < pool else "longer"
    title = (
        f"Selected responses are {word}: {words.number(chosen)} tokens in the median, "
        f"{words.number(pool)} in the pool"
        if chosen != pool
        else f"Selected responses are as long as the pool’s: {words.number(pool)} tokens in the "
        "median"
    )
    return Figure(
        title,
        charts.histogram(
            bins,
            {
                "a": 100 * charts.bin_counts(length, bins) / len(length),
                "b": 100 * charts.bin_counts(length[taken], bins) / int(taken.sum()),
            },
            Labels(title, "scored tokens of the response", "% of the group’s rows"),
        ),
        f"n = {len(length):,} scored and {int(taken.sum()):,} selected rows; each group adds up to "
        "100%." + words.outside_note(charts.num_outside(length, bins)),
        (("a", "scored pool"), ("b", "selected")),
    )


def _cluster_title(sizes: npt.NDArray[np.int64]) -> str:
    middle = words.number(median(sizes.astype(np.float64)))
    return (
        f"{len(sizes):,} clusters hold {sizes.min():,} to {sizes.max():,} rows, {middle} in the "
        "median"
    )


def _cluster_histogram(sizes: npt.NDArray[np.int64]) -> Figure:
    title, rows = _cluster_title(sizes), sizes.astype(np.float64)
    bins = charts.linear_bins(rows, whole=True)
    heights = {"a": charts.bin_counts(rows, bins)}
    return Figure(
        title,
        charts.histogram(bins, heights, Labels(title, "rows in the cluster", "clusters")),
        f"n = {len(sizes):,} clusters of {sizes.sum():,} embedded rows."
        + words.outside_note(charts.num_outside(rows, bins)),
    )


def _cluster_bars(sizes: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> Figure:
    """A bar per cluster; `chosen` is the cluster of every selected row."""
    title = _cluster_title(sizes)
    order = np.argsort(-sizes, kind="stable")
    num_chosen = np.bincount(chosen, minlength=len(sizes))
    return Figure(
        title,
        charts.bars(
            [str(index) for index in order],
            {"a": sizes[order], "part": num_chosen[order]},
            Labels(title, "cluster, the largest first", "rows"),
        ),
        f"n = {sizes.sum():,} embedded rows in {len(sizes):,} clusters.",
        (("a", "in the cluster"), ("part", "of these selected")),
    )


def _training_figure(losses: list[FloatArray]) -> Figure:
    """All epochs in one line, in groups of steps where there are very many."""
    loss = np.concatenate(losses)
    finite = loss[np.isfinite(loss)]
    title = f"Training loss {words.change(finite[0], finite[-1])} nats per token"
    group = math.ceil(len(loss) / MAX_POINTS)
    edges = np.array([*range(0, len(loss), group), len(loss)])
    means = np.add.reduceat(loss, edges[:-1]) / np.diff(edges)
    middle = (edges[:-1] + 1 + edges[1:]) / 2  # steps are counted from 1
    ends = np.cumsum([len(epoch) for epoch in losses])[:-1]
    marks = [Mark(float(end) + 0.5, f"epoch {epoch}") for epoch, end in enumerate(ends, start=2)]
    note = f"n = {len(loss):,}; one point per "
    note += f"{group} optimizer steps, their mean." if group > 1 else "optimizer step."
    if len(finite) < len(loss):
        note += f" Left out, because their loss is not finite: {len(loss) - len(finite):,}."
    labels = Labels(title, "optimizer step", "mean NLL per scored token, nats")
    return Figure(title, charts.line(middle, means, labels, marks), note)
