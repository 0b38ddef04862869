"""What ``poolscore plan`` prints: one line per stage, their sum, and what it rests on."""

from __future__ import annotations

import textwrap

from engine import terminal
from engine.estimate import Estimate
from engine.forecast import StageEstimate
from engine.maths.schedule import ENOUGH_STEPS, chosen_batch_size, num_steps
from engine.progress import duration

BUDGET_GAIN = 1.05
"""A token budget is suggested when it is faster than the run's by more than this."""
WIDTH = 80
_HEAD = (
    f"{'stage':<12} {'rows':>7} {'tokens':>7} {'shards':>6} {'FLOP':>7} {'disk':>7} {'time':>11} "
    f"{'memory':>7}"
)
_LONG_HOURS = 100
"""From so many on, nobody asks for the minutes."""


def table(found: Estimate) -> str:
    """One line per stage, their sum, and what it rests on; no line is wider than `WIDTH`."""
    price = found.config.resources.price_per_node_hour
    start = StageEstimate("start of Ray", seconds=found.start_seconds)
    lines = [
        _HEAD + (f" {'cost':>8}" if price is not None else ""),
        *(_line(stage, _cost(found, stage.seconds)) for stage in (start, *found.stages)),
    ]
    total = StageEstimate(
        "total",
        flops=sum(stage.flops for stage in found.stages),
        disk_bytes=sum(stage.disk_bytes for stage in found.stages),
        seconds=found.seconds,
        memory_bytes=max((stage.memory_bytes for stage in found.stages), default=0),
    )
    lines += ["", _line(total, _cost(found, found.seconds)), ""]
    notes = [*_basis(found), *_hints(found)]
    # Settings to copy stay in one piece.
    wrapped = [
        textwrap.fill(note, WIDTH, break_long_words=False, break_on_hyphens=False) for note in notes
    ]
    return "\n".join([*lines, *wrapped])


def _line(stage: StageEstimate, cost: str) -> str:
    label = stage.label.replace(" epoch ", " ")
    if stage.done:
        return f"{label:<12} done before"
    counts = (
        f"{_count(stage.rows):>7} {_count(stage.tokens):>7} {_count(stage.shards):>6} "
        f"{_scaled(stage.flops):>7} {_size(stage.disk_bytes):>7}"
    )
    time_ = f"{_time(stage.seconds):>11} {_size(stage.memory_bytes):>7}"
    return f"{label:<12} {counts} {time_}{cost}".rstrip()


def _cost(found: Estimate, seconds: float) -> str:
    cost = found.cost(seconds)
    if cost is None:
        return ""
    return f" {cost:>8,.2f}" if cost < 10**4 else f" {cost:>8,.0f}"


def _time(seconds: float) -> str:
    hours = round(seconds / 3600)
    return duration(seconds) if hours < _LONG_HOURS else f"{hours:,} h"


def _count(number: int) -> str:
    """A number of at most seven characters: in full up to 999,999."""
    if number < 10**6:
        return f"{number:,}" if number else ""
    return _scaled(number)


def _scaled(number: float) -> str:
    """Three digits and a unit."""
    if not number:
        return ""
    for unit, exponent in (("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3)):
        if number >= 0.9995 * 10**exponent:
            return f"{_three(number / 10**exponent)} {unit}"
    return _three(number)


def _three(number: float) -> str:
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}"


def _size(size: float) -> str:
    if not size:
        return ""
    for unit, exponent in (("TB", 4), ("GB", 3), ("MB", 2)):
        if size >= 0.9995 * 1024**exponent:
            scaled = size / 1024**exponent
            return f"{scaled:.{1 if scaled < 99.95 else 0}f} {unit}"
    return f"{size / 1024:.0f} KB" if size >= 1024 * 99.95 else f"{size / 1024:.1f} KB"


def _basis(found: Estimate) -> list[str]:
    """What the figures rest on."""
    measured, cluster, config = found.measured, found.nodes, found.config
    whole = measured.num_sampled == measured.num_lines
    counted = (
        f"counts are exact: all {measured.num_lines:,} lines were read"
        if whole
        else f"counts are estimated from {measured.num_sampled:,} of {measured.num_lines:,} lines; "
        "duplicates are not known before the run"
    )
    lines = [
        f"{counted[0].upper()}{counted[1:]}.",
        f"Times were measured in {duration(found.probe_seconds)} on {cluster.in_words()}; proxy "
        f"{config.proxy_name} in {config.proxy.dtype}.",
    ]
    rejected, limit = measured.rows.num_rejected, config.pool.max_reject_fraction
    if rejected > max(1, limit * measured.num_sampled):
        lines.append(
            f"{rejected:,} of the {measured.num_sampled:,} lines were rejected; a run stops where "
            f"more are than {limit:.1%} (pool.max_reject_fraction)."
        )
    gpu = max((speed.gpu_bytes for speed in measured.speeds.values()), default=0)
    if gpu:
        lines.append(f"Largest GPU memory in the probe: {_size(gpu)}.")
    if cluster.train_workers > 1:
        lines.append("What training workers send to one another is not in the times.")
    if config.resources.price_per_node_hour is None:
        lines.append("For costs: --set resources.price_per_node_hour=1.20 (your own price).")
    return lines


def _hints(found: Estimate) -> list[str]:
    """What would be better."""
    remarks = [terminal.plain(remark) for remark in found.remarks]
    return [*remarks, *_few_steps(found), *_faster(found)]


def _few_steps(found: Estimate) -> list[str]:
    """That the training will be too short for its scores to say much."""
    rows = next((stage.rows for stage in found.stages if stage.label == "finetune epoch 1"), 0)
    batch_size = found.config.finetune.batch_size or chosen_batch_size(rows)
    steps = num_steps(rows, batch_size)
    if not rows or steps >= ENOUGH_STEPS:
        return []
    return [
        f"The proxy's epoch will have {steps} optimizer steps of up to {batch_size} rows: with "
        f"fewer than {ENOUGH_STEPS} the scores say little."
    ]


def _faster(found: Estimate) -> list[str]:
    """What would be faster."""
    scoring = found.measured.speeds.get("perplexity")
    if scoring is None:
        return []
    seconds: dict[int, float] = scoring.details["budgets"]
    now = found.config.resources.score_batch_tokens
    best = min(seconds, key=seconds.__getitem__)
    if now is None or now not in seconds or seconds[now] < seconds[best] * BUDGET_GAIN:
        return []
    return [
        f"Scoring is {seconds[now] / seconds[best]:.2f} times as fast with "
        f"--set resources.score_batch_tokens={best}"
    ]
