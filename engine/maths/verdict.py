"""Whether a training taught the proxy anything, told from numbers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HARDLY = 0.02
"""Nats per scored token: a change of the trained rows' loss below this (2% of perplexity) is
hardly any. The paper's proxies fall by 0.9 to 1.1 in their first epoch over Dolly."""
UNTRAINED_SHARE = 0.5
"""A perplexity above this part of the vocabulary is that of a model that knows nothing: guessing
blindly has the vocabulary's size, and knowing but how frequent each token is lies far below."""

Verdict = Literal["diverged", "nothing", "rose", "hardly", "learnt"]


@dataclass(frozen=True)
class Change:
    """What a training did to some rows: sums, so that those of shards add up."""

    num_rows: int = 0
    num_changed: int = 0
    """Rows whose NLL is another number than before, by a single bit."""
    num_tokens: int = 0
    nll_before: float = 0.0
    """Summed over all scored tokens, nats."""
    nll_after: float = 0.0
    num_lost: int = 0
    """Rows that had a finite number before and have none any more; in no other number here."""

    @classmethod
    def of(cls, before: Floats, after: Floats, num_tokens: npt.NDArray[np.int64]) -> Change:
        """Of rows' summed NLLs before and after, and their scored tokens.

        Rows without a finite number before or after are left out: they would hide the others.

        Args:
            before: float64[n].
            after: float64[n].
            num_tokens: int64[n].
        """
        had = np.isfinite(before)
        there = had & np.isfinite(after)
        num_lost = int(had.sum() - there.sum())
        before, after = before[there], after[there]
        return cls(
            num_rows=len(before),
            num_changed=int((before != after).sum()),
            num_tokens=int(num_tokens[there].sum()),
            nll_before=float(before.sum()),
            nll_after=float(after.sum()),
            num_lost=num_lost,
        )

    def __add__(self, other: Change) -> Change:
        return Change(
            self.num_rows + other.num_rows,
            self.num_changed + other.num_changed,
            self.num_tokens + other.num_tokens,
            self.nll_before + other.nll_before,
            self.nll_after + other.nll_after,
            self.num_lost + other.num_lost,
        )

    @property
    def loss_before(self) -> float:
        """Mean NLL per scored token, nats; NaN without any token."""
        return self.nll_before / self.num_tokens if self.num_tokens else math.nan

    @property
    def loss_after(self) -> float:
        """The same after the training."""
        return self.nll_after / self.num_tokens if self.num_tokens else math.nan


def verdict(trained: Change, others: Change) -> Verdict:
    """What was learnt.

    Args:
        trained: the rows that were trained on.
        others: scored rows that were not (the hold-out).

    Returns:
        ``diverged`` where more trained rows lost their number than kept it; ``nothing`` where no
        row of either kind has another number than before; ``hardly`` where the trained rows' loss
        is what it was, give or take `HARDLY`; ``rose`` where it is higher; else ``learnt``, also
        where no row ever had a number.
    """
    if trained.num_lost > trained.num_rows:
        return "diverged"
    if not trained.num_rows + others.num_rows:
        return "learnt"
    if not trained.num_changed + others.num_changed:
        return "nothing"
    fall = trained.loss_before - trained.loss_after
    if abs(fall) < HARDLY:
        return "hardly"
    return "learnt" if fall > 0 else "rose"


def is_untrained(loss: float, vocabulary: int) -> bool:
    """Whether a model's mean NLL per token (nats) is about that of blind guessing, ``ln V``."""
    return vocabulary > 1 and loss >= math.log(UNTRAINED_SHARE * vocabulary)
