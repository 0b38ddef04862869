"""What one training worker is told, and how it makes the model fit into its memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from engine.config import Config, FinetuneConfig
from engine.maths.memory import Model, choose_zero_stage, needs_checkpointing
from engine.model_source import ModelSource


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, and how: the settings, and the resources of one worker."""

    config: FinetuneConfig
    learning_rate: float
    schedule_epochs: int
    weights: Path
    dtype: str
    device: str
    zero_stage: int | None
    """None to choose by memory; so is `activation_checkpointing`."""
    micro_batch_tokens: int
    activation_checkpointing: bool | None
    num_threads: int


def plan_of(config: Config, proxy: ModelSource, device: str, num_threads: int) -> TrainingPlan:
    """What one training worker needs to know of resolved settings."""
    assert config.finetune.learning_rate is not None, "resolved before a run"
    assert config.finetune.schedule_epochs is not None, "resolved before a run"
    assert config.resources.micro_batch_tokens is not None, "resolved before a run"
    return TrainingPlan(
        config=config.finetune,
        learning_rate=config.finetune.learning_rate,
        schedule_epochs=config.finetune.schedule_epochs,
        weights=proxy.folder(),
        dtype=config.proxy.dtype,
        device=device,
        zero_stage=config.resources.zero_stage,
        micro_batch_tokens=config.resources.micro_batch_tokens,
        activation_checkpointing=config.resources.activation_checkpointing,
        num_threads=num_threads,
    )


def fit_to_memory(plan: TrainingPlan, model: Any, world_size: int) -> TrainingPlan:
    """The plan with ZeRO stage and checkpointing chosen where they were left open.

    All ranks call this, and all go by the smallest memory among them.
    """
    memory = torch.tensor(worker_memory_bytes(plan.device, world_size), dtype=torch.float64)
    memory = memory.to(plan.device)
    dist.all_reduce(memory, dist.ReduceOp.MIN)
    config = model.config.get_text_config()
    size = Model(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_layers=config.num_hidden_layers,
        width=config.hidden_size,
        dtype=plan.dtype,
    )
    stage, checkpointing = plan.zero_stage, plan.activation_checkpointing
    if stage is None:
        stage = choose_zero_stage(size, world_size, float(memory))
    if checkpointing is None:
        checkpointing = needs_checkpointing(
            size, stage, world_size, plan.micro_batch_tokens, float(memory)
        )
    return replace(plan, zero_stage=stage, activation_checkpointing=checkpointing)


def worker_memory_bytes(device: str, world_size: int) -> int:
    """Memory one worker may count on: its GPU's, or its part of this machine's.

    All of it, not what is free just now: the choice must be the same at every start.
    """
    if device == "cuda":
        return torch.cuda.mem_get_info()[1]
    workers_here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return psutil.virtual_memory().total // workers_here
