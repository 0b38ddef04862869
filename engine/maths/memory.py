"""What training needs of memory, and which ZeRO stage and checkpointing that calls for."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMIZER_BYTES = 8
"""Adam's two moments, float32, per parameter."""
ACTIVATION_BYTES = {"float32": 68, "bfloat16": 34}
"""Per layer, token and unit of width, without the attention matrix, which no kernel used here keeps
(Korthikanti et al. 2022, equation 2: 34 s b h in 16 bits)."""
STATES_SHARE, TOTAL_SHARE = 0.6, 0.9
"""Part of the memory that the states may take, and the states and activations together: the rest
is for the head's logits, gathered weights and the allocator's gaps."""


@dataclass(frozen=True)
class Model:
    """What counts of a model."""

    num_parameters: int
    num_layers: int
    width: int
    dtype: str
    """Precision of its weights in training: ``float32`` or ``bfloat16``."""


def states_bytes(model: Model, zero_stage: int, world_size: int) -> float:
    """Bytes per worker of weights, gradients, master weights and moments.

    Stage 1 shards the optimizer's (moments, masters), 2 the gradients as well, 3 the weights too.
    Gradients are summed in float32.
    """
    own = model.dtype == "float32"  # such weights are their own masters
    weights, masters = (4, 0) if own else (2, 4)
    kept = [weights, 4, OPTIMIZER_BYTES + masters]  # in the order in which stages 3, 2, 1 cut
    cut = [zero_stage >= 3, zero_stage >= 2, zero_stage >= 1]
    per_parameter = sum(b / world_size if c else b for b, c in zip(kept, cut, strict=True))
    return per_parameter * model.num_parameters


def choose_zero_stage(model: Model, world_size: int, memory_bytes: float) -> int:
    """The lowest ZeRO stage whose states fit: every stage above costs communication.

    bfloat16 starts at 1, since stage 0 keeps no float32 masters and 2e-5 updates round away.
    Several workers start at 2, which costs no more communication than 1.
    """
    if world_size == 1:
        return 0 if model.dtype == "float32" else 1
    fits = states_bytes(model, 2, world_size) <= STATES_SHARE * memory_bytes
    return 2 if fits else 3


def needs_checkpointing(
    model: Model, zero_stage: int, world_size: int, micro_batch_tokens: int, memory_bytes: float
) -> bool:
    """Whether a micro-batch's activations would not fit beside the states."""
    activations = (
        ACTIVATION_BYTES[model.dtype] * model.num_layers * model.width * micro_batch_tokens
    )
    total = states_bytes(model, zero_stage, world_size) + activations
    return total > TOTAL_SHARE * memory_bytes
