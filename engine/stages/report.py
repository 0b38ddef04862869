"""9 report: one page that says what the run found, to read and to show.

Reads the numbers of ``7-score``, the rows of ``8-select``, the losses of ``6-finetune``, the sizes
of ``3-cluster``, the records of all stages, and from ``1-pool`` the texts of the few rows shown.
Writes ``report.html``: self-contained, without script, every text from the pool escaped. Nothing
on it comes from a clock or this machine, so the same inputs give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import Markup

from engine import charts, rundir, schema
from engine.charts import Labels, Mark
from engine.config import Config
from engine.nodes import Nodes
from engine.parallel import peak_memory_bytes
from engine.progress import duration
from engine.rundir import Record, RunDir
from engine.step import (
    CENTROIDS_FILE,
    CLUSTER,
    FINETUNE,
    POOL,
    REPORT_FILE,
    SCORE,
    SELECT,
    SELECTED_PARQUET,
    STEPS_FILE,
    Outcome,
    Step,
)

NAME = "report"
VERSION = 1
TEMPLATE_FILE = "report.html.j2"


NUM_EXAMPLES = 10
MAX_CHARACTERS = 400
MAX_TURNS = 6
MAX_NAME = 80
"""Characters of a source's name."""
MAX_SOURCES = 30
MAX_BARS = 24
"""Clusters up to which each gets a bar of its own."""
MAX_POINTS = 200
MAX_FILES = 6

ROLE_NAMES = {
    schema.SYSTEM: "System",
    schema.USER: "Instruction",
    schema.INPUT: "Input",
    schema.ASSISTANT: "Response",
}
# Control characters are shown as their pictures; in HTML they would vanish or be errors.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}

FloatArray = npt.NDArray[np.float64]


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


class Findings(NamedTuple):
    """What the page is made from, besides the records and the texts of the rows shown."""

    table: pa.Table
    """Score columns of all rows, no text but `source`, `split` and `flag`."""
    is_ok: npt.NDArray[np.bool_]
    """bool[rows]: the row is scored."""
    selected: npt.NDArray[np.bool_]
    """bool[rows]"""
    hardest: list[dict[str, Any]]
    easiest: list[dict[str, Any]]
    cluster_sizes: npt.NDArray[np.int64]
    """int64[clusters]: embedded rows of each cluster, by its index."""
    losses: list[FloatArray]
    """float64[steps] for every epoch."""


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """None: the page depends on its inputs only."""
    return {}


def run(step: Step, nodes: Nodes) -> Outcome:
    """Write the page."""
    found = read_findings(step)
    page = render(step, found).encode()
    step.run.commit(f"{step.folder}/{REPORT_FILE}", page)
    num_rows = len(found.table)
    return Outcome(
        rows_in=num_rows,
        rows_out=num_rows,
        flags=_counts(found.table["flag"]),
        peak_memory_bytes=peak_memory_bytes(),
        details={"html_bytes": len(page)},
    )


def render(step: Step, found: Findings) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("engine", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(count=_count, number=_number, lp=_lp, part=_part, duration=_seconds)
    records = all_records(step)
    ok, taken = found.table.filter(pa.array(found.is_ok)), found.selected[found.is_ok]
    return environment.get_template(TEMPLATE_FILE).render(
        **_headline(step, found, ok, records),
        figures=_figures(found, ok, taken),
        fates=_fates(found.table),
        rejects=_rejects(records[POOL]),
        sources=_sources(found),
        examples=_examples(step, found),
        stages=list(records.items()),
        settings=_settings(records),
        versions=_versions(records),
    )


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def read_findings(step: Step) -> Findings:
    """The numbers of all rows, a shard at a time; ids only of the rows shown."""
    epochs = range(step.config.finetune.num_epochs + 1)
    columns = ["row", "source", "split", "cluster", "num_response_tokens", "truncated"]
    columns += [*(f"ppl_{i}" for i in epochs), "lp_app_1", "flag"]
    tables: list[pa.Table] = []
    ends: dict[str, list[dict[str, Any]]] = {"ascending": [], "descending": []}
    for shard in step.shards():
        table = step.read(step.proxy_input(SCORE), shard, ["id", *columns])
        ok = table.filter(pc.field("flag") == schema.OK)
        for order, rows in ends.items():
            ordered = ok.sort_by([(key, order) for key in ("lp_app_1", "id", "row")])
            rows += [{**r, "shard": shard} for r in ordered.slice(0, NUM_EXAMPLES).to_pylist()]
        tables.append(_encoded(table.select(columns)))
    table = rundir.concat(tables).unify_dictionaries()
    is_ok = _equal(table["flag"], schema.OK)
    num_ok = int(is_ok.sum())
    num_easy = min(NUM_EXAMPLES, num_ok // 2)  # no row is shown at both ends
    return Findings(
        table,
        is_ok,
        np.isin(np.asarray(table["row"]), _selected_rows(step)),
        _end(ends["ascending"])[: min(NUM_EXAMPLES, num_ok - num_easy)],
        _end(ends["descending"], reverse=True)[:num_easy],
        _values(step.read(CLUSTER, CENTROIDS_FILE, ["num_rows"]), "num_rows").astype(np.int64),
        [
            _values(step.read(step.proxy_input(FINETUNE, epoch), STEPS_FILE, ["loss"]), "loss")
            for epoch in epochs[1:]
        ],
    )


def _selected_rows(step: Step) -> npt.NDArray[np.int64]:
    """Rows of the selection; its file is made for other tools and carries no fingerprint."""
    file = step.run.path / step.proxy_input(SELECT) / SELECTED_PARQUET
    return np.asarray(pq.read_table(file, columns=["row"])["row"], dtype=np.int64)


def _encoded(table: pa.Table) -> pa.Table:
    """Text columns as codes: they have few values, and there may be millions of rows."""
    columns = {
        name: column.dictionary_encode() if pa.types.is_string(column.type) else column
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pa.table(columns)


def _equal(column: pa.ChunkedArray, value: str) -> npt.NDArray[np.bool_]:
    """bool[n]: where a column of codes has this value."""
    codes = column.combine_chunks()
    places = [i for i, name in enumerate(codes.dictionary.to_pylist()) if name == value]
    return np.isin(np.asarray(codes.indices), places)


def _end(rows: list[dict[str, Any]], reverse: bool = False) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda r: (r["lp_app_1"], r["id"], r["row"]), reverse=reverse)


def all_records(step: Step) -> dict[str, Record]:
    """Records of the inputs, of their inputs and so on, in the order in which the stages ran."""
    found: dict[str, Record] = {}
    waiting = list(step.inputs)
    while waiting:
        folder = waiting.pop()
        record = step.run.record(folder) if folder not in found else None
        if record is not None:
            found[folder] = record
            waiting += record.inputs
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def _order(folder: str) -> tuple[int, int, bool]:
    """Place of a folder in the way through: 5 and 6 take turns, epoch by epoch."""
    stage, _, epoch = folder.removeprefix("proxies/").partition("/epoch-")
    number = int(stage.rpartition("/")[2].partition("-")[0])
    return (5 if number == 6 else number, int(epoch or 0), number != 6)


def _texts(step: Step, examples: list[dict[str, Any]]) -> dict[int, list[dict[str, str]]]:
    """Turns of some rows; opens the shards they are in and no other."""
    wanted = [example["row"] for example in examples]
    texts: dict[int, list[dict[str, str]]] = {}
    for shard in sorted({example["shard"] for example in examples}):
        table = step.read(POOL, shard, ["row", "turns"])
        for row in table.filter(pc.field("row").isin(wanted)).to_pylist():
            texts[row["row"]] = row["turns"]
    return texts


# ── words and tables ─────────────────────────────────────────────────────────────────────────────


def _headline(
    step: Step, found: Findings, ok: pa.Table, records: Mapping[str, Record]
) -> dict[str, Any]:
    """What the top of the page and its running text need."""
    select = records[step.proxy_input(SELECT)]
    lp = _values(ok, "lp_app_1")
    splits = _counts(ok["split"])
    return {
        "pool_name": _pool_name(records[POOL]),
        "proxy_name": step.config.proxy_name,
        "finished": f"{select.finished[:16].replace('T', ' ')} UTC",
        "num_lines": records[POOL].rows_in,
        "num_rejected": records[POOL].rejected,
        "num_rows": len(found.table),
        "num_ok": len(ok),
        "num_selected": int(found.selected.sum()),
        "num_clusters": len(found.cluster_sizes),
        "num_candidates": splits.get(schema.TRAIN, 0),
        "num_held_out": splits.get(schema.HOLDOUT, 0),
        "num_truncated": int(np.sum(np.asarray(ok["truncated"]))),
        "num_harder": int(np.sum(lp < 0)),
        "median_lp": _median(lp),
        "medians": [_median(_values(ok, name)) for name in _ppl_names(ok)],
        "rule": _rule(select.settings),
    }


def _pool_name(pool: Record) -> str:
    files = sorted(pool.settings.get("files", {}))
    return files[0] if len(files) == 1 else _count(len(files), "file")


def _rule(settings: Mapping[str, Any]) -> str:
    """The selection in words: ``the lowest 10% by lp_app_1``."""
    end = {"low": "lowest", "mid": "middle", "high": "highest"}[settings["order"]]
    if settings["tokens"] is not None:
        size = f"{settings['tokens']:,} tokens’ worth"
    elif settings["rows"] is not None:
        size = f"{settings['rows']:,} rows"
    else:
        size = f"{settings['percent']}%"
    rounding = ", rounded up as the reference code does," if settings["rule"] == "reference" else ""
    return f"the {end} {size} by {settings['metric']}{rounding}"


def _fates(table: pa.Table) -> list[tuple[str, int, float, str]]:
    """Flag, number of rows, share of all rows, meaning; in the order of `schema.FLAGS`."""
    counts = _counts(table["flag"])
    order = {flag: place for place, flag in enumerate(schema.FLAGS)}
    flags = sorted(counts, key=lambda flag: (order.get(flag, len(order)), flag))
    return [
        (flag, counts[flag], counts[flag] / max(len(table), 1), schema.FLAGS.get(flag, ""))
        for flag in flags
    ]


def _rejects(pool: Record) -> list[tuple[str, int, str]]:
    """Reason, number of lines, meaning; the most frequent first."""
    reasons: dict[str, int] = pool.details.get("rejected", {})
    return [
        (reason, reasons[reason], schema.REJECT_REASONS.get(reason, ""))
        for reason in sorted(reasons, key=lambda reason: (-reasons[reason], reason))
    ]


def _sources(found: Findings) -> dict[str, Any]:
    """Rows, scored and selected rows and median LP of every source, the largest first."""
    column = found.table["source"].combine_chunks()
    names = column.dictionary.to_pylist()
    code = np.asarray(column.indices, dtype=np.int64)
    lp = _values(found.table, "lp_app_1")
    num_rows, num_ok, num_selected = (
        np.bincount(codes, minlength=len(names))
        for codes in (code, code[found.is_ok], code[found.selected])
    )
    order = sorted(range(len(names)), key=lambda i: (-num_rows[i], names[i]))
    return {
        "rows": [
            (
                _cut(names[i], MAX_NAME),
                *(int(num[i]) for num in (num_rows, num_ok, num_selected)),
                _median(lp[code == i]),  # null where a row is not scored
            )
            for i in order[:MAX_SOURCES]
        ],
        "num_more": max(len(names) - MAX_SOURCES, 0),
    }


def _examples(step: Step, found: Findings) -> list[dict[str, Any]]:
    """The rows at both ends, with their texts."""
    texts = _texts(step, [*found.hardest, *found.easiest])
    selected = np.asarray(found.table["row"])[found.selected]
    chosen = set(selected[np.isin(selected, list(texts))].tolist())
    groups = (("hardest", found.hardest), ("easiest", found.easiest))
    return [
        {
            "name": name,
            "rows": [
                {
                    **row,
                    "ppl": [value for name, value in row.items() if name.startswith("ppl_")],
                    "source": _cut(row["source"], MAX_NAME),
                    "selected": row["row"] in chosen,
                    "turns": [
                        (ROLE_NAMES.get(turn["role"], turn["role"]), _cut(turn["content"]))
                        for turn in texts[row["row"]][:MAX_TURNS]
                    ],
                    "num_more_turns": max(len(texts[row["row"]]) - MAX_TURNS, 0),
                }
                for row in rows
            ],
        }
        for name, rows in groups
    ]


def _settings(records: Mapping[str, Record]) -> list[tuple[str, str, str]]:
    """Stage, setting, value; a stage that runs once per epoch is listed once."""
    seen: dict[tuple[str, str], str] = {}
    for record in records.values():
        for key, value in _leaves(record.settings):
            if key != "epoch":
                seen.setdefault((record.stage, key), value)
    return [(stage, key, value) for (stage, key), value in seen.items()]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if key == "files" and isinstance(value, Mapping):
            yield f"{prefix}{key}", _digests(value)
        elif isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{key}", "not set" if value is None else str(value)


def _digests(files: Mapping[str, str]) -> str:
    """Names of files with the beginning of their SHA-256."""
    shown = [f"{name} {files[name][:12]}" for name in sorted(files)[:MAX_FILES]]
    more = len(files) - len(shown)
    return ", ".join(shown) + (f" and {_count(more)} more" if more else "")


def _versions(records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Name and version of every package; several where the stages ran with different ones."""
    found: dict[str, dict[str, None]] = {}
    for record in records.values():
        for name, version in {**record.versions, "commit": record.commit or "unknown"}.items():
            found.setdefault(name, {})[version] = None
    return [(name, ", ".join(versions)) for name, versions in found.items()]


# ── figures ──────────────────────────────────────────────────────────────────────────────────────


def _figures(found: Findings, ok: pa.Table, taken: npt.NDArray[np.bool_]) -> list[Figure]:
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
    series = [_values(ok, name) for name in _ppl_names(ok)]
    if len(series) > 3:  # more than three areas over one another are not readable
        series = [series[0], series[1], series[-1]]
    last = len(_ppl_names(ok)) - 1
    bins = charts.log_bins(np.concatenate(series))
    title = f"Median perplexity {_change(_median(series[0]), _median(series[1]))}"
    names = ["before training", "after one epoch", f"after {last} epochs"]
    styles = dict(zip("abc", series, strict=False))
    return Figure(
        title,
        charts.histogram(
            bins,
            {style: charts.bin_counts(values, bins) for style, values in styles.items()},
            Labels(title, "perplexity of the response (log scale)", "rows"),
        ),
        f"Each of {len(ok):,} scored rows is counted once per measurement."
        + _outside_note(sum(charts.num_outside(values, bins) for values in series)),
        tuple(zip(styles, names, strict=False)),
    )


def _learning_figure(ok: pa.Table, taken: npt.NDArray[np.bool_]) -> Figure:
    lp = _values(ok, "lp_app_1")
    bins = charts.linear_bins(lp)
    median = _median(lp)
    verb = "lost" if median >= 0 else "gained"
    title = f"The median row {verb} {_part(abs(median))} of its first perplexity"
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
        "left of 0 the row got harder." + _outside_note(charts.num_outside(lp, bins)),
        (("a", "scored"), ("part", "of these selected")),
    )


def _length_figure(ok: pa.Table, taken: npt.NDArray[np.bool_]) -> Figure:
    length = _values(ok, "num_response_tokens")
    bins = charts.linear_bins(length, whole=True)
    pool, chosen = _median(length), _median(length[taken])
    word = "shorter" if chosen < pool else "longer"
    title = (
        f"Selected responses are {word}: {_number(chosen)} tokens in the median, "
        f"{_number(pool)} in the pool"
        if chosen != pool
        else f"Selected responses are as long as the pool’s: {_number(pool)} tokens in the median"
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
        "100%." + _outside_note(charts.num_outside(length, bins)),
        (("a", "scored pool"), ("b", "selected")),
    )


def _cluster_title(sizes: npt.NDArray[np.int64]) -> str:
    middle = _number(_median(sizes.astype(np.float64)))
    return (
        f"{len(sizes):,} clusters hold {sizes.min():,} to {sizes.max():,} rows, {middle} in the "
        "median"
    )


def _cluster_histogram(sizes: npt.NDArray[np.int64]) -> Figure:
    title, values = _cluster_title(sizes), sizes.astype(np.float64)
    bins = charts.linear_bins(values, whole=True)
    heights = {"a": charts.bin_counts(values, bins)}
    return Figure(
        title,
        charts.histogram(bins, heights, Labels(title, "rows in the cluster", "clusters")),
        f"n = {len(sizes):,} clusters of {sizes.sum():,} embedded rows."
        + _outside_note(charts.num_outside(values, bins)),
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
    title = f"Training loss {_change(finite[0], finite[-1])} nats per token"
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


# ── small things ─────────────────────────────────────────────────────────────────────────────────


def _values(table: pa.Table, column: str) -> FloatArray:
    return np.asarray(table[column], dtype=np.float64)


def _ppl_names(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name.startswith("ppl_")]


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}


def _median(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan


def _change(before: float, after: float) -> str:
    """``fell from 166 to 112``, or ``stayed at 166`` where it looks the same."""
    if _number(before) == _number(after):
        return f"stayed at {_number(after)}"
    verb = "fell" if after < before else "rose"
    return f"{verb} from {_number(before)} to {_number(after)}"


def _outside_note(num: int) -> str:
    return f" Counted in the end bars, but beyond the axis: {num:,}." if num else ""


def _cut(text: str, most: int = MAX_CHARACTERS) -> str:
    text = text.replace("\r\n", "\n")
    short = text if len(text) <= most else text[:most].rstrip() + "…"
    return short.translate(_PICTURES)


def _count(value: int, noun: str = "") -> str:
    """``1,234``, or with a noun ``1 row`` and ``2 rows``."""
    return f"{value:,} {noun}{'' if value == 1 else 's'}" if noun else f"{value:,}"


def _number(value: float) -> str:
    """Three or four digits, as many as mean something: ``1.23``, ``45.6``, ``1,234``, ``3×10⁷``."""
    if not math.isfinite(value):
        return "–"
    if abs(value) >= 1e6:
        return charts.tick_label(value)
    digits = 0 if abs(value) >= 100 or value == round(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}".replace("-", "−")


def _lp(value: float) -> str:
    if not math.isfinite(value) or abs(value) >= 1000:
        return _number(value)
    return f"{value:.3f}".replace("-", "−")


def _part(share: float) -> str:
    """A share in percent; no rounding to 0% or 100% of what is not."""
    if not math.isfinite(share):
        return "–"
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    digits = 0 if share in (0.0, 1.0) or 0.2 <= share < 0.995 else 1
    return f"{100 * share:,.{digits}f}%"


def _seconds(seconds: float) -> str:
    if seconds < 0.1:
        return "<0.1 s"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
