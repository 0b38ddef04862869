"""What is said of a proxy and of an epoch, from run directories written by hand."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from handmade import commit_run, make_step

from engine import models, sanity
from engine.assets import bundled_proxy
from engine.config import Config
from engine.errors import NothingLearntError
from engine.models import ModelSource
from engine.rundir import Record, RunDir
from engine.step import Step

NUM_TOKENS = [10, 20, 30, None]
FLAGS = ["ok", "ok", "ok", "duplicate"]
SPLITS = ["train", "train", "holdout", "train"]


def measured(
    folder: Path, *sums: Sequence[float | None], epoch: int = 1, model: str = "bundled"
) -> Step:
    """The perplexity step of an epoch: 10 and 20 tokens trained on, 30 held out; two shards."""
    config = Config.from_tree(
        {
            "proxy": {"name": "hand", "model": model},
            "finetune": {"num_epochs": max(1, len(sums) - 1), "learning_rate": 2e-5},
        }
    )
    step = make_step(folder, "perplexity", f"5-perplexity/epoch-{epoch}", config)
    for number, (first, last) in enumerate(((0, 2), (2, 4))):
        part = slice(first, last)
        commit_run(
            step,
            f"part-{number:05d}.parquet",
            first,
            ["a", "b", "c", "d"][part],
            [None] * (last - first),
            [values[part] for values in sums],
            NUM_TOKENS[part],
            FLAGS[part],
            SPLITS[part],
        )
    return replace(step, epoch=epoch, fingerprint=step.inputs[step.folder])


def test_an_epoch_that_taught_something_has_no_warning(tmp_path: Path) -> None:
    step = measured(tmp_path, [30.0, 60.0, 90.0, None], [20.0, 40.0, 96.0, None])
    assert sanity.of_epoch(step) == (
        [],
        {
            "trained_rows": 2,
            "trained_rows_lost": 0,
            "trained_loss_before": 3.0,
            "trained_loss_after": 2.0,
            "held_out_rows": 1,
            "held_out_rows_lost": 0,
            "held_out_loss_before": 3.0,
            "held_out_loss_after": 3.2,
        },
    )


def test_trained_rows_decide_and_held_out_ones_do_not(tmp_path: Path) -> None:
    step = measured(tmp_path, [30.0, 60.0, 90.0, None], [30.0, 61.5, 30.0, None])
    (warning,), _ = sanity.of_epoch(step)
    assert "trained on rose in epoch 1 (3 → 3.05 nats per token)" in warning
    assert "finetune.learning_rate (now 2e-05) that is too high" in warning


def test_a_small_change_is_named_with_its_size(tmp_path: Path) -> None:
    step = measured(tmp_path, [30.0, 60.0, 90.0, None], [30.0, 59.7, 90.0, None])
    (warning,), _ = sanity.of_epoch(step)
    assert "hardly changed in epoch 1 (3 → 2.99 nats per token)" in warning


def test_an_epoch_is_held_against_the_one_before_it(tmp_path: Path) -> None:
    sums = [30.0, 60.0, 90.0, None], [20.0, 40.0, 90.0, None], [24.0, 45.0, 90.0, None]
    step = measured(tmp_path, *sums, epoch=2)
    (warning,), losses = sanity.of_epoch(step)
    assert "trained on rose in epoch 2 (2 → 2.3 nats per token)" in warning
    assert losses["trained_loss_before"] == 2.0


def test_an_epoch_that_changed_no_row_by_a_bit_is_an_error(tmp_path: Path) -> None:
    same = [30.0, 60.0, 90.0, None]
    with pytest.raises(NothingLearntError) as caught:
        sanity.of_epoch(measured(tmp_path, same, same))
    message = str(caught.value)
    assert "nothing was learnt in epoch 1: each of the 3 scored rows" in message
    assert "Raise finetune.learning_rate (now 2e-05)" in message
    assert "--rebuild finetune" in message


def test_an_epoch_after_which_rows_have_no_number_is_an_error(tmp_path: Path) -> None:
    step = measured(tmp_path, [30.0, 60.0, 90.0, None], [math.nan, math.inf, math.nan, None])
    with pytest.raises(NothingLearntError, match="diverged in epoch 1: 2 of 2 rows") as caught:
        sanity.of_epoch(step)
    assert "Lower finetune.learning_rate (now 2e-05)" in str(caught.value)


def test_rows_that_lost_their_number_are_told_where_others_learnt(tmp_path: Path) -> None:
    step = measured(tmp_path, [30.0, 60.0, 90.0, None], [math.inf, 40.0, 84.0, None])
    (warning,), losses = sanity.of_epoch(step)
    assert losses["trained_rows"] == losses["trained_rows_lost"] == 1
    assert losses["held_out_rows_lost"] == 0
    assert "epoch 1 left 1 of 3 rows without a finite perplexity, 1 of them rows trained" in warning
    assert "Lower finetune.learning_rate (now 2e-05)" in warning
    step = measured(tmp_path / "rose", [30.0, 60.0, 90.0, None], [31.0, 63.0, math.nan, None])
    (lost, rose), losses = sanity.of_epoch(step)
    assert "left 1 of 3 rows without a finite perplexity, 0 of them rows trained on" in lost
    assert "trained on rose" in rose


# ── the proxy before training ────────────────────────────────────────────────────────────────────


def guessing(perplexity: float) -> list[float | None]:
    """Sums of rows that all have this perplexity."""
    return [None if n is None else n * math.log(perplexity) for n in NUM_TOKENS]


def test_the_demonstration_proxy_is_named_wherever_it_lies(tmp_path: Path, tiny_opt: Path) -> None:
    copy = tmp_path / "mine"
    shutil.copytree(bundled_proxy().folder, copy)
    run = RunDir(tmp_path / "run")
    for model in ("bundled", str(copy)):
        (note,) = models.notes_of(ModelSource("proxy.model", model), run)
        assert "not for selections that one trains on" in note
        step = measured(tmp_path / "run", guessing(200), epoch=0, model=model)
        assert sanity.of_proxy(step) == [note]
    assert models.notes_of(ModelSource("proxy.model", str(tiny_opt)), run) == []
    hub = ModelSource("proxy.model", "somebody/model", "0" * 40)
    assert models.notes_of(hub, run) == []


@pytest.mark.parametrize(("perplexity", "untrained"), [(9000, True), (4100, True), (4000, False)])
def test_a_proxy_that_guesses_blindly_is_named(
    tmp_path: Path, tiny_opt: Path, perplexity: float, untrained: bool
) -> None:
    step = measured(tmp_path, guessing(perplexity), epoch=0, model=str(tiny_opt))
    warnings = sanity.of_proxy(step)
    assert len(warnings) == untrained
    if untrained:
        assert f"perplexity on this pool is {perplexity:,}" in warnings[0]
        assert "among its 8,192 tokens" in warnings[0]


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"vocab_size": 50272}, 50272),
        ({"text_config": {"vocab_size": 262144}}, 262144),
        ({"model_type": "odd"}, 0),
        ({"model_type": "odd", "text_config": None}, 0),
        ({"vocab_size": None, "text_config": {"vocab_size": 9}}, 9),
    ],
)
def test_the_vocabulary_is_read_from_the_configuration(
    tmp_path: Path, tiny_opt: Path, config: dict[str, object], size: int
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_opt, folder)
    (folder / "config.json").write_text(json.dumps(config))
    assert models.vocabulary_size(ModelSource("proxy.model", str(folder))) == size


def test_cautions_are_those_of_measuring_and_training_each_once() -> None:
    def record(stage: str, *warnings: str) -> Record:
        numbers = {"rows_in": 1, "rows_out": 1, "seconds": 0, "peak_memory_bytes": 0, "workers": 1}
        nothing = {"settings": {}, "inputs": {}, "flags": {}, "details": {}, "versions": {}}
        return Record.model_validate(
            {"stage": stage, "fingerprint": "", "files": {}, "commit": None, "finished": ""}
            | numbers
            | nothing
            | {"warnings": warnings}
        )

    records = [record("pool", "keys"), record("perplexity", "small"), record("finetune", "few")]
    assert sanity.cautions([*records, record("finetune", "few")]) == ["small", "few"]
