"""9 report: one page that says what the run found, to read and to show.

Reads the numbers of ``7-score``, the rows of ``8-select``, the losses of ``6-finetune``, the sizes
of ``3-cluster``, the records of all stages, and from ``1-pool`` the texts of the few rows shown.
Writes ``report.html``: self-contained, without script, every text from the pool escaped. Nothing
on it comes from a clock or this machine, so the same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa

from engine import sanity, schema
from engine.config import Config
from engine.nodes import Nodes
from engine.parallel import peak_memory_bytes
from engine.record import Record
from engine.report import words
from engine.report.figures import all_figures
from engine.report.findings import (
    Findings,
    all_records,
    counts,
    median,
    ppl_names,
    read_findings,
    read_texts,
    values,
)
from engine.rundir import RunDir
from engine.step import (
    POOL,
    REPORT_FILE,
    SELECT,
    Outcome,
    Step,
)

NAME = "report"
VERSION = 2
TEMPLATE_FILE = "report.html.j2"


MAX_TURNS = 6
MAX_WARNING = 2000
MAX_NAME = 80
"""Characters of a source's name."""
MAX_SOURCES = 30
MAX_FILES = 6

ROLE_NAMES = {
    schema.SYSTEM: "System",
    schema.USER: "Instruction",
    schema.INPUT: "Input",
    schema.ASSISTANT: "Response",
}


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
        flags=counts(found.table["flag"]),
        peak_memory_bytes=peak_memory_bytes(),
        details={"html_bytes": len(page)},
    )


def render(step: Step, found: Findings) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("engine", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        count=words.count, number=words.number, lp=words.lp, part=words.part, duration=words.seconds
    )
    records = all_records(step)
    ok, taken = found.table.filter(pa.array(found.is_ok)), found.selected[found.is_ok]
    return environment.get_template(TEMPLATE_FILE).render(
        **_headline(step, found, ok, records),
        figures=all_figures(found, ok, taken),
        fates=_fates(found.table),
        rejects=_rejects(records[POOL]),
        **_unused_keys(records[POOL]),
        sources=_sources(found),
        examples=_examples(step, found),
        warnings=_warnings(records),
        cautions=[words.cut(text, MAX_WARNING) for text in sanity.cautions(records.values())],
        stages=list(records.items()),
        settings=_settings(records),
        versions=_versions(records),
    )


def _harmless(value: Any) -> Any:
    """Whatever the page shows; file names and settings may hold control characters as rows may."""
    return words.shown(value) if type(value) is str else value


# ── words and tables ─────────────────────────────────────────────────────────────────────────────


def _headline(
    step: Step, found: Findings, ok: pa.Table, records: Mapping[str, Record]
) -> dict[str, Any]:
    """What the top of the page and its running text need."""
    select = records[step.proxy_input(SELECT)]
    lp = values(ok, "lp_app_1")
    splits = counts(ok["split"])
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
        "median_lp": median(lp),
        "medians": [median(values(ok, name)) for name in ppl_names(ok)],
        "rule": _rule(select.settings),
    }


def _warnings(records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Stage (and epoch) and text of every stage's warnings."""
    return [
        (folder.rpartition("proxies/")[2], words.cut(text, MAX_WARNING))
        for folder, record in records.items()
        for text in record.warnings
    ]


def _pool_name(pool: Record) -> str:
    files = sorted(pool.settings.get("files", {}))
    return files[0] if len(files) == 1 else words.count(len(files), "file")


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
    nums = counts(table["flag"])
    order = {flag: place for place, flag in enumerate(schema.FLAGS)}
    flags = sorted(nums, key=lambda flag: (order.get(flag, len(order)), flag))
    return [
        (flag, nums[flag], nums[flag] / max(len(table), 1), schema.FLAGS.get(flag, ""))
        for flag in flags
    ]


def _rejects(pool: Record) -> list[tuple[str, int, str]]:
    """Reason, number of lines, meaning; the most frequent first."""
    reasons: dict[str, int] = pool.details.get("rejected", {})
    return [
        (reason, reasons[reason], schema.REJECT_REASONS.get(reason, ""))
        for reason in sorted(reasons, key=lambda reason: (-reasons[reason], reason))
    ]


def _unused_keys(pool: Record) -> dict[str, Any]:
    """Keys of the pool that play no part with their rows, the most frequent first; how many times
    others come that are not named, and how many rows lack the configured source.
    """
    names: dict[str, int] = pool.details.get("unused_keys", {})
    order = sorted(names, key=lambda name: (-names[name], name))
    return {
        "unused_keys": [(words.cut(name, MAX_NAME), names[name]) for name in order],
        "num_unlisted_keys": pool.details.get("unused_keys_unlisted", 0),
        "num_without_source": pool.details.get("rows_without_source", 0),
    }


def _sources(found: Findings) -> dict[str, Any]:
    """Rows, scored and selected rows and median LP of every source, the largest first."""
    column = found.table["source"].combine_chunks()
    names = column.dictionary.to_pylist()
    code = np.asarray(column.indices, dtype=np.int64)
    lp = values(found.table, "lp_app_1")
    num_rows, num_ok, num_selected = (
        np.bincount(codes, minlength=len(names))
        for codes in (code, code[found.is_ok], code[found.selected])
    )
    order = sorted(range(len(names)), key=lambda i: (-num_rows[i], names[i]))
    return {
        "rows": [
            (
                words.cut(names[i], MAX_NAME),
                *(int(num[i]) for num in (num_rows, num_ok, num_selected)),
                median(lp[code == i]),  # null where a row is not scored
            )
            for i in order[:MAX_SOURCES]
        ],
        "num_more": max(len(names) - MAX_SOURCES, 0),
    }


def _examples(step: Step, found: Findings) -> list[dict[str, Any]]:
    """The rows at both ends, with their texts."""
    texts = read_texts(step, [*found.hardest, *found.easiest])
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
                    "source": words.cut(row["source"], MAX_NAME),
                    "selected": row["row"] in chosen,
                    "turns": [
                        (ROLE_NAMES.get(turn["role"], turn["role"]), words.cut(turn["content"]))
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
        for key, value in _leaves(_with_chosen(record)):
            if key != "epoch":
                seen.setdefault((record.stage, key), value)
    return [(stage, key, value) for (stage, key), value in seen.items()]


def _with_chosen(record: Record) -> dict[str, Any]:
    """A record's settings; a batch size that was left open is the one that was chosen."""
    if record.settings.get("batch_size", 0) is None and "batch_size" in record.details:
        return {**record.settings, "batch_size": f"{record.details['batch_size']} (chosen)"}
    return record.settings


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
    return ", ".join(shown) + (f" and {words.count(more)} more" if more else "")


def _versions(records: Mapping[str, Record]) -> list[tuple[str, str]]:
    """Name and version of every package; several where the stages ran with different ones."""
    found: dict[str, dict[str, None]] = {}
    for record in records.values():
        for name, version in {**record.versions, "commit": record.commit or "unknown"}.items():
            found.setdefault(name, {})[version] = None
    return [(name, ", ".join(versions)) for name, versions in found.items()]
