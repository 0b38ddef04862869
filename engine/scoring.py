"""Scoring rows of token ids with one model on one device, as fast as that goes. No Ray, no files.

Rows that begin alike share what they begin with (`maths.prefix`). The rest is cut into batches of
rows of similar length under a token budget, longest first. Nothing is done row by row, and nothing
is copied to the host before the last batch is on its way. Whichever of these short cuts changes a
model's values is left out (`Scorer.prepare`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from engine.errors import CAUSAL_ONLY, DEVICE_LOST, ModelError
from engine.maths import batching
from engine.maths.batching import LengthRule
from engine.maths.lengths import length_rule
from engine.maths.loss import TokenNLL, padded_batch, probe_rows, to_device
from engine.maths.prefix import PrefixGroup, SharedPrefix, share_prefixes, shared_prefixes
from engine.maths.ragged import Ragged
from engine.maths.trial import agree, sees_ahead, trial_groups, trial_rows, trial_scored

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SIGHT_TOKENS = 48
"""Length of the row on which causality is tried."""
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


@dataclass(frozen=True)
class Way:
    """How rows go through a model. Each field that is set costs time, or saves some."""

    shares_prefixes: bool = False
    """What many rows begin with is computed once."""
    full_logits: bool = False
    """The model's own logits at all positions, in place of decoder and head."""
    equal_lengths: bool = False
    """No padding: only rows of one length share a batch."""
    alone: bool = False
    """Each row is a batch."""

    def rule(self, own: LengthRule) -> LengthRule:
        """Which rows share a batch, of a model that has a rule of its `own`."""
        return LengthRule(equal_above=0) if self.equal_lengths else own

    def budget(self, num_tokens: int) -> int:
        """Padded tokens of a batch, where there would be room for `num_tokens`."""
        return 1 if self.alone else num_tokens


WAYS = (
    Way(shares_prefixes=True),
    Way(),
    Way(full_logits=True),
    Way(equal_lengths=True),
    Way(full_logits=True, equal_lengths=True),
    Way(full_logits=True, alone=True),
)
"""From the fastest to the most careful, which is the untouched model itself."""
TRAINING_WAYS = tuple(way for way in WAYS if not way.shares_prefixes)
"""A prefix that was computed once has no gradient from the rows behind it."""
BREAKS = (
    AttributeError,
    RuntimeError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AssertionError,
)
"""What a model may raise over a row, or over a short cut that it does not know."""


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
        self.rule = length_rule(nll.model.config)
        self.way = Way(full_logits=nll.full_logits)

    def take(self, way: Way) -> None:
        """Score in this way from now on."""
        self.way = way
        self.nll.full_logits = way.full_logits

    def prepare(self, probe: Ragged, ways: Sequence[Way] = WAYS) -> None:
        """Find out on a few rows which short cuts leave this model's values as they are.

        Whole rows are scored as `__call__` would, in padded batches and behind a prefix, and
        compared with each row alone through the untouched model. The fastest way that agrees is
        taken; the most careful one where the rows have no finite values.

        Args:
            probe: rows of token ids.
            ways: those that can be taken, the fastest first.

        Raises:
            ModelError: the model sees the tokens it is asked for, or no way agrees.
        """
        rows = probe_rows(probe)
        if not len(rows):
            return
        self.refuse_sight(rows)
        rows = trial_rows(rows)
        own, self.batch_tokens = self.batch_tokens, max(self.batch_tokens, rows.pad(0).size)
        try:
            self._choose(rows, ways)
        finally:
            self.batch_tokens = own

    def _choose(self, rows: Ragged, ways: Sequence[Way]) -> None:
        """Take the first way that agrees on the `trial_rows`, which fit into one batch."""
        whole = [PrefixGroup(np.arange(len(rows)), 0)]
        scored = trial_scored(rows, whole)
        self.take(WAYS[-1])
        expected, _ = self._nlls(rows, scored, whole, Counts())
        if not np.isfinite(expected).all():
            return  # nothing can be compared
        for way in ways:
            groups = trial_groups(rows) if way.shares_prefixes else whole
            if groups is not None and self._agrees(way, rows, groups, (scored, expected)):
                return
        raise ModelError(
            f"{named(self.nll.model)} gives other values each time it is asked, so it cannot be "
            "scored. Choose another proxy."
        )

    def refuse_sight(self, rows: Ragged) -> None:
        """Raises ModelError where earlier tokens are judged with later ones in sight."""
        row = rows[int(rows.lengths.argmax())][:SIGHT_TOKENS].astype(np.int64)
        if sees_ahead(self.nll.model, to_device(row, self.device)):
            raise ModelError(
                f"{named(self.nll.model)} judges a token with later ones in sight: earlier values "
                f"changed with the last token.\n{CAUSAL_ONLY}"
            )

    def _agrees(
        self, way: Way, rows: Ragged, groups: list[PrefixGroup], known: tuple[Ragged, Floats]
    ) -> bool:
        """Whether a way's values are the `known` ones (positions, NLLs); it is taken."""
        self.take(way)
        scored = trial_scored(rows, groups)
        positions, expected = known
        # Of each row only the last ones are scored behind a prefix.
        behind = np.concatenate([np.isin(positions[i], scored[i]) for i in range(len(rows))])
        try:
            found, _ = self._nlls(rows, scored, groups, Counts())
        except BREAKS as error:
            if DEVICE_LOST in str(error):
                raise
            return False
        return agree(found, expected[behind], self.dtype, scored.lengths)

    def __call__(self, rows: Ragged, scored: Ragged) -> Scores:
        """Score every row.

        Args:
            rows: token ids.
            scored: scored positions of each row, ascending, at least one, none of them 0.
        """
        counts = Counts()
        nll, ends = self._nlls(rows, scored, self._groups(rows, scored), counts)
        if not len(ends):
            return Scores(np.zeros(0), np.zeros(0), counts)
        return Scores(np.add.reduceat(nll, scored.offsets[:-1]), nll[ends - 1], counts)

    @torch.inference_mode()
    def _nlls(
        self, rows: Ragged, scored: Ragged, groups: list[PrefixGroup], counts: Counts
    ) -> tuple[Floats, Ints]:
        """NLL of every scored token, float64, row by row; and where each row ends in that."""
        order: list[Ints] = []
        results: list[torch.Tensor] = []
        budget, rule = self.way.budget(self.batch_tokens), self.way.rule(self.rule)
        shares = any(group.num_tokens for group in groups)
        with share_prefixes(self.nll.model) if shares else nullcontext(True) as possible:
            assert possible, "a prefix is shared only by models of plain causal attention"
            for group in groups:
                prefix, group_rows, positions = self._behind_prefix(group, rows, scored, counts)
                # Attention sees the prefix in every row, so the budget counts it as well.
                lengths = group_rows.lengths + group.num_tokens
                for batch in batching.length_sorted_batches(lengths, budget, rule):
                    order.append(group.rows[batch])
                    part = group_rows.take(batch), positions.take(batch)
                    results += self._batch(*part, prefix, counts)
        return _in_row_order(order, results, scored), scored.offsets[1:]

    def _groups(self, rows: Ragged, scored: Ragged) -> list[PrefixGroup]:
        if not self.way.shares_prefixes:
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


def training_way(model: PreTrainedModel, rows: Ragged, dtype: str) -> Way:
    """How a model's rows are to be trained on so that each has the loss it has alone.

    Args:
        model: a language model of transformers in evaluation mode, on the CPU.
        rows: token ids; the first of them are tried.
        dtype: the model's precision.

    Raises:
        ModelError: see `Scorer.prepare`.
    """
    scorer = Scorer(TokenNLL(model), "cpu", dtype, batch_tokens=1)
    scorer.prepare(rows, TRAINING_WAYS)
    return scorer.way


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: CUDA has an exception of its own, all others a text."""
    told = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in told)


def named(model: PreTrainedModel) -> str:
    """A model's class and where it was loaded from."""
    path = str(getattr(model.config, "name_or_path", "") or "")
    return f"{type(model).__name__} ({path})" if path else type(model).__name__


def _in_row_order(order: list[Ints], results: list[torch.Tensor], scored: Ragged) -> Floats:
    """The batches' NLLs, row by row, with the one copy from the device to the host."""
    nlls = np.zeros(len(scored.values))
    if order:
        rows = np.concatenate(order)
        lengths = scored.lengths[rows]
        shift = np.repeat(scored.offsets[:-1][rows] - (np.cumsum(lengths) - lengths), lengths)
        nlls[np.arange(len(shift)) + shift] = torch.cat(results).cpu().numpy()
    return nlls
