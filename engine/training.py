"""The fine-tuning loop on one worker: DeepSpeed ZeRO over torch.distributed, without Ray.

What a step is does not depend on how it is computed: its rows are a pure function of (seed, epoch,
ids), its loss is the summed NLL over the scored tokens of the *global* batch. Workers and
micro-batches only regroup the rows inside a step.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import nn

from engine import heartbeat, models, schema
from engine.checkpoints import STEPS_SO_FAR, Checkpoints
from engine.errors import DamagedError, WorkerError
from engine.maths import batching, schedule
from engine.maths.lengths import length_rule
from engine.maths.loss import TokenNLL, padded_batch
from engine.scoring import Way, training_way
from engine.storage import patiently
from engine.training_plan import TrainingPlan, fit_to_memory
from engine.training_rows import TrainingRows
from engine.training_state import load_state, save_state, told_by_rank_0
from engine.zero import deepspeed_config, import_deepspeed, load_no_code

MAX_RELOAD_ERROR = {"float32": 1e-4, "bfloat16": 5e-2}
"""Nats by which the saved model's loss may differ from the trained one's."""

STOP = 2
"""A checkpoint is due (1), and then the end."""


class StoppedEarly(Exception):  # noqa: N818  no error
    """The training has stopped inside an epoch, as it was told to."""


class Trainer:
    """A DeepSpeed engine over one proxy, stepped through epochs."""

    def __init__(self, plan: TrainingPlan, rows: TrainingRows) -> None:
        self.rows = rows
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.lengths = rows.input_ids.lengths
        self.batch_size = plan.config.batch_size or schedule.chosen_batch_size(len(rows.ids))
        models.use_threads(plan.num_threads)
        self.model, self.kept = load_without_dropout(plan)
        self.plan = plan = fit_to_memory(plan, self.model, self.world_size)
        if plan.activation_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        self.way = self._found_way()
        self.length_rule = self.way.rule(length_rule(self.model.config))
        self.engine = self._initialise()

    def _found_way(self) -> Way:
        """How rows keep the loss that they have alone; tried on rank 0, so that all do the same."""
        if self.rank:
            return told_by_rank_0(Way())
        return told_by_rank_0(training_way(self.model, self.rows.input_ids, self.plan.dtype))

    def _initialise(self) -> Any:
        deepspeed = import_deepspeed(self.plan.device)
        config = self.plan.config
        bounds = self.plan.zero_stage != 3
        nll = TokenNLL(self.model, self.way.full_logits, bounds_training=bounds).train()
        optimizer = torch.optim.AdamW(
            nll.parameters(),
            lr=self.plan.learning_rate,
            betas=config.betas,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            fused=True,
        )
        rate = schedule.rate_by_step(
            len(self.rows.ids),
            self.batch_size,
            self.plan.schedule_epochs,
            config.warmup_fraction,
            config.schedule,
        )
        engine, *_ = deepspeed.initialize(
            model=nll,
            optimizer=optimizer,
            lr_scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, rate),
            config=deepspeed_config(self.plan),
        )
        load_no_code(engine)
        return engine

    def epoch(
        self,
        epoch: int,
        on_step: Callable[[int, float], None],
        checkpoints: Checkpoints | None = None,
        say_stop: Callable[[], bool] = lambda: False,
    ) -> pa.Table | None:
        """Train one epoch, from its last checkpoint on where there is one that fits.

        Args:
            epoch: from 1; decides the order of the rows.
            on_step: called on rank 0 with the rows done so far and the step's loss.
            checkpoints: where they are kept; None keeps none.
            say_stop: asked on rank 0 after each step; where it says so, a last checkpoint is kept.

        Returns:
            What each step did (`schema.STEPS`), on rank 0; None elsewhere.

        Raises:
            StoppedEarly: on all ranks, since somebody said stop.
        """
        self.engine.train()
        order = batching.epoch_order(self.rows.ids, self.plan.config.seed, epoch)
        before = self._taken_up(checkpoints)
        first, steps, seen = (len(before) if before is not None else 0), [], []
        saved = time.monotonic()
        done = min(first * self.batch_size, len(order))
        for index, batch in enumerate(batching.steps(order, self.batch_size)):
            if index < first:
                continue
            # Dropout, where there is any, must not depend on where the epoch was taken up.
            torch.manual_seed(_seed(self.plan.config.seed, epoch, index, self.rank))
            learning_rate = float(self.engine.get_lr()[0])
            wants = checkpoints is not None and time.monotonic() - saved >= checkpoints.seconds
            loss, num_tokens, fed, asked = self._step(batch, STOP if say_stop() else int(wants))
            done += len(batch)
            seen.append(fed)
            steps.append([index, loss, learning_rate, self._grad_norm(), num_tokens])
            if not math.isfinite(loss):
                raise WorkerError(
                    f"the loss became {loss} at step {index} of epoch {epoch}: lower "
                    "finetune.learning_rate or set finetune.max_grad_norm"
                )
            if self.rank == 0:
                on_step(done, loss)
            if checkpoints is not None and asked and done < len(order):
                self._keep(checkpoints, index + 1, self._steps_table(steps, seen, before))
                saved = time.monotonic()
            if asked == STOP and done < len(order):
                raise StoppedEarly
        return self._steps_table(steps, seen, before)

    def _step(self, batch: npt.NDArray[np.int64], asked: int) -> tuple[float, int, list[int], int]:
        """One optimizer step: mean loss of the global batch, its scored tokens, own rows fed; and
        whether a checkpoint is due, or even `STOP`, which rank 0 decides for all.
        """
        num_tokens = int(self.rows.scored.lengths[batch].sum())
        own = batching.micro_batches(
            batch,
            self.lengths,
            self.way.budget(self.plan.micro_batch_tokens),
            self.rank,
            self.world_size,
            self.length_rule,
        )
        # The loss, and a checkpoint's being due: one message for both.
        total = torch.zeros(2, dtype=torch.float64, device=self.plan.device)
        total[1] = 0 if self.rank else asked
        fed: list[int] = []
        for micro in own:
            # An empty micro-batch still runs, with weight 0, so that collectives stay in step.
            weight = 1.0 if len(micro) else 0.0
            rows = micro if len(micro) else batch[:1]
            nll = self._nll(self.engine, rows, self.plan.device).sum() * weight
            # DeepSpeed averages over workers; times their number, what remains is a plain sum.
            self.engine.backward(nll * self.world_size / num_tokens)
            total[0] += nll.detach()
            heartbeat.beat()
            fed += self.rows.row[micro].tolist()
        self.engine.step()
        dist.all_reduce(total)
        return float(total[0]) / num_tokens, num_tokens, fed, int(total[1])

    def _nll(self, nll: nn.Module, batch: npt.NDArray[np.int64], device: str) -> torch.Tensor:
        """float32[scored tokens of the batch]"""
        rows, scored = self.rows.input_ids.take(batch), self.rows.scored.take(batch)
        return nll(*padded_batch(rows, scored, device))

    def _grad_norm(self) -> float | None:
        norm = self.engine.get_global_grad_norm()  # unknown to DeepSpeed without ZeRO in float32
        return None if norm is None else float(norm)

    def _steps_table(
        self, steps: list[list[Any]], seen: list[list[int]], before: pa.Table | None
    ) -> pa.Table | None:
        """What each step did, those before the checkpoint included; on rank 0."""
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, seen)
        if self.rank:
            return None
        rows = [sorted(chain.from_iterable(parts)) for parts in zip(*gathered, strict=True)]
        columns = [*zip(*steps, strict=True), rows] if steps else [[] for _ in schema.STEPS]
        table = pa.table(
            [pa.array(list(c), f.type) for c, f in zip(columns, schema.STEPS, strict=True)],
            schema=schema.STEPS,
        )
        return table if before is None else pa.concat_tables([before, table])

    # ── checkpoints inside an epoch ──────────────────────────────────────────────────────────────

    def _taken_up(self, checkpoints: Checkpoints | None) -> pa.Table | None:
        """The steps before the last checkpoint, whose state is loaded; None to begin anew."""
        folder = checkpoints.last() if checkpoints is not None and self.rank == 0 else None
        folder = told_by_rank_0(folder)
        if folder is None:
            return None
        try:
            with heartbeat.while_busy():
                fits = load_state(self.engine, self.plan, folder)
        except DamagedError as error:
            # Half loaded, nothing can go on: the next attempt shall find no such checkpoint. It may
            # be the file of any rank that is damaged, and the others do not know.
            shutil.rmtree(folder, ignore_errors=True)
            raise WorkerError(
                f"{error}\nIt is removed: the same command trains that epoch from its start."
            ) from None
        if not fits:
            return None
        return patiently(lambda: pq.read_table(folder / STEPS_SO_FAR)).cast(schema.STEPS)

    def _keep(self, checkpoints: Checkpoints, num_steps: int, table: pa.Table | None) -> None:
        """Write a checkpoint, whole or not at all; all ranks call this."""
        with heartbeat.while_busy():
            temporary = checkpoints.folder / f".step-{num_steps:08d}"
            if self.rank == 0:
                checkpoints.sweep()
            dist.barrier()
            save_state(self.engine, self.plan, temporary)
            if table is not None:
                pq.write_table(table, temporary / STEPS_SO_FAR)
                checkpoints.publish(temporary)
            dist.barrier()

    # ── keeping the result ───────────────────────────────────────────────────────────────────────

    def save(self, folder: Path) -> None:
        """Write the model as Hugging Face safetensors, from the float32 masters; all ranks call.

        Raises:
            ModelError: what was written does not load back whole.
            WorkerError: it loads back to another loss than the trained model's.
        """
        state = self._float32_weights()
        probe = np.argsort(-self.lengths, kind="stable")[:2]
        trained = self._probe_loss(self.engine, probe, self.plan.device)
        if self.rank == 0:
            self.model.config.update(self.kept)
            with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
                self.model.save_pretrained(folder, state_dict=state)
            del state  # a copy of the weights is enough beside the reloaded one
            # On the CPU: next to a model in training a GPU may have no room for a second one.
            # In the precision trained in: rounding may be worth more than any fault of saving.
            reloaded = models.load_language_model(folder, self.plan.dtype, "cpu")
            nll = TokenNLL(reloaded, self.way.full_logits)
            error = abs(self._probe_loss(nll, probe, "cpu") - trained)
            if not error <= MAX_RELOAD_ERROR[self.plan.dtype]:
                raise WorkerError(
                    f"the saved model's loss is {error:.2g} nats off the trained one's: "
                    f"{folder} is not the model that was trained"
                )
        dist.barrier()

    @torch.no_grad()
    def _probe_loss(self, nll: nn.Module, probe: npt.NDArray[np.int64], device: str) -> float:
        nll.eval()  # DeepSpeed's engine returns nothing here
        return float(self._nll(nll, probe, device).mean())

    def _float32_weights(self) -> dict[str, torch.Tensor]:
        """The float32 weights, tied ones once; gathered on all ranks, kept on rank 0."""
        from deepspeed.utils import safe_get_full_fp32_param

        state: dict[str, torch.Tensor] = {}
        for name, parameter in self.model.named_parameters():
            master = safe_get_full_fp32_param(parameter)  # None where the weight is its own master
            value = parameter.data if master is None else master
            if self.rank == 0:
                state[name] = value.detach().float().cpu().clone()
        persistent = self.model.state_dict().keys()
        buffers = {n: b for n, b in self.model.named_buffers() if n in persistent}
        return {**state, **{n: b.detach().cpu().clone() for n, b in buffers.items()}}


def _seed(*numbers: int) -> int:
    """A seed of its own for each tuple of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def load_without_dropout(plan: TrainingPlan) -> tuple[Any, dict[str, Any]]:
    """The model with the configured dropout, and its own dropout values to restore."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(plan.weights, trust_remote_code=False).to_dict()
    own = {
        key: value
        for key, value in config.items()
        # `layerdrop` is no such probability: it skips whole layers, on each worker other ones.
        if isinstance(value, (int, float)) and ("dropout" in key or key.endswith("pdrop"))
    }
    wanted = dict.fromkeys(own, plan.config.dropout)
    # On the CPU: DeepSpeed casts and shards the model before it puts it onto the device.
    model = models.load_language_model(plan.weights, plan.dtype, "cpu", **wanted)
    return model, own
