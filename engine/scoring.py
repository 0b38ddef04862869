"""Scoring rows of token ids with one model on one device, as fast as that goes. No Ray, no files.

Rows that begin alike share what they begin with (`maths.prefix`). The rest is cut into batches of
rows of similar length under a token budget, longest first. Nothing is done row by row, and nothing
is copied to the host before the last batch is on its way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.maths import batching
from engine.maths.loss import (
    MAX_SPLIT_ERROR,
    TokenNLL,
    needs_full_logits,
    padded_batch,
    prefix_error,
    probe_rows,
    to_device,
)
from engine.maths.prefix import PrefixGroup, SharedPrefix, share_prefixes, shared_prefixes
from engine.maths.ragged import Ragged

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Counts:
    """What scoring some rows took."""

    computed_tokens: int = 0
    """Tokens that went through the decoder, padding and prefixes included."""
    shared_tokens: int = 0
    """Tokens that did not, because another row's were used."""
    head_rows: int = 0
    """Hidden states that went through the head."""
    halved_batches: int = 0
    """Batches that did not fit into memory and were done in two halves."""


@dataclass(frozen=True)
class Scores:
    """NLL of n rows, in row order."""

    nll_sum: Floats
    """float64[n]: over the row's scored tokens, nats."""
    nll_last: Floats
    """float64[n]: of its last scored token."""
    counts: Counts


class Scorer:
    """A model, and the batches it is given.

    Args:
        nll: the model.
        device: where it lies.
        dtype: its precision.
        batch_tokens: padded tokens per batch.
    """

    def __init__(self, nll: TokenNLL, device: str, dtype: str, batch_tokens: int) -> None:
        self.nll, self.device, self.dtype = nll, device, dtype
        self.batch_tokens = batch_tokens
        self.shares_prefixes = False

    def prepare(self, probe: Ragged) -> None:
        """Find out on a few rows which short cuts leave this model's values as they are."""
        self.nll.full_logits = needs_full_logits(self.nll.model, probe, self.device, self.dtype)
        rows = probe_rows(probe)
        if self.nll.full_logits or not len(rows) or rows.lengths.max() < 4:
            return
        with share_prefixes(self.nll.model) as possible:
            longest = rows[int(rows.lengths.argmax())].astype(np.int64)
            tokens = to_device(longest, self.device)
            allowed = MAX_SPLIT_ERROR[self.dtype]
            self.shares_prefixes = possible and prefix_error(self.nll, tokens) <= allowed

    @torch.inference_mode()
    def __call__(self, rows: Ragged, scored: Ragged) -> Scores:
        """Score every row.

        Args:
            rows: token ids.
            scored: scored positions of each row, ascending, at least one, none of them 0.
        """
        counts = Counts()
        order: list[Ints] = []
        results: list[torch.Tensor] = []
        with share_prefixes(self.nll.model):
            for group in self._groups(rows, scored):
                prefix, group_rows, positions = self._behind_prefix(group, rows, scored, counts)
                # Attention sees the prefix in every row, so the budget counts it as well.
                lengths = group_rows.lengths + group.num_tokens
                for batch in batching.length_sorted_batches(lengths, self.batch_tokens):
                    order.append(group.rows[batch])
                    part = group_rows.take(batch), positions.take(batch)
                    results += self._batch(*part, prefix, counts)
        return _collect(order, results, scored, counts)

    def _groups(self, rows: Ragged, scored: Ragged) -> list[PrefixGroup]:
        if not self.shares_prefixes:
            return [PrefixGroup(np.arange(len(rows)), 0)]
        # The hidden state before the first scored token must be the row's own.
        return shared_prefixes(rows, scored.values[scored.offsets[:-1]] - 1)

    def _behind_prefix(
        self, group: PrefixGroup, rows: Ragged, scored: Ragged, counts: Counts
    ) -> tuple[SharedPrefix | None, Ragged, Ragged]:
        """A group's prefix, what is left of its rows behind it, and the positions in that."""
        if len(group.rows) < len(rows):
            rows, scored = rows.take(group.rows), scored.take(group.rows)
        if not group.num_tokens:
            return None, rows, scored
        first = rows[0][: group.num_tokens].astype(np.int64)
        counts.computed_tokens += group.num_tokens
        counts.shared_tokens += group.num_tokens * (len(rows) - 1)
        positions = Ragged(scored.values - np.int32(group.num_tokens), scored.offsets)
        prefix = self.nll.prefix(to_device(first, self.device))
        return prefix, rows.drop_first(group.num_tokens), positions

    def _batch(
        self, rows: Ragged, positions: Ragged, prefix: SharedPrefix | None, counts: Counts
    ) -> list[torch.Tensor]:
        """NLLs of a batch's scored tokens, on the device; in halves where memory is too small."""
        try:
            input_ids, row, position = padded_batch(rows, positions, self.device)
            nll = self.nll(input_ids, row, position, prefix)
        except RuntimeError as error:
            if len(rows) == 1 or not is_out_of_memory(error):
                raise
            nll = None  # what the failed batch holds must be gone before its halves begin
        if nll is None:
            if self.device == "cuda":
                torch.cuda.empty_cache()
            counts.halved_batches += 1
            halves = np.array_split(np.arange(len(rows)), 2)
            return [
                nll
                for half in halves
                for nll in self._batch(rows.take(half), positions.take(half), prefix, counts)
            ]
        padded = len(rows) * int(rows.lengths.max())
        counts.computed_tokens += padded
        counts.head_rows += len(positions.values) if not self.nll.full_logits else padded
        return [nll]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: CUDA has an exception of its own, all others a text."""
    told = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in told)


def _collect(
    order: list[Ints], results: list[torch.Tensor], scored: Ragged, counts: Counts
) -> Scores:
    """Sum up each row's NLLs, with the one copy from the device to the host."""
    nll_sum, nll_last = np.zeros(len(scored)), np.zeros(len(scored))
    if order:
        rows = np.concatenate(order)
        nll = torch.cat(results).cpu().numpy().astype(np.float64)
        ends = np.cumsum(scored.lengths[rows])
        nll_sum[rows] = np.add.reduceat(nll, ends - scored.lengths[rows])
        nll_last[rows] = nll[ends - 1]
    return Scores(nll_sum, nll_last, counts)
