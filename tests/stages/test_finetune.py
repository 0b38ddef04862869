"""What the training stage says of an epoch too short to teach anything; no Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from handmade import make_step

from engine.config import Config
from engine.errors import ConfigError
from engine.stages import finetune
from engine.step import Step


def epoch_of(folder: Path, epoch: int = 1, **settings: object) -> Step:
    config = Config.from_tree(
        {"proxy": {"name": "hand"}, "finetune": {"schedule_epochs": 3, **settings}}
    )
    return replace(make_step(folder, "finetune", f"6-finetune/epoch-{epoch}", config), epoch=epoch)


def test_an_epoch_at_learning_rate_0_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    paper = {"schedule": "published", "batch_size": 96}
    with pytest.raises(ConfigError) as caught:
        finetune._refuse_rate_0(epoch_of(tmp_path, **paper), 60)
    message = str(caught.value)
    assert (
        "finetune epoch 1 would learn nothing: 60 rows in batches of 96 are 1 optimizer step"
        in (message)
    )
    assert "Use finetune.schedule=nonzero" in message
    assert "(without the setting it would be 8)" in message
    finetune._refuse_rate_0(epoch_of(tmp_path, **paper), 97)  # its second step learns
    finetune._refuse_rate_0(epoch_of(tmp_path, epoch=2, **paper), 60)  # so does the second epoch
    finetune._refuse_rate_0(epoch_of(tmp_path, schedule="published"), 60)
    finetune._refuse_rate_0(epoch_of(tmp_path, batch_size=96), 60)


def test_fewer_steps_than_wanted_are_a_warning(tmp_path: Path) -> None:
    assert finetune._few_steps(3000, steps=32, batch_size=96) == []
    (warning,) = finetune._few_steps(60, steps=8, batch_size=8)
    assert "only 8 optimizer steps of up to 8 rows (32 are wanted)" in warning
    assert "the scores say little" in warning
    assert warning.endswith("More rows give more steps.")
    (warning,) = finetune._few_steps(60, steps=1, batch_size=96)
    assert "only 1 optimizer step of up to 96 rows" in warning
    assert warning.endswith("A smaller finetune.batch_size or more rows give more steps.")


def test_what_decides_the_batches_is_a_setting_of_the_stage(tmp_path: Path) -> None:
    step = epoch_of(tmp_path)
    found = finetune.settings(step.config, step.run, 1)
    assert (found["schedule"], found["batch_size"]) == ("nonzero", None)
    # What is chosen by changes the results as a setting would.
    assert (found["enough_steps"], found["batch_sizes"]) == (32, [96, 64, 32, 16, 8])
    step = epoch_of(tmp_path, batch_size=96)
    found = finetune.settings(step.config, step.run, 1)
    assert found["batch_size"] == 96
    assert found.keys().isdisjoint({"enough_steps", "batch_sizes"})
