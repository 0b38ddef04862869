"""What a person should know of a proxy's measurements before trusting scores made from them.

The decisions are `maths.verdict`; here the numbers are read and the sentences said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from engine import models, schema
from engine.columns import equals
from engine.errors import NothingLearntError
from engine.maths.learning import perplexity
from engine.maths.verdict import Change, is_untrained, verdict
from engine.rundir import Record
from engine.step import PERPLEXITY, POOL, Step

_STAGES = ("perplexity", "finetune")


def cautions(records: Iterable[Record]) -> list[str]:
    """Warnings that bear on every score: those of the stages that measure and train, each once."""
    found = [text for record in records if record.stage in _STAGES for text in record.warnings]
    return list(dict.fromkeys(found))


def of_proxy(step: Step) -> list[str]:
    """Warnings of a proxy before its training, whose perplexities are this step's output."""
    source = models.proxy_source(step.config)
    warnings = models.notes_of(source, step.run)
    pool, vocabulary = Change(), models.vocabulary_size(source)
    for shard in step.shards():
        sums, tokens = _measured(step, step.folder, shard)
        pool += Change.of(sums, sums, tokens)
    if is_untrained(pool.loss_before, vocabulary):
        found = float(perplexity(np.array(pool.loss_before)))
        warnings.append(
            f"the proxy knows next to nothing: before training its perplexity on this pool is "
            f"{found:,.0f}, and guessing blindly among its {vocabulary:,} tokens would give "
            f"{vocabulary:,}. Its weights look random or untrained, and scores made with it say "
            "little about the rows. Check proxy.model."
        )
    return warnings


def of_epoch(step: Step) -> tuple[list[str], dict[str, Any]]:
    """Warnings of an epoch, from the perplexities before and after it, and losses for the record.

    Raises:
        NothingLearntError: no row's perplexity changed by a single bit, or most have none left.
    """
    trained, held_out = changes(step)
    losses = {
        f"{name}_{key}": value
        for name, change in (("trained", trained), ("held_out", held_out))
        if change.num_rows
        for key, value in (
            ("rows", change.num_rows),
            ("rows_lost", change.num_lost),
            ("loss_before", change.loss_before),
            ("loss_after", change.loss_after),
        )
    }
    lost = _lost(step, trained, held_out)
    rate = step.config.finetune.learning_rate
    found = verdict(trained, held_out)
    fell = f"{trained.loss_before:.4g} → {trained.loss_after:.4g} nats per token"
    match found:
        case "learnt":
            return lost, losses
        case "diverged":
            raise NothingLearntError(
                f"the training diverged in epoch {step.epoch}: {trained.num_lost:,} of "
                f"{trained.num_rows + trained.num_lost:,} rows trained on have no finite "
                "perplexity any more.\n"
                f"Lower finetune.learning_rate (now {rate:g}), then run again with "
                "--rebuild finetune."
            )
        case "nothing":
            raise NothingLearntError(
                f"nothing was learnt in epoch {step.epoch}: each of the "
                f"{trained.num_rows + held_out.num_rows:,} scored rows has the very perplexity "
                "that it had before, so there is nothing to tell hard rows by.\n"
                f"Raise finetune.learning_rate (now {rate:g}), then run again with "
                "--rebuild finetune."
            )
        case "rose":
            return [
                *lost,
                f"the loss on the rows trained on rose in epoch {step.epoch} ({fell}): the proxy "
                "did not learn them, and the scores do not mean what they should. The usual cause "
                f"is a finetune.learning_rate (now {rate:g}) that is too high for this proxy.",
            ], losses
        case "hardly":
            return [
                *lost,
                f"the loss on the rows trained on hardly changed in epoch {step.epoch} ({fell}): "
                "the scores are small differences and say little. Raise finetune.learning_rate "
                f"(now {rate:g}), or check that proxy.model is a trained model.",
            ], losses


def _lost(step: Step, trained: Change, held_out: Change) -> list[str]:
    """A warning where rows had a finite number before the epoch and have none after it."""
    num_lost = trained.num_lost + held_out.num_lost
    if not num_lost:
        return []
    num_rows = num_lost + trained.num_rows + held_out.num_rows
    return [
        f"epoch {step.epoch} left {num_lost:,} of {num_rows:,} rows without a finite perplexity, "
        f"{trained.num_lost:,} of them rows trained on: they get no score, and the training is "
        "close to diverging. Lower finetune.learning_rate (now "
        f"{step.config.finetune.learning_rate:g}), then run again with --rebuild finetune."
    ]


def changes(step: Step) -> tuple[Change, Change]:
    """What the epoch did to the rows that were trained on, and to those held out."""
    before = step.proxy_input(PERPLEXITY, step.epoch - 1)
    trained, held_out = Change(), Change()
    for shard in step.shards():
        is_train = equals(step.read(POOL, shard, ["split"])["split"], schema.TRAIN)
        (old, tokens), (new, _) = (_measured(step, f, shard) for f in (before, step.folder))
        trained += Change.of(old[is_train], new[is_train], tokens[is_train])
        held_out += Change.of(old[~is_train], new[~is_train], tokens[~is_train])
    return trained, held_out


def _measured(step: Step, folder: str, shard: str) -> tuple[Any, Any]:
    """Summed NLL (NaN where null) and scored tokens (0 where null) of a shard's rows."""
    table = step.read(folder, shard, ["nll_sum", "num_tokens"])
    sums = table["nll_sum"].to_numpy().astype(np.float64)
    return sums, table["num_tokens"].fill_null(0).to_numpy().astype(np.int64)
