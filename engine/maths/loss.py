"""Negative log-likelihood of chosen tokens, without logits for the others.

A causal language model is a decoder (tokens → hidden states) and a head (hidden state → logits).
The head's output is far larger than anything else, and only scored positions need it, so the
hidden states of just those positions go through the head, a chunk at a time. Models that do more
between the two (soft caps, scaling) are found out by `split_error` and scored through their own
full logits instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.maths.batching import pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_SPLIT_ERROR = {"float32": 1e-4, "bfloat16": 5e-2}
"""Nats by which decoder + head may differ from the model's own logits before those are used."""
PROBE_ROWS, PROBE_TOKENS = 2, 256

CHUNK_LOGITS = 8 * 2**20
"""Logits per chunk: 32 MB in float32, whatever the vocabulary's size."""


class TokenNLL(nn.Module):
    """NLL of chosen tokens of a padded batch.

    Args:
        model: a causal language model of transformers.
        full_logits: use the model's own logits instead of decoder and head.
    """

    def __init__(self, model: PreTrainedModel, full_logits: bool = False) -> None:
        super().__init__()
        self.model = model
        self.full_logits = full_logits

    def forward(self, input_ids: Tensor, rows: Tensor, positions: Tensor) -> Tensor:
        """NLL of the tokens at ``input_ids[rows, positions]``, each given all tokens before it.

        Args:
            input_ids: int64[batch, length], padded on the right with any token.
            rows: int64[n], row of each scored token.
            positions: int64[n], position of each scored token, at least 1.

        Returns:
            float32[n], nats.
        """
        targets = input_ids[rows, positions]
        if self.full_logits:
            logits = self.model(input_ids=input_ids, use_cache=False).logits
            return _cross_entropy(logits[rows, positions - 1], targets)
        # No attention mask: padding is on the right, where causal attention never looks, and
        # without a mask the fast attention kernels apply.
        decoded: Any = self.model.base_model(input_ids=input_ids, use_cache=False)
        hidden: Tensor = decoded.last_hidden_state[rows, positions - 1]  # [n, width]
        head = cast("nn.Module", self.model.get_output_embeddings())
        if torch.is_grad_enabled():
            return _cross_entropy(head(hidden), targets)
        config: Any = self.model.config
        size = max(1, CHUNK_LOGITS // config.get_text_config().vocab_size)
        chunks = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
        return torch.cat([_cross_entropy(head(h), t) for h, t in chunks])


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """float32[n] from logits [n, vocabulary] of any precision."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def needs_full_logits(
    model: PreTrainedModel, rows: Sequence[npt.NDArray[np.int32]], device: str, dtype: str
) -> bool:
    """Whether decoder + head are not the model, found out on a few rows.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        rows: token ids; the first rows of more than one token are looked at.
        device: where the model lies.
        dtype: its precision; decides how much rounding is allowed.
    """
    probe = [row[:PROBE_TOKENS] for row in rows if len(row) > 1][:PROBE_ROWS]
    if not probe:
        return False
    error = split_error(model, torch.tensor(pad(probe, fill=0), device=device))
    return not error <= MAX_SPLIT_ERROR[dtype]  # NaN is no agreement


@torch.inference_mode()
def split_error(model: PreTrainedModel, input_ids: Tensor) -> float:
    """Largest difference in nats between decoder + head and the model's own logits.

    Args:
        model: a causal language model of transformers.
        input_ids: int64[batch, length], any text.

    Returns:
        Maximum over all positions but the first; infinite where the model cannot be split.
    """
    batch, length = input_ids.shape
    rows = torch.arange(batch, device=input_ids.device).repeat_interleave(length - 1)
    positions = torch.arange(1, length, device=input_ids.device).repeat(batch)
    own = TokenNLL(model, full_logits=True)(input_ids, rows, positions)
    if model.get_output_embeddings() is None:
        return float("inf")
    try:
        split = TokenNLL(model)(input_ids, rows, positions)
    except (AttributeError, RuntimeError):
        return float("inf")
    return float((own - split).abs().max())
