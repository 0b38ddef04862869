"""One epoch of the bundled proxy, against the Hugging Face Trainer as the reference uses it.

Run with ``python -m benchmarks.finetune [--rows N]``. Both arms take the same rows, steps of 96
rows and AdamW in float32; the Trainer reaches a step by 24 micro-batches of 4 rows in shuffled
order.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from benchmarks import rows
from benchmarks.harness import LONG_PAIRS, alternate, publish, ratio
from engine.assets import bundled_proxy
from engine.config import FinetuneConfig
from engine.maths.ragged import Ragged
from engine.resolve import default_batch
from engine.training import Trainer
from engine.training_plan import TrainingPlan
from engine.training_rows import TrainingRows

PAD_ID, IGNORED = 1, -100
STEP_ROWS, MICRO_ROWS = 96, 4


def ours(ids: Ragged, scored: Ragged) -> Any:
    """An epoch of the engine's own loop (DeepSpeed, one worker), as a call."""
    plan = TrainingPlan(
        config=FinetuneConfig(batch_size=STEP_ROWS, warmup_fraction=0),
        learning_rate=bundled_proxy().learning_rate,
        schedule_epochs=1_000_000,
        weights=bundled_proxy().folder,
        dtype="float32",
        device="cpu",
        zero_stage=None,
        micro_batch_tokens=default_batch("micro_batch_tokens", "cpu"),
        activation_checkpointing=None,
        num_threads=torch.get_num_threads(),
    )
    names = [f"{row:032x}" for row in range(len(ids))]
    trainer = Trainer(plan, TrainingRows(names, np.arange(len(ids)), ids, scored))
    return lambda: trainer.epoch(1, lambda done, loss: None)


def theirs(ids: Ragged, scored: Ragged, folder: Path, model: Any) -> Any:
    """An epoch of the Hugging Face Trainer, as a call."""
    from transformers import Trainer as HuggingFaceTrainer
    from transformers import TrainingArguments

    examples = []
    for row in range(len(ids)):
        labels = np.full(len(ids[row]), IGNORED)
        labels[scored[row]] = ids[row][scored[row]]
        examples.append({"input_ids": ids[row].astype(np.int64), "labels": labels})
    settings = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=MICRO_ROWS,
        gradient_accumulation_steps=STEP_ROWS // MICRO_ROWS,
        num_train_epochs=1,
        learning_rate=bundled_proxy().learning_rate,
        lr_scheduler_type="cosine",
        optim="adamw_torch",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=42,
    )

    def epoch() -> None:
        trainer = HuggingFaceTrainer(
            model=model, args=settings, train_dataset=examples, data_collator=_collate
        )
        trainer.train()

    return epoch


def _collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Padded to the longest row, as the reference's collator does."""
    ids = Ragged.of([example["input_ids"] for example in examples])
    labels = Ragged.of([example["labels"] for example in examples])
    padded = torch.from_numpy(ids.pad(PAD_ID))
    return {
        "input_ids": padded,
        "labels": torch.from_numpy(labels.pad(IGNORED)),
        "attention_mask": padded.ne(PAD_ID),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300, help="rows of the pool (default: 300)")
    ids, scored = rows.tokenised(parser.parse_args().rows)
    whole = np.arange(len(ids) // STEP_ROWS * STEP_ROWS)  # whole steps only
    ids, scored = ids.take(whole), scored.take(whole)
    os.environ["DS_ACCELERATOR"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        # The Trainer first: it would take an initialised process group for a distributed run.
        published = theirs(ids, scored, Path(folder) / "trainer", rows.proxy_model())
        published()
        store = dist.FileStore(str(Path(folder) / "store"), 1)
        os.environ["LOCAL_RANK"] = "0"  # DeepSpeed asks for it
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        own = ours(ids, scored)
        own()
        timings = alternate(own, published, LONG_PAIRS, warm_up=False)  # both have run once
        dist.destroy_process_group()
    row = ratio("one epoch", "Hugging Face Trainer", 1.5, timings, len(ids.values), "tokens")
    publish("finetune", [row])


if __name__ == "__main__":
    main()
