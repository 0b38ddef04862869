"""Training: forward, backward and AdamW with float32 masters, as ZeRO does them on one GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import harness
from benchmarks.gpu import shapes
from benchmarks.gpu.ground import Ground, Work, gigabytes
from benchmarks.gpu.shapes import Rows, Shape
from benchmarks.harness import Row
from engine.maths import flops
from engine.maths.batching import length_sorted_batches
from engine.maths.loss import TokenNLL, padded_batch

BUDGETS, BUDGET = (4_096, 8_192, 16_384, 32_768), 16_384
"""Padded tokens per micro-batch: what `--sweep` tries, and what is measured without it. A step has
about 11,600 tokens, so larger micro-batches than these hold nothing more."""
STEP_ROWS, NUM_STEPS = 96, 8
"""The published global batch, and steps per timed run."""


def measure(ground: Ground, chosen: Sequence[Shape], peak: float) -> list[Row]:
    """Every shape that is aimed at, without and with activation checkpointing."""
    return [
        row
        for shape in chosen
        if shape.training_aim
        for checkpointing in (False, True)
        for row in _measure_one(ground, shape, checkpointing, peak)
    ]


def _measure_one(ground: Ground, shape: Shape, checkpointing: bool, peak: float) -> list[Row]:
    ground.release()
    model = shapes.build(shape, ground.device, ground.tiny).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    rows = ground.rows(shape, model.config.vocab_size).first(STEP_ROWS * NUM_STEPS)
    nll, weights = TokenNLL(model), MasterWeights(model, learning_rate=1e-5)
    taken: dict[int, int | None] = {}

    def steps(budget: int) -> None:
        arm = partial(train_steps, nll, weights, rows, budget, ground.device)
        taken[budget] = ground.peak_bytes(arm)

    seconds = ground.at_budgets(steps, ground.budgets(BUDGETS, BUDGET))
    # What checkpointing computes again is no use.
    forward = flops.forward_flops(flops.Shape.of(model), rows.lengths, rows.num_scored)
    what = f"training {shape.name}" + (", activation checkpointing" if checkpointing else "")
    aim = None if checkpointing else shape.training_aim
    measured = Work(what, rows.num_tokens, flops.training_flops(forward)).rows(seconds, peak, aim)
    value = ", ".join(f"{gigabytes(taken[b])} at {b:,} tokens" for b in seconds)
    memory = harness.limit(f"memory above weights and states, {what}", "", value, None, bytes=taken)
    return [*measured, memory]


class MasterWeights:
    """AdamW on float32 masters of bfloat16 weights; micro-batches are summed in float32."""

    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        self.weights = list(model.parameters())
        self.masters = [w.detach().to(torch.float32, copy=True) for w in self.weights]
        for weight, master in zip(self.weights, self.masters, strict=True):
            master.grad = torch.zeros_like(master)
            weight.register_post_accumulate_grad_hook(partial(_move_gradient, master.grad))
        self.optimizer = torch.optim.AdamW(self.masters, lr=learning_rate, fused=True)

    @torch.no_grad()
    def step(self) -> None:
        """Update the masters, round them into the weights, and forget the gradients."""
        self.optimizer.step()
        for weight, master in zip(self.weights, self.masters, strict=True):
            weight.copy_(master)
        self.optimizer.zero_grad(set_to_none=False)  # the hooks hold on to these very tensors


def _move_gradient(total: Tensor, weight: Tensor) -> None:
    assert weight.grad is not None
    total.add_(weight.grad)
    weight.grad = None


def train_steps(
    nll: TokenNLL, weights: MasterWeights, rows: Rows, budget: int, device: str
) -> list[float]:
    """One pass over the rows, a step for every `STEP_ROWS`; the mean NLL of each step."""
    losses: list[Tensor] = []
    for start in range(0, len(rows.input_ids), STEP_ROWS):
        step = rows.part(start, start + STEP_ROWS)
        total = torch.zeros((), device=device)
        for micro in length_sorted_batches(step.lengths, budget):
            batch = step.input_ids.take(micro), step.scored.take(micro)
            loss = nll(*padded_batch(*batch, device)).sum() / step.num_scored
            loss.backward()
            total += loss.detach()
        weights.step()
        losses.append(total)
    return torch.stack(losses).tolist()
