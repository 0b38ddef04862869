"""7 score: learning percentages and ranks, as arithmetic on the stored statistics.

Reads ``1-pool``, ``3-cluster``, ``4-tokens`` and every ``5-perplexity/epoch-*`` side by side;
writes, shard by shard, the columns of `schema.scores`. Two passes: the first computes scores and
keeps only the keys that ranks need, the second writes the shards. No model is touched.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine import schema
from engine.columns import counts, equals, ranking_keys, replaced
from engine.config import Config
from engine.maths import learning
from engine.maths.ranking import Keys, rank_in_cluster
from engine.nodes import Nodes
from engine.parallel import peak_memory_bytes
from engine.progress import Progress
from engine.rundir import RunDir
from engine.step import CLUSTER, PERPLEXITY, POOL, TOKENS, Outcome, Step
from engine.threads import in_order

Floats = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int32]

NAME = "score"
VERSION = 2
METRIC = "lp_app_1"
"""The score that ranks are by."""


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """The number of epochs: how many score columns there are."""
    return {"num_epochs": config.finetune.num_epochs}


def run(step: Step, nodes: Nodes) -> Outcome:
    """Score, rank and write every shard."""
    shards = step.shards()
    progress = Progress(step.label, 2 * len(shards), "shards")
    keys: list[Keys] = []
    for part in in_order(lambda shard: shard_keys(step, shard), shards):
        keys.append(part)
        progress.add(1)
    ends = np.cumsum([len(part.row) for part in keys])
    ranks = np.split(rank_in_cluster(Keys.stack(keys)).astype(np.int32), ends[:-1])
    flags: Counter[str] = Counter()
    for written in in_order(lambda item: _write(step, *item), zip(shards, ranks, strict=True)):
        flags += written
        progress.add(1)
    progress.finish()
    num_rows = flags.total()
    return Outcome(num_rows, num_rows, dict(flags), peak_memory_bytes=peak_memory_bytes())


def shard_keys(step: Step, shard: str) -> Keys:
    """What the ranks need of one shard's scored rows; nothing else of it is read."""
    pool = step.read(POOL, shard, ["id", "row"])
    cluster = step.read(CLUSTER, shard, ["cluster"])["cluster"]
    flag = step.read(step.proxy_input(TOKENS), shard, ["flag"])["flag"]
    measured = _measured(step, shard, ["nll_sum", "num_tokens"])
    numbers = score_columns([mean_nll(table) for table in measured])
    columns = {"id": pool["id"], "row": pool["row"], "cluster": cluster, METRIC: numbers[METRIC]}
    ok = equals(final_flags(flag, cluster, measured, numbers), schema.OK)
    return ranking_keys(pa.table(columns).filter(pa.array(ok)), METRIC)


def score_shard(step: Step, shard: str, ranks: Ranks) -> pa.Table:
    """One shard of scores (`schema.scores`), with the ranks of its scored rows."""
    pool = step.read(POOL, shard, ["id", "row", "source", "split"])
    clusters = step.read(CLUSTER, shard)
    tokens = step.read(
        step.proxy_input(TOKENS),
        shard,
        ["id", "num_prompt_tokens", "num_response_tokens", "truncated", "flag"],
    )
    measured = _measured(step, shard, ["id", "nll_sum", "num_tokens"])
    for table in (clusters, tokens, *measured):
        assert table["id"].equals(pool["id"]), f"{shard}: stages disagree on the rows"
    numbers = score_columns([mean_nll(table) for table in measured])
    flag = final_flags(tokens["flag"], clusters["cluster"], measured, numbers)
    ok = equals(flag, schema.OK)
    rank_in_cluster = np.zeros(len(ok), dtype=np.int32)
    rank_in_cluster[ok] = ranks
    columns: dict[str, Any] = {
        **{name: pool[name] for name in pool.column_names},
        "cluster": clusters["cluster"],
        "distance": clusters["distance"],
        **{n: tokens[n] for n in ("num_prompt_tokens", "num_response_tokens", "truncated")},
        # `lp_i` alone may be undefined on a scored row: where P_0 = P_n.
        **{n: pa.array(v, mask=~(ok & np.isfinite(v))) for n, v in numbers.items()},
        "rank_in_cluster": pa.array(rank_in_cluster, mask=~ok),
        "flag": flag,
    }
    wanted = schema.scores(step.config.finetune.num_epochs)
    return pa.table([columns[name] for name in wanted.names], schema=wanted)


def final_flags(
    flag: pa.ChunkedArray,
    cluster: pa.ChunkedArray,
    measured: list[pa.Table],
    numbers: dict[str, Floats],
) -> pa.ChunkedArray:
    """A shard's flags, with what became of its rows after 4-tokens.

    Args:
        flag: of 4-tokens.
        cluster: of 3-cluster; null where embedding the row failed.
        measured: 5-perplexity, epochs 0 … n; null where scoring the row failed.
        numbers: the scores.
    """
    unscored = [~np.asarray(table["nll_sum"].is_valid()) for table in measured]
    for where, why in (
        (~np.asarray(cluster.is_valid()), schema.EMBEDDING_FAILED),
        (np.logical_or.reduce(unscored), schema.SCORING_FAILED),
        (~is_finite(numbers), schema.NOT_FINITE),
    ):
        flag = replaced(flag, equals(flag, schema.OK) & where, why)
    return flag


def _measured(step: Step, shard: str, columns: list[str]) -> list[pa.Table]:
    """One shard of ``5-perplexity``, epochs 0 … n."""
    epochs = range(step.config.finetune.num_epochs + 1)
    return [step.read(step.proxy_input(PERPLEXITY, epoch), shard, columns) for epoch in epochs]


def _write(step: Step, shard: str, ranks: Ranks) -> Counter[str]:
    table = score_shard(step, shard, ranks)
    step.commit(shard, table)
    return counts(table["flag"])


def mean_nll(measured: pa.Table) -> Floats:
    """float64[n], nats per scored token; NaN for rows without a scored token."""
    nll_sum = np.asarray(measured["nll_sum"], dtype=np.float64)
    num_tokens = np.asarray(measured["num_tokens"], dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return nll_sum / np.where(num_tokens > 0, num_tokens, np.nan)


def score_columns(nlls: list[Floats]) -> dict[str, Floats]:
    """Every numeric score of `schema.scores` from the mean NLLs of epochs 0 … n."""
    epochs = range(1, len(nlls))
    return {
        **{f"mean_nll_{i}": nll for i, nll in enumerate(nlls)},
        **{f"ppl_{i}": learning.perplexity(nll) for i, nll in enumerate(nlls)},
        **{f"lp_app_{i}": learning.lp_app(nlls[0], nlls[i]) for i in epochs},
        **({f"lp_{i}": learning.lp(nlls, i) for i in epochs} if len(nlls) > 2 else {}),
    }


def is_finite(numbers: dict[str, Floats]) -> npt.NDArray[np.bool_]:
    """bool[n]: rows whose every score is a number, `lp_i` aside."""
    needed = [v for n, v in numbers.items() if not n.startswith("lp_") or n == METRIC]
    return np.isfinite(np.stack(needed)).min(axis=0)
