"""The alternatives, written from their published descriptions, on the same weights and token ids.

`score_as_published` is the loop of the method's reference code; `score_carefully` is what a good
engineer writes in an afternoon: sorted by length, batched, still through full logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from engine.maths.batching import length_sorted_batches, pad

Rows = Sequence[npt.NDArray[np.int32]]
PUBLISHED_BATCH_ROWS = 4


@torch.no_grad()
def score_as_published(model: Any, rows: Rows, scored: Rows, pad_id: int) -> list[float]:
    """Mean NLL per row: 4 rows at a time in data order, padded, masked, full logits, row by row.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        rows: int32 token ids of each row.
        scored: int32 scored positions of each row.
        pad_id: the tokenizer's padding token.
    """
    results: list[float] = []
    for start in range(0, len(rows), PUBLISHED_BATCH_ROWS):
        batch = rows[start : start + PUBLISHED_BATCH_ROWS]
        input_ids, mask = _padded(batch, pad_id, model.device)
        logits = model(input_ids=input_ids, attention_mask=mask).logits
        for place, positions in enumerate(scored[start : start + PUBLISHED_BATCH_ROWS]):
            shifted = logits[place, :-1]
            labels = torch.full_like(input_ids[place, 1:], -100)
            at = torch.from_numpy(positions.astype(np.int64) - 1).to(model.device)
            labels[at] = input_ids[place, 1:][at]
            loss = nn.functional.cross_entropy(shifted.float(), labels, ignore_index=-100)
            results.append(loss.item())
    return results


@torch.no_grad()
def score_carefully(
    model: Any, rows: Rows, scored: Rows, pad_id: int, batch_tokens: int
) -> list[float]:
    """Mean NLL per row: sorted by length, batched under a token budget, full logits, one sync."""
    results = np.zeros(len(rows))
    lengths = np.array([len(row) for row in rows])
    for batch in length_sorted_batches(lengths, batch_tokens):
        input_ids, mask = _padded([rows[i] for i in batch], pad_id, model.device)
        labels = torch.full_like(input_ids, -100)
        for place, index in enumerate(batch):
            at = torch.from_numpy(scored[index].astype(np.int64)).to(model.device)
            labels[place, at] = input_ids[place, at]
        logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
        nll = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="none"
        ).view(len(batch), -1)
        counts = (labels[:, 1:] != -100).sum(1)
        results[batch] = (nll.sum(1) / counts).double().cpu().numpy()
    return results.tolist()


def _padded(rows: Rows, pad_id: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64[batch, longest]."""
    input_ids = torch.from_numpy(pad(rows, pad_id)).to(device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    mask = torch.arange(input_ids.shape[1], device=device)[None] < lengths[:, None]
    return input_ids, mask.long()
