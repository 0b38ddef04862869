"""5 perplexity: the summed NLL of every row's response, before training and after each epoch.

Reads ``4-tokens`` (and the epoch's weights from ``6-finetune``); writes, shard by shard, the
sufficient statistics `nll_sum`, `num_tokens` and `nll_last` (`schema.PERPLEXITY`): any later score
is arithmetic on them. Null for flagged rows. After an epoch they are held against those before it
(and the split of ``1-pool``), to tell whether anything was learnt (`sanity`).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine import heartbeat, models, sanity, schema
from engine.actor import Made, Skip
from engine.columns import to_ragged
from engine.config import Config
from engine.errors import DEVICE_LOST
from engine.mapping import map_shards
from engine.maths.loss import PROBE_ROWS, TokenNLL
from engine.maths.ragged import Ragged
from engine.models import ModelSource
from engine.nodes import Nodes
from engine.rundir import RunDir
from engine.scoring import BREAKS, WAYS, Scorer, Scores
from engine.step import FINETUNE, TOKENS, Outcome, Step

PROBES = 4
SLOW = (
    "In padded batches this proxy gives other values than row by row, so rows were scored without "
    "padding, which is slow."
)
NAME = "perplexity"
VERSION = 4


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """The weights (by content, or by the training they come from) and the precision."""
    own = {"model": models.proxy_source(config).identity(run)} if epoch == 0 else {}
    return {**own, "epoch": epoch, "dtype": config.proxy.dtype}


def run(step: Step, nodes: Nodes) -> Outcome:
    """Score every shard on the actor pool."""
    config = step.config
    nodes = nodes.for_shards(len(step.shards()), models.proxy_bytes(config))
    trained = step.run.path / step.proxy_input(FINETUNE, step.epoch)
    outcome = map_shards(
        step,
        nodes,
        PerplexityWorker,
        {
            "weights": models.proxy_of(step) if step.epoch == 0 else trained,
            "dtype": config.proxy.dtype,
            "device": nodes.device,
            "batch_tokens": config.resources.score_batch_tokens,
            "num_threads": nodes.cpus_per_worker,
        },
    )
    warnings, details = sanity.of_epoch(step) if step.epoch else (sanity.of_proxy(step), {})
    known = replace(outcome, warnings=warnings, details={**outcome.details, **details})
    return with_warning(known)


def with_warning(outcome: Outcome) -> Outcome:
    """The outcome, with a word on it where short cuts had to be left out."""
    if not outcome.details.get("shards_without_padding"):
        return outcome
    return replace(outcome, warnings=[*outcome.warnings, SLOW])


@dataclass(frozen=True)
class _Inputs:
    """A shard of 4-tokens: all ids, and the rows that are there."""

    ids: pa.ChunkedArray
    keep: npt.NDArray[np.int64]
    """Places of the rows that are not null."""
    rows: Ragged
    scored: Ragged
    ends: npt.NDArray[np.bool_]
    num_failed: int
    """Rows that could be scored, but are left out."""


class PerplexityWorker:
    """Holds the model; scores a shard at a time."""

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
        nll = TokenNLL(models.load_language_model(folder, dtype, device))
        nll.register_forward_hook(lambda _, given, made: heartbeat.beat(len(given[0])))
        self.scorer = Scorer(nll, device, dtype, batch_tokens)
        self.prepared = False

    def read(self, step: Step, shard: str, skip: Skip = None) -> _Inputs:
        """See `actor.Worker`."""
        columns = ["id", "input_ids", "scored", "end_scored"]
        tokens = step.read(step.proxy_input(TOKENS), shard, columns)
        there = np.asarray(tokens["input_ids"].is_valid())
        keep = np.flatnonzero(there if skip is None else there & ~skip)
        kept = tokens.take(pa.array(keep))
        return _Inputs(
            tokens["id"],
            keep,
            to_ragged(kept["input_ids"]),
            to_ragged(kept["scored"]),
            np.asarray(kept["end_scored"], dtype=bool),
            int(there.sum()) - len(keep),
        )

    def __call__(self, step: Step, inputs: _Inputs) -> Made:
        if not self.prepared:
            _prepare(self.scorer, step)
            self.prepared = True
        scores = self.scorer(inputs.rows, inputs.scored)
        counts = {
            "tokens": len(inputs.rows.values),
            "scored_tokens": len(inputs.scored.values),
            **asdict(scores.counts),
            "shards_by_full_logits": int(self.scorer.way.full_logits),
            "shards_without_padding": int(self.scorer.way.equal_lengths or self.scorer.way.alone),
        }
        flags = {schema.SCORING_FAILED: inputs.num_failed} if inputs.num_failed else {}
        return Made(_as_table(inputs, scores), flags, counts)


def _prepare(scorer: Scorer, step: Step) -> None:
    """Try the scorer's short cuts on the pool's first rows, two at a time until they are proven.

    The rows may be those that break the model: what was at hand when a worker died is passed over.
    """
    rows = _first_rows(step)
    scorer.take(WAYS[-1])
    for first in range(0, min(len(rows), PROBES * PROBE_ROWS), PROBE_ROWS):
        probe = step.run.path / step.folder / heartbeat.FOLDER / f"probe-{first}"
        if heartbeat.has_killed(probe):
            continue
        with heartbeat.signed(probe):
            try:
                scorer.prepare(rows.take(np.arange(first, min(first + PROBE_ROWS, len(rows)))))
            except BREAKS as error:
                if DEVICE_LOST in str(error):
                    os._exit(1)  # its name stays at the probe, which the next worker passes over
                scorer.take(WAYS[-1])
        if scorer.way != WAYS[-1]:
            return


def _first_rows(step: Step) -> Ragged:
    """The pool's first rows, whichever shard comes first, so that every actor finds the same."""
    for shard in step.shards():
        column = step.read(step.proxy_input(TOKENS), shard, ["input_ids"])["input_ids"]
        rows = to_ragged(column.drop_null())
        if len(rows):
            return rows
    return Ragged.of([])


def _as_table(inputs: _Inputs, scores: Scores) -> pa.Table:
    """The shard's table: kept rows get their numbers, the others null."""
    num_rows, keep = len(inputs.ids), inputs.keep
    nll_sum, nll_last = np.zeros(num_rows), np.zeros(num_rows)
    num_tokens = np.zeros(num_rows, dtype=np.int32)
    missing, no_end = np.ones(num_rows, dtype=bool), np.ones(num_rows, dtype=bool)
    nll_sum[keep], nll_last[keep] = scores.nll_sum, scores.nll_last
    num_tokens[keep] = inputs.scored.lengths
    missing[keep], no_end[keep] = False, ~inputs.ends
    return pa.table(
        [
            inputs.ids,
            pa.array(nll_sum, mask=missing, from_pandas=False),
            pa.array(num_tokens, mask=missing),
            pa.array(nll_last, mask=no_end, from_pandas=False),
        ],
        schema=schema.PERPLEXITY,
    )
