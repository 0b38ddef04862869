"""Rows on which a model's short cuts are tried, and how far apart two ways to score them may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.maths.loss import MAX_SPLIT_ERROR
from engine.maths.prefix import PrefixGroup
from engine.maths.ragged import Ragged

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Floats = npt.NDArray[np.float64]

MAX_AHEAD = {"float32": 1e-3, "bfloat16": 5e-2}
"""Nats by which rounding alone may change an earlier position (in bfloat16 on average over the
vocabulary)."""
MIN_SHARED = 4
"""Rows of fewer than twice as many tokens are too short to share a prefix."""


def trial_rows(probe: Ragged) -> Ragged:
    """Rows like those of a shard: of several lengths, three of them with one first half.

    Args:
        probe: one row or more, of at least 2 tokens each.

    Returns:
        The longest row (n tokens), its first 3n/4 tokens, the row with its second half turned
        round; the shortest row and its first three quarters.
    """
    longest, shortest = probe[int(probe.lengths.argmax())], probe[int(probe.lengths.argmin())]
    half = len(longest) // 2
    turned = np.concatenate([longest[:half], longest[half:][::-1]])
    parts = [row[: max(2, 3 * len(row) // 4)] for row in (longest, shortest)]
    return Ragged.of([longest, parts[0], turned, shortest, parts[1]])


def trial_groups(rows: Ragged) -> list[PrefixGroup] | None:
    """The `trial_rows`, in groups of which one shares a prefix; None where they are too short."""
    half = len(rows[0]) // 2
    if half < MIN_SHARED:
        return None
    return [PrefixGroup(np.array([0, 1, 2]), half), PrefixGroup(np.array([3, 4]), 0)]


def trial_scored(rows: Ragged, groups: list[PrefixGroup]) -> Ragged:
    """Every position of each row that may be scored behind its group's prefix."""
    first = {int(row): group.num_tokens + 1 for group in groups for row in group.rows}
    return Ragged.of([np.arange(first[i], len(rows[i])) for i in range(len(rows))])


def agree(found: Floats, expected: Floats, dtype: str) -> bool:
    """Whether two NLLs of the same tokens differ by no more than the precision explains.

    In float32 that holds for each token. In bfloat16 logits have steps of up to an eighth, so one
    token says little: the mean of the differences counts.
    """
    apart = np.abs(found - expected)
    error = apart.max(initial=0.0) if dtype == "float32" else apart.mean() if len(apart) else 0.0
    return bool(error <= MAX_SPLIT_ERROR[dtype])  # NaN is no agreement


@torch.inference_mode()
def sees_ahead(model: PreTrainedModel, tokens: Tensor, dtype: str) -> bool:
    """Whether what a model says at a position changes with the tokens behind it.

    Args:
        model: a language model of transformers, in evaluation mode.
        tokens: int64[n], any row of at least 2 tokens.
        dtype: the model's precision; decides how much rounding is allowed.
    """
    own = _log_probabilities(model, tokens)
    config: Any = model.config
    for changed in sorted({len(tokens) // 2, len(tokens) - 1}):
        row = tokens.clone()
        row[changed] = (row[changed] + 1) % config.get_text_config().vocab_size
        apart = (_log_probabilities(model, row)[:changed] - own[:changed]).abs()
        error = float(apart.max() if dtype == "float32" else apart.mean(dim=-1).max())
        if error > MAX_AHEAD[dtype]:
            return True
    return False


def _log_probabilities(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """float32[n, vocabulary]"""
    logits: Tensor = model(input_ids=tokens[None], use_cache=False).logits[0]
    return logits.float().log_softmax(dim=-1)
