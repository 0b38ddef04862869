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

MAX_BIAS = 5e-3
"""Nats by which the tokens of a row may differ in one direction, on average, in bfloat16. Of 140
tiny architectures rounding gives up to 0.004, a soft cap that is left out 0.0055 and 0.010."""
CHANCE = 4.0
"""Standard errors up to which such a mean may be chance: a row may have but a few tokens."""
MIN_AHEAD = 1e-5
"""Nats by which an earlier value has to change, in any precision. The values of a causal model stay
the same to the bit, as long as shapes and neighbours do."""
TIMES_NOISE = 4.0
"""And how many times more than an untouched row's: experts that get other tokens round otherwise,
and some kernels add up in any order."""
CHANGES = 3
"""Tokens tried at a place. Rounding that sends a token to another expert may do so for one."""
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


def agree(
    found: Floats, expected: Floats, dtype: str, lengths: npt.NDArray[np.integer] | None = None
) -> bool:
    """Whether two NLLs of the same tokens differ by no more than the precision explains.

    In float32 that holds for each token. In bfloat16 logits have steps of up to an eighth, so one
    token says little: the mean of the differences counts, and that they go both ways.

    Args:
        found: float64[n], row by row.
        expected: float64[n].
        dtype: ``float32`` or ``bfloat16``.
        lengths: int[rows], tokens of each row, which together are n; None where it is one row.
    """
    apart = found - expected
    if not len(apart):
        return True
    if dtype == "float32":
        return bool(np.abs(apart).max() <= MAX_SPLIT_ERROR[dtype])  # NaN is no agreement
    if not np.abs(apart).mean() <= MAX_SPLIT_ERROR[dtype]:
        return False
    rows = [apart] if lengths is None else np.split(apart, np.cumsum(lengths)[:-1])
    spread = CHANCE * float(apart.std())
    return all(
        abs(row.mean()) <= max(MAX_BIAS, spread / np.sqrt(len(row)))
        for row in [apart, *rows]
        if len(row)
    )


@torch.inference_mode()
def sees_ahead(model: PreTrainedModel, tokens: Tensor) -> bool:
    """Whether what a model says at a position changes with the tokens behind it.

    A batch of equal rows is held against one in which some rows have another token at one place.
    The rows that stay the same tell what is noise.

    Args:
        model: a language model of transformers, in evaluation mode.
        tokens: int64[n], any row of at least 2 tokens.
    """
    config: Any = model.config
    size = int(config.get_text_config().vocab_size)
    places = sorted({len(tokens) // 2, len(tokens) - 1})
    rows = tokens.repeat(2 + CHANGES, 1)
    own = _logits(model, rows)
    for place in places:
        changed = rows.clone()
        steps = torch.arange(1, CHANGES + 1, device=tokens.device)
        changed[2:, place] = (changed[2:, place] + steps) % size
        found = _logits(model, changed)
        apart = [_most_apart(own[row, :place], found[row, :place]) for row in range(len(rows))]
        # Of an untouched row all values count, of a changed one those before the change.
        noise = max(_most_apart(own[row], found[row]) for row in range(2))
        if min(apart[2:]) > max(MIN_AHEAD, TIMES_NOISE * noise):
            return True
    return False


def _logits(model: PreTrainedModel, rows: Tensor) -> Tensor:
    """[rows, n, vocabulary]"""
    return model(input_ids=rows, use_cache=False).logits


def _most_apart(one: Tensor, other: Tensor) -> float:
    """Largest difference in nats of two rows of logits, [n, vocabulary]."""
    one, other = (logits.float().log_softmax(dim=-1) for logits in (one, other))
    # A token that is never said has the logit -inf, which is no number off itself.
    return float((one - other).abs().nan_to_num(nan=0.0).max())
