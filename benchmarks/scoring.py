"""Scoring with the bundled proxy, against the published loop and a careful one.

Run with ``python -m benchmarks.scoring [--rows N]``. The pool is `POOLSCORE_BENCH_POOL`, else the
bundled sample.
"""

from __future__ import annotations

import argparse
import multiprocessing
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau

from benchmarks import reference, rows
from benchmarks.harness import Row, alternate, limit, peak_bytes_above, publish, ratio, timed
from engine.maths.flops import Shape, forward_flops
from engine.maths.learning import lp_app
from engine.maths.loss import TokenNLL, padded_batch
from engine.maths.ragged import Ragged
from engine.resolve import default_batch
from engine.scoring import Scorer

PAD_ID = 1
TRAINING_STEPS, LEARNING_RATE = 8, 5e-4


def scorer(model: Any, dtype: str, ids: Ragged) -> Scorer:
    made = Scorer(TokenNLL(model), "cpu", dtype, default_batch("score_batch_tokens", "cpu"))
    made.prepare(ids)
    return made


def speed(ids: Ragged, scored: Ragged) -> list[Row]:
    """The three ratios, and the share of a matrix product's FLOP/s."""
    model = rows.proxy_model()
    ours = scorer(model, "float32", ids)
    half = scorer(rows.proxy_model("bfloat16"), "bfloat16", ids)
    num_tokens = len(ids.values)

    def published() -> object:
        return reference.score_as_published(model, ids, scored, PAD_ID)

    def careful() -> object:
        return reference.score_carefully(model, ids, scored, PAD_ID, ours.batch_tokens)

    one = alternate(lambda: ours(ids, scored), published)
    two = alternate(lambda: ours(ids, scored), careful)
    three = alternate(lambda: half(ids, scored), lambda: ours(ids, scored))
    what = "scoring, float32"
    return [
        ratio(what, "the published loop", 4, one, num_tokens, "tokens"),
        ratio(what, "a careful loop", 1.3, two, num_tokens, "tokens"),
        ratio("scoring, bfloat16", "own float32", 1.4, three, num_tokens, "tokens"),
        utilisation(ours, "float32", ids, scored, 0.7),
        utilisation(half, "bfloat16", ids, scored, None),
        ranks(ids, scored),
    ]


def utilisation(made: Scorer, dtype: str, ids: Ragged, scored: Ragged, aim: float | None) -> Row:
    """FLOP/s over tokens that had to be computed, against a large matrix product's."""
    a = torch.randn(4096, 4096, dtype=getattr(torch, dtype))
    peak, rate = [], []
    counts = made(ids, scored).counts
    # What had to be computed: a shared prefix once, padding never.
    shape = Shape.of(made.nll.model)
    flops = forward_flops(shape, ids.lengths, len(scored.values))
    flops -= 2 * shape.layer_weights * counts.shared_tokens
    for _ in range(5):
        peak.append(2 * 4096**3 / timed(lambda: a @ a).seconds)
        rate.append(flops / timed(lambda: made(ids, scored)).seconds)
    share = float(np.median(np.array(rate) / np.array(peak)))
    return limit(
        f"useful FLOP/s while scoring, {dtype}, of a matrix product's",
        f"≥ {aim}" if aim else "",
        f"{share:.2f} ({np.median(rate) / 1e9:,.0f} of {np.median(peak) / 1e9:,.0f} GFLOP/s)",
        share >= aim if aim else None,
        rates=rate,
        peaks=peak,
    )


def ranks(ids: Ragged, scored: Ragged) -> Row:
    """How far bfloat16 moves the ranks of LP_app, after a few steps of training in float32."""
    before, after = rows.proxy_model(), rows.proxy_model()
    train(after, ids, scored)
    found: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        nlls = []
        for model in (before, after):
            made = scorer(model.to(getattr(torch, dtype)), dtype, ids)
            nlls.append(made(ids, scored).nll_sum / scored.lengths)
        found[dtype] = lp_app(*nlls)
    tau = float(kendalltau(found["float32"], found["bfloat16"]).statistic)
    return limit("LP_app in bfloat16, Kendall's tau with float32", "", f"{tau:.3f}", None, tau=tau)


def train(model: Any, ids: Ragged, scored: Ragged) -> None:
    """Some steps of AdamW on all rows, so that there is something learnt."""
    nll = TokenNLL(model).train()
    optimizer = torch.optim.AdamW(nll.parameters(), lr=LEARNING_RATE)
    for part in np.array_split(np.argsort(ids.lengths), TRAINING_STEPS):
        nll(*padded_batch(ids.take(part), scored.take(part), "cpu")).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def counts(ids: Ragged, scored: Ragged) -> list[Row]:
    """Work that was needed, of the work that was done."""
    done = scorer(rows.proxy_model(), "float32", ids)(ids, scored).counts
    useful = (len(ids.values) - done.shared_tokens) / done.computed_tokens
    heads = done.head_rows / len(scored.values)
    shared = done.shared_tokens / len(ids.values)
    return [
        limit("useful tokens / computed tokens", "≥ 0.97", f"{useful:.4f}", useful >= 0.97),
        limit("head rows / scored tokens", "= 1.00", f"{heads:.4f}", heads == 1.0),
        limit("tokens saved by shared prefixes", "", f"{shared:.3f}", None),
    ]


def memory(num: int) -> Row:
    """Peak memory above the weights, each arm in a process of its own."""
    ours, theirs = (_apart(_peak_bytes, kind, num) for kind in ("ours", "published"))
    return limit(
        "peak memory above weights while scoring, of the published loop's",
        "≤ 0.25",
        f"{ours / theirs:.2f} ({ours / 2**20:,.0f} of {theirs / 2**20:,.0f} MB)",
        ours <= theirs / 4,
    )


def _peak_bytes(kind: str, num: int) -> int:
    ids, scored = rows.tokenised(num)
    model = rows.proxy_model()
    made = scorer(model, "float32", ids)
    few = np.argsort(ids.lengths)[:2]  # what any first call brings with it
    reference.score_as_published(model, ids.take(few), scored.take(few), PAD_ID)
    made(ids.take(few), scored.take(few))
    arms = {
        "ours": lambda: made(ids, scored),
        "published": lambda: reference.score_as_published(model, ids, scored, PAD_ID),
    }
    return peak_bytes_above(arms[kind])


def _apart(function: Any, *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=250, help="rows of the pool (default: 250)")
    num = parser.parse_args().rows
    ids, scored = rows.tokenised(num)
    publish("scoring", [*speed(ids, scored), *counts(ids, scored), memory(num)])


if __name__ == "__main__":
    main()
