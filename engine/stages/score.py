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
from engine.columns import equals, ranking_keys
from engine.config import Config
from engine.mapping import peak_memory_bytes
from engine.maths import learning
from engine.maths.ranking import Keys, rank_in_cluster
from engine.nodes import Nodes
from engine.progress import Progress
from engine.rundir import RunDir
from engine.step import CLUSTER, PERPLEXITY, POOL, TOKENS, Outcome, Step

NAME = "score"
VERSION = 1


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """The number of epochs: how many score columns there are."""
    return {"num_epochs": config.finetune.num_epochs}


def run(step: Step, nodes: Nodes) -> Outcome:
    """Score, rank and write every shard."""
    shards = step.shards()
    progress = Progress(step.label, 2 * len(shards), "shards")
    keys: list[Keys] = []
    for shard in shards:
        table = score_shard(step, shard)
        ok = equals(table["flag"], schema.OK)
        keys.append(ranking_keys(table.filter(pa.array(ok)), "lp_app_1"))
        progress.add(1)
    ranks = rank_in_cluster(_stack(keys)).astype(np.int32)
    flags: Counter[str] = Counter()
    start = num_rows = 0
    for shard in shards:
        table = score_shard(step, shard)
        ok = equals(table["flag"], schema.OK)
        column = np.zeros(len(ok), dtype=np.int32)
        column[ok] = ranks[start : start + ok.sum()]
        place = table.schema.get_field_index("rank_in_cluster")
        table = table.set_column(place, table.schema.field(place), pa.array(column, mask=~ok))
        step.commit(shard, table)
        flags.update(table["flag"].to_pylist())
        start, num_rows = start + int(ok.sum()), num_rows + len(ok)
        progress.add(1)
    progress.finish()
    return Outcome(num_rows, num_rows, dict(flags), peak_memory_bytes=peak_memory_bytes())


def score_shard(step: Step, shard: str) -> pa.Table:
    """One shard of scores, `rank_in_cluster` still null (`schema.scores`)."""
    num_epochs = step.config.finetune.num_epochs
    pool = step.read(POOL, shard, ["id", "row", "source", "split"])
    clusters = step.read(CLUSTER, shard)
    tokens = step.read(
        step.proxy_input(TOKENS),
        shard,
        ["id", "num_prompt_tokens", "num_response_tokens", "truncated", "flag"],
    )
    measured = [
        step.read(step.proxy_input(PERPLEXITY, epoch), shard) for epoch in range(num_epochs + 1)
    ]
    for table in (clusters, tokens, *measured):
        assert table["id"].equals(pool["id"]), f"{shard}: stages disagree on the rows"
    nlls = [mean_nll(table) for table in measured]
    numbers = score_columns(nlls)
    flags = np.array(tokens["flag"].to_pylist(), dtype=object)
    finite = np.isfinite(np.stack([v for n, v in numbers.items() if not n.startswith("lp_")]))
    finite = finite.all(axis=0) & np.isfinite(numbers["lp_app_1"])
    flags[(flags == schema.OK) & ~finite] = schema.NOT_FINITE
    ok = flags == schema.OK
    columns: dict[str, Any] = {
        **{name: pool[name] for name in pool.column_names},
        "cluster": clusters["cluster"],
        "distance": clusters["distance"],
        **{n: tokens[n] for n in ("num_prompt_tokens", "num_response_tokens", "truncated")},
        # `lp_i` alone may be undefined on a scored row: where P_0 = P_n.
        **{n: pa.array(v, mask=~(ok & np.isfinite(v))) for n, v in numbers.items()},
        "rank_in_cluster": pa.nulls(len(ok), pa.int32()),
        "flag": pa.array(flags, pa.string()),
    }
    wanted = schema.scores(num_epochs)
    return pa.table([columns[name] for name in wanted.names], schema=wanted)


def mean_nll(measured: pa.Table) -> npt.NDArray[np.float64]:
    """float64[n], nats per scored token; NaN for rows without a scored token."""
    nll_sum = np.asarray(measured["nll_sum"], dtype=np.float64)
    num_tokens = np.asarray(measured["num_tokens"], dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return nll_sum / np.where(num_tokens > 0, num_tokens, np.nan)


def score_columns(nlls: list[npt.NDArray[np.float64]]) -> dict[str, npt.NDArray[np.float64]]:
    """Every numeric score of `schema.scores` from the mean NLLs of epochs 0 … n."""
    epochs = range(1, len(nlls))
    return {
        **{f"mean_nll_{i}": nll for i, nll in enumerate(nlls)},
        **{f"ppl_{i}": learning.perplexity(nll) for i, nll in enumerate(nlls)},
        **{f"lp_app_{i}": learning.lp_app(nlls[0], nlls[i]) for i in epochs},
        **({f"lp_{i}": learning.lp(nlls, i) for i in epochs} if len(nlls) > 2 else {}),
    }


def _stack(keys: list[Keys]) -> Keys:
    return Keys(*(np.concatenate([getattr(k, f) for k in keys]) for f in Keys.__match_args__))
