"""What a run prints when it is done, and ``poolscore status``: plain text for people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine import sanity, schema, terminal
from engine.progress import duration
from engine.results import Run, Status
from engine.step import SELECTED_JSONL, SELECTED_PARQUET

NUM_HARDEST = 10
MARGIN = 14
"""Characters before what is said of a thing."""
TEXT_FROM, MIN_TEXT = 43, 30
"""Where a row's texts begin on its line, and the least room they get."""
MAX_FAULTS = 10
"""Of one stage."""


def summary(run: Run, show_texts: bool = True) -> str:
    """The numbers a person wants to see, the hardest rows, and where everything lies.

    Args:
        run: scored, or on its way.
        show_texts: show the rows' texts; no log should hold them.
    """
    done = {record.stage for record in run.records().values()}
    if "score" not in done:
        return f"\nDone so far: {', '.join(sorted(done))}. Run directory: {_shown(run.dir.path)}"
    scores = run.scores()
    ok = scores.filter(pc.field("flag") == schema.OK)
    parts = [_numbers(run, scores, ok), _hardest(run, ok, show_texts)]
    if "select" in done:
        parts.append(_selected(run, ok))
    parts.append(_places(run, done))
    return "\n" + terminal.lines("\n\n".join(parts))


def _trained(run: Run) -> list[str]:
    """How long an epoch was; nothing where its folder is gone."""
    record = run.dir.record(run.step("finetune", 1).folder)
    if record is None:
        return []
    steps, batch_size = record.details["steps"], record.details["batch_size"]
    return [
        f"{'training':<{MARGIN}}{steps:,} optimizer steps of up to {batch_size:,} rows in an epoch"
    ]


def _numbers(run: Run, scores: pa.Table, ok: pa.Table) -> str:
    def middle(column: str) -> float:
        return float(np.median(np.asarray(ok[column]))) if len(ok) else float("nan")

    flags = Counter(scores["flag"].to_pylist())
    flagged = ", ".join(f"{n:,} {flag}" for flag, n in flags.most_common() if flag != schema.OK)
    unlearnt = int((np.asarray(ok["lp_app_1"]) < 0).sum())
    return "\n".join(
        [
            terminal.filled(
                f"{'rows':<{MARGIN}}",
                f"{len(scores):,}, of them {len(ok):,} scored"
                + (f"; not scored: {flagged}" if flagged else ""),
            ),
            f"{'perplexity':<{MARGIN}}median {middle('ppl_0'):,.1f} before, "
            f"{middle('ppl_1'):,.1f} after one epoch",
            *_trained(run),
            f"{'LP_app(1)':<{MARGIN}}median {middle('lp_app_1'):.3f}; "
            f"{unlearnt:,} row{'' if unlearnt == 1 else 's'} got harder",
        ]
    )


def _hardest(run: Run, ok: pa.Table, show_texts: bool) -> str:
    hardest = ok.sort_by([("lp_app_1", "ascending"), ("id", "ascending")]).slice(0, NUM_HARDEST)
    rows: list[int] = hardest["row"].to_pylist()
    texts = _first_texts(run, rows) if show_texts else dict.fromkeys(rows, ("", ""))
    room = max(MIN_TEXT, terminal.width() - TEXT_FROM)
    texts = {row: _two_ends(*pair, room) for row, pair in texts.items()}
    head = "instruction → response" if show_texts else "(texts: on a terminal, and in the report)"
    lines = [f"The {len(hardest)} hardest rows (learnt least of what they began with):"]
    lines += [terminal.warning(text) for text in sanity.cautions(run.records().values())]
    lines.append("")
    lines.append(f"  {'row':>8}  {'LP_app':>7}  {'ppl_0':>9}  {'ppl_1':>9}  {head}")
    for row, lp, before, after in zip(
        *(hardest[c].to_pylist() for c in ("row", "lp_app_1", "ppl_0", "ppl_1")), strict=True
    ):
        lines.append(
            f"  {row:>8}  {lp:>7.3f}  {before:>9,.1f}  {after:>9,.1f}  {texts[row]}".rstrip()
        )
    return "\n".join(lines)


def _first_texts(run: Run, rows: list[int]) -> dict[int, tuple[str, str]]:
    """First prompt and first response of some rows, on one line each."""
    step = run.step("pool")
    texts: dict[int, tuple[str, str]] = {}
    end = 0
    record = run.records()[step.folder]
    for shard in record.shards:
        start, end = end, end + (record.files[shard].rows or 0)
        if not any(start <= row < end for row in rows):
            continue
        table = step.read(step.folder, shard, ["row", "turns"])
        for entry in table.filter(pc.field("row").isin(rows)).to_pylist():
            by_role: dict[str, str] = {}
            for turn in entry["turns"]:
                by_role.setdefault(turn["role"], " ".join(turn["content"].split()))
            texts[entry["row"]] = (
                by_role.get(schema.USER, ""),
                by_role.get(schema.ASSISTANT, ""),
            )
    return texts


def _two_ends(prompt: str, response: str, room: int) -> str:
    """Both texts on what is left of a line, a third of it for the response where both are long."""
    if not prompt and not response:
        return ""
    arrow = " → "
    short = _short(response, max(room // 3, room - len(arrow) - len(prompt)))
    return _short(prompt, room - len(arrow) - len(short)) + arrow + short


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _selected(run: Run, ok: pa.Table) -> str:
    selection = run.selection()

    def mean(table: pa.Table) -> float:
        return float(np.asarray(table["num_response_tokens"]).mean()) if len(table) else 0.0

    return terminal.filled(
        f"{'selected':<{MARGIN}}",
        f"{len(selection):,} rows, {run.config.select.order} end of "
        f"{run.config.select.metric} in each of {len(selection['cluster'].unique()):,} clusters; "
        f"mean response {mean(selection):.1f} tokens (scored pool: {mean(ok):.1f})",
    )


def _places(run: Run, done: set[str]) -> str:
    lines = [f"scores        {_shown(run.dir.path / run.step('score').folder)}"]
    if "select" in done:
        folder = run.dir.path / run.step("select").folder
        lines.append(f"selection     {_shown(folder / SELECTED_JSONL)}")
        lines.append(f"              {_shown(folder / SELECTED_PARQUET)}")
    if "report" in done:
        lines.append(f"report        {_shown(run.report())}")
    return "\n".join(lines)


def _shown(path: Path) -> Path:
    """As one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def status_table(status: Status) -> str:
    """Stage by stage: state, rows, flagged rows, seconds; then what is not as it was recorded."""
    lines = [f"{'stage':<20} {'state':<11} {'rows':>13} {'flagged':>9} {'time':>13}"]
    total = 0.0
    stages, problem, holder = status
    for entry in stages:
        record = entry.record
        state: str = entry.state
        if record is None:
            done = f"{entry.shards_done}/{entry.shards_total} shards" if entry.shards_done else ""
            lines.append(f"{entry.step.label:<20} {state:<11} {done:>13}".rstrip())
            continue
        counted = (
            f"{record.num_flagged:,}" if record.flags else ""
        )  # not every stage has flags of its own
        total += record.seconds
        lines.append(
            f"{entry.step.label:<20} {state:<11} {record.rows_out:>13,} {counted:>9} "
            f"{duration(record.seconds):>13}"
        )
    lines.append(f"{'':<20} {'':<11} {'':>13} {'':>9} {duration(total):>13}")
    if holder:
        where = terminal.plain(f"process {holder.get('pid')} on {holder.get('host')}")
        lines += ["", f"running now: {where}"]
    for entry in stages:
        for text in entry.record.warnings if entry.record else ():
            lines += ["", f"{entry.step.label}:", terminal.warning(text)]
    for entry in stages:
        if entry.faults:
            lines += ["", f"{entry.step.label} is not as it was recorded:"]
            lines += [f"  {terminal.plain(fault)}" for fault in entry.faults[:MAX_FAULTS]]
            if len(entry.faults) > MAX_FAULTS:
                lines.append(f"  and {len(entry.faults) - MAX_FAULTS:,} more")
    if problem is not None:
        lines += ["", "Whether anything has drifted cannot be told:", terminal.lines(problem)]
    return "\n".join(lines)
