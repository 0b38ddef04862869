"""DeepSpeed as it is used here: imported without compilers, told little, loading no code."""

from __future__ import annotations

import errno
import os
import pickle
from typing import Any

import torch

from engine.errors import DamagedError
from engine.training_plan import TrainingPlan


def deepspeed_config(plan: TrainingPlan) -> dict[str, Any]:
    """DeepSpeed's settings. Accumulation is ours: `step()` is the end of a global batch."""
    return {
        "train_micro_batch_size_per_gpu": 1,  # asked for, and used for nothing but its logs
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "zero_optimization": {"stage": plan.zero_stage},
        "bf16": {"enabled": plan.dtype == "bfloat16"},
        # Summed in bfloat16, micro-batches would not just regroup a step: they would round it.
        "data_types": {"grad_accum_dtype": "fp32"},
        "gradient_clipping": plan.config.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def import_deepspeed(device: str) -> Any:
    """DeepSpeed, kept from compiling anything on CPUs.

    Its shared-memory collective would be built with g++ on first use, and a build that is killed
    leaves a lock on which the next run waits for ever. gloo does the same work.
    """
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops

    if device == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def load_no_code(engine: Any) -> None:
    """Let a DeepSpeed engine load checkpoints of tensors and plain values only.

    Its files are pickles, and its own loader would run whatever stands in them.

    Raises:
        DamagedError: later, when a checkpoint with anything else is loaded.
    """
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    # All that it puts there besides tensors: a number, an enumeration, a pair of numbers.
    plain = [LossScaler, ZeroStageEnum, fragment_address]

    def load(path: str, map_location: Any = None) -> Any:
        try:
            with torch.serialization.safe_globals(plain):
                return torch.load(path, map_location=map_location, weights_only=True)
        except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, OSError) as error:
            if not _is_of_bytes(error):
                raise
            raise DamagedError(
                f"{path} is damaged, or holds more than the numbers of a checkpoint, and is not "
                "loaded."
            ) from None

    engine.checkpoint_engine.load = load


def _is_of_bytes(error: Exception) -> bool:
    """Whether it says that bytes are wrong, and not that a disk or the memory failed."""
    if isinstance(error, OSError):
        return error.errno in (None, errno.EINVAL)  # the latter is what a cut archive gives
    short = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return not short
