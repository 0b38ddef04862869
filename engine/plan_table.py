"""What ``poolscore plan`` prints: one line per stage, their sum, and what it rests on."""

from __future__ import annotations

from engine.estimate import Estimate
from engine.forecast import StageEstimate
from engine.maths.schedule import ENOUGH_STEPS, chosen_batch_size, num_steps
from engine.progress import duration

BUDGET_GAIN = 1.05
"""A token budget is suggested when it is faster than the run's by more than this."""
_HEAD = (
    f"{'stage':<20} {'rows':>12} {'tokens':>15} {'shards':>7} {'TFLOP':>10} {'disk':>9} "
    f"{'time':>13} {'memory':>9}"
)


def table(found: Estimate) -> str:
    """One line per stage, their sum, and what it rests on."""
    price = found.config.resources.price_per_node_hour
    start = StageEstimate("(start of Ray)", seconds=found.start_seconds)
    lines = [
        _HEAD + (f" {'cost':>9}" if price is not None else ""),
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
    return "\n".join([*lines, *_basis(found), *_hints(found)])


def _line(stage: StageEstimate, cost: str) -> str:
    if stage.done:
        return f"{stage.label:<20} done before"
    counts = (
        f"{_count(stage.rows):>12} {_count(stage.tokens):>15} {_count(stage.shards):>7} "
        f"{_tera(stage.flops):>10} {_size(stage.disk_bytes):>9}"
    )
    time_ = f"{duration(stage.seconds):>13} {_size(stage.memory_bytes):>9}"
    return f"{stage.label:<20} {counts} {time_}{cost}".rstrip()


def _cost(found: Estimate, seconds: float) -> str:
    price = found.config.resources.price_per_node_hour
    return "" if price is None else f" {seconds / 3600 * found.nodes.num_nodes * price:>9,.2f}"


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _tera(flops: float) -> str:
    return f"{flops / 1e12:,.2f}" if flops else ""


def _size(size: float) -> str:
    if not size:
        return ""
    for unit, exponent in (("TB", 4), ("GB", 3), ("MB", 2)):
        if size >= 1024**exponent:
            return f"{size / 1024**exponent:,.1f} {unit}"
    return f"{size / 1024:,.1f} KB"


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
    return [*_few_steps(found), *_faster(found)]


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
