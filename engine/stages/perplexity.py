"""5 perplexity: the summed NLL of every row's response, before training and after each epoch.

Reads ``4-tokens`` (and the epoch's weights from ``6-finetune``); writes, shard by shard, the
sufficient statistics `nll_sum`, `num_tokens` and `nll_last` (`schema.PERPLEXITY`): any later score
is arithmetic on them. Null for flagged rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from engine import models, schema
from engine.columns import to_lists
from engine.config import Config
from engine.mapping import Made, map_shards
from engine.maths.batching import length_sorted_batches, pad
from engine.maths.loss import TokenNLL, needs_full_logits
from engine.models import ModelSource
from engine.nodes import Nodes
from engine.rundir import RunDir
from engine.step import FINETUNE, TOKENS, Outcome, Step

NAME = "perplexity"
VERSION = 1


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """The weights (by content, or by the training they come from) and the precision."""
    own = {"model": models.proxy_source(config).identity(run)} if epoch == 0 else {}
    return {**own, "epoch": epoch, "dtype": config.proxy.dtype}


def run(step: Step, nodes: Nodes) -> Outcome:
    """Score every shard on the actor pool."""
    config = step.config
    trained = step.run.path / step.proxy_input(FINETUNE, step.epoch)
    return map_shards(
        step,
        nodes,
        PerplexityWorker,
        {
            "weights": models.proxy_source(config) if step.epoch == 0 else trained,
            "dtype": config.proxy.dtype,
            "device": nodes.device,
            "batch_tokens": config.resources.score_batch_tokens,
            "num_threads": nodes.cpus_per_worker,
        },
    )


class PerplexityWorker:
    """Holds the model; scores a shard at a time, in batches of rows of similar length."""

    def __init__(
        self,
        weights: ModelSource | Path,
        dtype: str,
        device: str,
        batch_tokens: int,
        num_threads: int,
    ) -> None:
        models.use_threads(num_threads)
        folder = weights if isinstance(weights, Path) else weights.folder()
        self.nll = TokenNLL(models.load_language_model(folder, dtype, device))
        self.device, self.dtype, self.batch_tokens = device, dtype, batch_tokens
        self.checked = False

    def __call__(self, step: Step, shard: str) -> Made:
        columns = ["id", "input_ids", "scored", "end_scored"]
        tokens = step.read(step.proxy_input(TOKENS), shard, columns)
        keep = np.flatnonzero(np.asarray(tokens["input_ids"].is_valid()))
        rows = to_lists(tokens["input_ids"].take(pa.array(keep)))
        scored = to_lists(tokens["scored"].take(pa.array(keep)))
        if not self.checked:
            self.nll.full_logits = self._needs_full_logits(step)
            self.checked = True
        sums, lasts, computed = self._score(rows, scored)
        ends = np.asarray(tokens["end_scored"].take(pa.array(keep)), dtype=bool)
        table = _as_table(tokens["id"], keep, sums, [len(s) for s in scored], lasts, ends)
        counts = {
            "tokens": sum(map(len, rows)),
            "computed_tokens": computed,
            "scored_tokens": sum(map(len, scored)),
            "shards_by_full_logits": int(self.nll.full_logits),
        }
        return Made(table, counts=counts)

    def _needs_full_logits(self, step: Step) -> bool:
        """Asked of the pool's first rows, so that every actor comes to the same answer."""
        for shard in step.shards():
            column = step.read(step.proxy_input(TOKENS), shard, ["input_ids"])["input_ids"]
            rows = to_lists(column.drop_null())
            if rows:
                return needs_full_logits(self.nll.model, rows, self.device, self.dtype)
        return False

    @torch.inference_mode()
    def _score(
        self, rows: list[npt.NDArray[np.int32]], scored: list[npt.NDArray[np.int32]]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int]:
        """float64 NLL sums and last-token NLLs in row order, and padded tokens computed."""
        sums, lasts = np.zeros(len(rows)), np.zeros(len(rows))
        computed = 0
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        for batch in length_sorted_batches(lengths, self.batch_tokens):
            counts = np.array([len(scored[i]) for i in batch])
            input_ids = pad([rows[i] for i in batch], fill=0)
            nll = self.nll(
                torch.from_numpy(input_ids).to(self.device),
                torch.from_numpy(np.repeat(np.arange(len(batch)), counts)).to(self.device),
                torch.from_numpy(np.concatenate([scored[i] for i in batch]).astype(np.int64)).to(
                    self.device
                ),
            )
            values = nll.cpu().numpy().astype(np.float64)  # the batch's only copy to the host
            ends = np.cumsum(counts)
            sums[batch] = np.add.reduceat(values, ends - counts)
            lasts[batch] = values[ends - 1]
            computed += input_ids.size
        return sums, lasts, computed


def _as_table(
    ids: pa.ChunkedArray,
    keep: npt.NDArray[np.int64],
    sums: npt.NDArray[np.float64],
    counts: list[int],
    lasts: npt.NDArray[np.float64],
    ends: npt.NDArray[np.bool_],
) -> pa.Table:
    """The shard's table: kept rows get their numbers, the others null."""
    num_rows = len(ids)
    nll_sum, nll_last = np.zeros(num_rows), np.zeros(num_rows)
    num_tokens = np.zeros(num_rows, dtype=np.int32)
    missing, no_end = np.ones(num_rows, dtype=bool), np.ones(num_rows, dtype=bool)
    nll_sum[keep], num_tokens[keep], nll_last[keep] = sums, counts, lasts
    missing[keep], no_end[keep] = False, ~ends
    return pa.table(
        [
            ids,
            pa.array(nll_sum, mask=missing, from_pandas=False),
            pa.array(num_tokens, mask=missing),
            pa.array(nll_last, mask=no_end, from_pandas=False),
        ],
        schema=schema.PERPLEXITY,
    )
