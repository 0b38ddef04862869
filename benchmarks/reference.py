"""The alternatives, written from their published descriptions, on the same weights and token ids.

`score_as_published` does what the method's reference code does; `score_carefully` is what a good
engineer writes in an afternoon: sorted by length, batched, still through full logits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from engine.maths.batching import length_sorted_batches
from engine.maths.ragged import Ragged

PUBLISHED_BATCH_ROWS = 4
IGNORED = -100
"""Label of tokens that are not scored, as transformers has it."""


@torch.no_grad()
def score_as_published(model: Any, rows: Ragged, scored: Ragged, pad_id: int) -> list[float]:
    """Mean NLL per row: 4 rows at a time in data order, padded, full logits, one by one to Python.

    The reference calls the model with labels, so the model computes a loss that nobody uses; then
    it copies the shifted logits and takes the loss of every position once more.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        rows: token ids.
        scored: scored positions of each row.
        pad_id: the tokenizer's padding token.
    """
    results: list[float] = []
    for start in range(0, len(rows), PUBLISHED_BATCH_ROWS):
        batch = np.arange(start, min(start + PUBLISHED_BATCH_ROWS, len(rows)))
        input_ids, mask, labels = _padded(rows.take(batch), scored.take(batch), pad_id, model)
        logits = model(input_ids=input_ids, attention_mask=mask, labels=labels).logits
        before, after = logits[:, :-1].contiguous(), labels[:, 1:].contiguous()
        losses = nn.functional.cross_entropy(
            before.flatten(0, 1), after.flatten(), ignore_index=IGNORED, reduction="none"
        )
        each = losses.view(len(batch), -1)
        results.extend((row.sum() / row.count_nonzero()).item() for row in each)
    return results


@torch.no_grad()
def score_carefully(
    model: Any, rows: Ragged, scored: Ragged, pad_id: int, batch_tokens: int
) -> list[float]:
    """Mean NLL per row: sorted by length, batched under a token budget, full logits, one copy."""
    results = np.zeros(len(rows))
    for batch in length_sorted_batches(rows.lengths, batch_tokens):
        input_ids, mask, labels = _padded(rows.take(batch), scored.take(batch), pad_id, model)
        logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
        losses = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            labels[:, 1:].flatten(),
            ignore_index=IGNORED,
            reduction="none",
        )
        sums = losses.view(len(batch), -1).sum(1).cpu().numpy()
        results[batch] = sums / scored.lengths[batch]
    return results.tolist()


def _padded(
    rows: Ragged, scored: Ragged, pad_id: int, model: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and labels, int64[batch, longest], on the model's device."""
    input_ids = rows.pad(pad_id)
    mask = (np.arange(input_ids.shape[1]) < rows.lengths[:, None]).astype(np.int64)
    labels = np.full_like(input_ids, IGNORED)
    which = np.repeat(np.arange(len(rows)), scored.lengths)
    labels[which, scored.values] = input_ids[which, scored.values]
    arrays = (input_ids, mask, labels)
    one, two, three = (torch.from_numpy(array).to(model.device) for array in arrays)
    return one, two, three
