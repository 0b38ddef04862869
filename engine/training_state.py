"""What DeepSpeed's engine keeps, so that training can go on from there: optimizer and schedule.

All workers call these functions together.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from engine.errors import DamagedError
from engine.training_plan import TrainingPlan

T = TypeVar("T")
WORLD_FILE = "world.json"
LATEST_FILE = "latest"
"""DeepSpeed's own, in each of its checkpoints."""
SEEN_SECONDS = 60.0


def save_state(engine: Any, plan: TrainingPlan, folder: Path) -> None:
    """Keep what the next epoch, or the next attempt at this one, starts from."""
    engine.save_checkpoint(str(folder))
    if dist.get_rank() == 0:
        (folder / WORLD_FILE).write_text(json.dumps(_world(plan)))
    dist.barrier()


def load_state(engine: Any, plan: TrainingPlan, folder: Path) -> bool:
    """Go on from `save_state`; False where another world left it, whose shards do not fit.

    Raises:
        DamagedError: a file of this worker's is damaged; what is in the engine is of no use then.
    """
    fits = False
    if dist.get_rank() == 0:
        with contextlib.suppress(FileNotFoundError):
            fits = json.loads((folder / WORLD_FILE).read_text()) == _world(plan)
    if not told_by_rank_0(fits):
        return False
    _wait_until_seen(folder / LATEST_FILE)
    loaded, _ = engine.load_checkpoint(str(folder))
    if loaded is None:  # all the others may have theirs
        raise DamagedError(f"{folder} is no whole checkpoint.")
    return True


def told_by_rank_0(said: T) -> T:
    """What rank 0 says: to each worker a shared folder may look different for a moment."""
    told = [said]
    dist.broadcast_object_list(told)
    return told[0]


def _world(plan: TrainingPlan) -> dict[str, Any]:
    """What a DeepSpeed checkpoint is bound to."""
    return {
        "world_size": dist.get_world_size(),
        "zero_stage": plan.zero_stage,
        "dtype": plan.dtype,
    }


def _wait_until_seen(path: Path) -> None:
    """A network file system may show to one node what another has written only after a while."""
    end = time.monotonic() + SEEN_SECONDS
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.5)
