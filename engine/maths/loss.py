"""Negative log-likelihood of chosen tokens, without logits for the others.

A causal language model is a decoder (tokens → hidden states) and a head (hidden state → logits).
The head's output is far larger than anything else, and only scored positions need it, so the
hidden states of just those positions go through the head, a chunk at a time. Models that do more
between the two (soft caps, scaling) are found out (`scoring`) and scored through their own full
logits instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint  # pyright: ignore[reportUnknownVariableType]

from engine.maths.lengths import forget_lengths, stretching_modules
from engine.maths.prefix import SharedPrefix
from engine.maths.ragged import Ragged

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_SPLIT_ERROR = {"float32": 1e-4, "bfloat16": 5e-2}
"""Nats by which a short cut may differ from the untouched model before it is left out."""
PROBE_ROWS, PROBE_TOKENS = 2, 256

CHUNK_LOGITS = {"cpu": 2**20, "cuda": 2**26}
"""Logits per chunk, whatever the vocabulary's size: 4 MB in float32 stay near a CPU's cache, 256 MB
are enough rows for a GPU's matrix units."""
MIN_CHUNK_ROWS = 64
KEPT_LOGITS = 2**27
"""Logits of a micro-batch that training keeps for the backward pass: 0.5 GB in float32, and as much
for their gradient. Above, it goes chunk by chunk and computes each chunk's logits twice."""


class TokenNLL(nn.Module):
    """NLL of chosen tokens of a padded batch.

    Args:
        model: a causal language model of transformers.
        full_logits: use the model's own logits instead of decoder and head.
        bounds_training: let a large micro-batch through the head in chunks. Not where weights are
            gathered module call by module call, as ZeRO-3 does: all workers must make the same
            calls.
    """

    def __init__(
        self, model: PreTrainedModel, full_logits: bool = False, bounds_training: bool = True
    ) -> None:
        super().__init__()
        self.model = model
        self.full_logits = full_logits
        self.bounds_training = bounds_training
        self._stretching = stretching_modules(model)

    def forward(
        self,
        input_ids: Tensor,
        rows: Tensor,
        positions: Tensor,
        prefix: SharedPrefix | None = None,
    ) -> Tensor:
        """NLL of the tokens at ``input_ids[rows, positions]``, each given all tokens before it.

        Args:
            input_ids: int64[batch, length], padded on the right with any token.
            rows: int64[n], row of each scored token.
            positions: int64[n], position of each scored token, at least 1.
            prefix: what stands before every row of the batch (`prefix`); the positions count from
                behind it.

        Returns:
            float32[n], nats.
        """
        forget_lengths(self._stretching)
        targets = input_ids[rows, positions]
        if self.full_logits:
            assert prefix is None, "a prefix is shared only by decoder and head"
            logits = self.model(input_ids=input_ids, use_cache=False).logits
            return _cross_entropy(logits[rows, positions - 1], targets)
        decoded = self._decode(input_ids, prefix)
        hidden: Tensor = decoded.last_hidden_state[rows, positions - 1]  # [n, width]
        return self._through_head(hidden, targets)

    def _through_head(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """NLL of the targets, float32[n], without the logits of all n at once."""
        head = cast("nn.Module", self.model.get_output_embeddings())
        config: Any = self.model.config
        vocabulary = config.get_text_config().vocab_size
        kept = torch.is_grad_enabled()  # for the backward pass
        if kept and (len(hidden) * vocabulary <= KEPT_LOGITS or not self.bounds_training):
            return _cross_entropy(head(hidden), targets)

        def work(h: Tensor, t: Tensor) -> Tensor:
            return _cross_entropy(head(h), t)

        def work_twice(h: Tensor, t: Tensor) -> Tensor:
            return cast(
                "Tensor", checkpoint(work, h, t, use_reentrant=False, preserve_rng_state=False)
            )

        most = KEPT_LOGITS if kept else CHUNK_LOGITS.get(hidden.device.type, CHUNK_LOGITS["cpu"])
        size = max(MIN_CHUNK_ROWS, most // vocabulary)
        chunks = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
        return torch.cat([(work_twice if kept else work)(h, t) for h, t in chunks])

    def prefix(self, tokens: Tensor) -> SharedPrefix:
        """Keys and values of tokens that many rows begin with; needs `prefix.share_prefixes`.

        Args:
            tokens: int64[n], the shared tokens.
        """
        shared = SharedPrefix(len(tokens))
        self.model.base_model(input_ids=tokens[None], use_cache=False, shared_prefix=shared)
        shared.filled = True
        return shared

    def _decode(self, input_ids: Tensor, prefix: SharedPrefix | None) -> Any:
        # No attention mask: padding is on the right, where causal attention never looks, and
        # without a mask the fast attention kernels apply.
        if prefix is None:
            return self.model.base_model(input_ids=input_ids, use_cache=False)
        first, length = prefix.num_tokens, input_ids.shape[1]
        positions = torch.arange(first, first + length, device=input_ids.device)
        return self.model.base_model(
            input_ids=input_ids,
            position_ids=positions.expand(len(input_ids), -1),
            use_cache=False,
            shared_prefix=prefix,
        )


def padded_batch(rows: Ragged, scored: Ragged, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """What `TokenNLL` takes of a batch, on the device.

    Args:
        rows: token ids.
        scored: scored positions of each row.
        device: ``cpu`` or ``cuda``.

    Returns:
        Token ids int64[batch, longest], and int64[n] row and position of each scored token.
    """
    which = np.repeat(np.arange(len(rows)), scored.lengths)
    positions = scored.values.astype(np.int64)
    input_ids, row, position = (to_device(a, device) for a in (rows.pad(0), which, positions))
    return input_ids, row, position


def to_device(array: npt.NDArray[np.int64], device: str) -> Tensor:
    """A tensor on the device; on GPUs the copy runs beside what was begun before."""
    tensor = torch.as_tensor(array)
    # From pageable memory the copy would wait until the batch before it is done.
    return tensor if device == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """float32[n] from logits [n, vocabulary] of any precision."""
    return nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def probe_rows(rows: Ragged) -> Ragged:
    """The first rows of more than one token, cut at `PROBE_TOKENS`."""
    found = np.flatnonzero(rows.lengths > 1)[:PROBE_ROWS]
    return Ragged.of([rows[int(row)][:PROBE_TOKENS] for row in found])
