"""Floating-point operations of a transformer, from its shape: what a run costs, and what of the
machine's peak it uses. A multiplication and an addition count as two. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

TRAINING_FACTOR = 3.0
"""A backward pass is two matrix products where the forward pass is one."""
CHECKPOINTED_FACTOR = 4.0
"""With activation checkpointing the forward pass runs twice."""


@dataclass(frozen=True)
class Shape:
    """What decides a transformer's arithmetic. Norms, softmax and biases are below one percent."""

    layer_weights: int
    """Weights of all matrices that every token goes through once, over all layers."""
    head_weights: int
    """Weights of the output head, which only scored positions go through; 0 without one."""
    attention_width: int
    """Query width (heads x head size), summed over the layers."""
    causal: bool
    """A token attends to itself and what is before it; else to the whole row."""

    @classmethod
    def of(cls, model: Any, causal: bool = True) -> Shape:
        """Shape of a loaded transformers model, read off its own matrices.

        So gated MLPs, grouped queries and projections count as what they are. Not for mixtures of
        experts, of whose weights a token meets a few.

        Args:
            model: a `PreTrainedModel`, with a language model's head or without.
            causal: see `causal`.
        """
        head = model.get_output_embeddings() if causal else None
        matrices = (module for module in model.modules() if module is not head)
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(
            layer_weights=sum(_weights(module) for module in matrices),
            head_weights=_weights(head) if head is not None else 0,
            attention_width=config.num_hidden_layers * heads * head_size,
            causal=causal,
        )


def _weights(module: nn.Module) -> int:
    """Weights of a matrix product's module; 0 for any other. Conv1D is GPT-2's linear layer."""
    is_matrix = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    return module.weight.numel() if is_matrix else 0  # type: ignore[union-attr, operator]


def forward_flops(shape: Shape, lengths: npt.NDArray[np.integer], num_scored: int = 0) -> float:
    """FLOPs of one forward pass over some rows.

    Args:
        shape: the model's.
        lengths: int[n], tokens per row, padding left out (or in, for what is really computed).
        num_scored: positions that go through the head.
    """
    tokens = np.asarray(lengths, dtype=np.float64)
    attended = tokens * (tokens + 1) / 2 if shape.causal else tokens**2  # pairs, per row
    products = 2.0 * shape.layer_weights * tokens.sum() + 2.0 * shape.head_weights * num_scored
    # Scores and weighted values: two products of the attention width for each pair.
    return float(products + 4.0 * shape.attention_width * attended.sum())


def training_flops(forward: float, checkpointing: bool = False) -> float:
    """FLOPs of forward and backward pass, from those of the forward pass."""
    return forward * (CHECKPOINTED_FACTOR if checkpointing else TRAINING_FACTOR)
