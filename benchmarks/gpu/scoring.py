"""Scoring: utilisation, the published loop beside it, and the memory of both."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from benchmarks import harness
from benchmarks.gpu import shapes
from benchmarks.gpu.ground import Ground, Work, gigabytes
from benchmarks.gpu.shapes import Rows, Shape
from benchmarks.harness import Row
from benchmarks.reference import PUBLISHED_BATCH_ROWS, score_as_published
from engine.maths import flops
from engine.maths.loss import MAX_SPLIT_ERROR, TokenNLL
from engine.scoring import Scorer

BUDGETS, BUDGET = (16_384, 32_768, 65_536, 131_072), 32_768
"""Padded tokens per batch: what `--sweep` tries, and what is measured without it."""
PUBLISHED_ROWS, PUBLISHED_AIM = 1024, 5.0


def measure(ground: Ground, chosen: Sequence[Shape], peak: float) -> list[Row]:
    """Three rows and more for each shape."""
    return [row for shape in chosen for row in _measure_one(ground, shape, peak)]


def _measure_one(ground: Ground, shape: Shape, peak: float) -> list[Row]:
    ground.release()
    model = shapes.build(shape, ground.device, ground.tiny)
    rows, nll = ground.rows(shape, model.config.vocab_size), TokenNLL(model)

    def ours(budget: int, of: Rows = rows) -> npt.NDArray[np.float64]:
        return score_rows(nll, of, budget, ground.device)

    seconds = ground.at_budgets(ours, ground.budgets(BUDGETS, BUDGET))
    cost = flops.forward_flops(flops.Shape.of(model), rows.lengths, rows.num_scored)
    work = Work(f"scoring {shape.name}", rows.num_tokens, cost)
    few, best = rows.first(PUBLISHED_ROWS), min(seconds, key=seconds.__getitem__)
    # Four rows that fill the context are the most that the published loop ever has in a batch.
    same = PUBLISHED_BATCH_ROWS * shapes.LONGEST
    arms = {
        f"ours at {best:,} tokens a batch": partial(ours, best, few),
        f"at {same:,}": partial(ours, same, few),
        "the published loop": partial(
            score_as_published, model, few.input_ids, few.scored, pad_id=1
        ),
    }
    found = [np.array(arm()) for arm in arms.values()]
    apart = float(max(np.abs(found[-1] - other).max() for other in found))
    if not apart <= MAX_SPLIT_ERROR["bfloat16"]:
        sys.exit(f"error: {shape.name}: the two loops differ by {apart:.2g} nats")
    first, *_, last = arms.values()
    against = harness.ratio(
        work.what,
        "the published loop",
        PUBLISHED_AIM,
        harness.alternate(first, last, ground.pairs),
        few.num_tokens,
        "useful tokens",
        largest_difference_nats=apart,
        batch_tokens=best,
    )
    peaks = {name: ground.peak_bytes(arm) for name, arm in arms.items()}
    value = ", ".join(f"{name} {gigabytes(taken)}" for name, taken in peaks.items())
    memory = harness.limit(f"memory above the weights, {shape.name}", "", value, None, bytes=peaks)
    return [*work.rows(seconds, peak, shape.scoring_aim), against, memory]


def score_rows(
    nll: TokenNLL, rows: Rows, batch_tokens: int, device: str
) -> npt.NDArray[np.float64]:
    """Mean NLL of every row, float64[n], by the engine's own scorer."""
    scorer = Scorer(nll, device, "bfloat16", batch_tokens)
    return scorer(rows.input_ids, rows.scored).nll_sum / rows.scored.lengths
