"""The fine-tuning loop without Ray: ZeRO stages and worlds agree, and the checkpoint is the model.

Each world is a group of fresh processes, since torch.distributed and DeepSpeed hold global state.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import save_tiny_opt

from engine.models import load_language_model

WORKER = Path(__file__).with_name("train_world.py")


def train(folder: Path, model: Path, world_size: int, *cases: str) -> None:
    """Train each case ``stage:dtype:epochs`` in one world of `world_size` processes."""
    # Builds of DeepSpeed's own operators that were killed; it would wait for each without end.
    for build in ("deepspeed_shm_comm", "cpu_adam", "fused_adam", "utils"):
        lock = folder / "extensions" / build / "lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), str(model), *cases],
            env={
                **os.environ,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "DS_ACCELERATOR": "cpu",
                "TORCH_EXTENSIONS_DIR": str(folder / "extensions"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output[-4000:]


@pytest.fixture(scope="module")
def worlds(tiny_opt: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Losses per step and where the weights lie, by ``world-stage-dtype-epochs``."""
    folder = tmp_path_factory.mktemp("worlds")
    train(folder, tiny_opt, 1, "0:float32:1", "2:float32:1", "3:float32:1")
    train(folder, tiny_opt, 1, "1:bfloat16:1", "2:bfloat16:1")
    train(folder, tiny_opt, 1, "0:float32:2", "2:float32:2", "3:float32:2")
    train(folder, tiny_opt, 1, "0:float32:killed", "2:bfloat16:killed")
    train(folder, tiny_opt, 2, "0:float32:1", "2:float32:1", "3:float32:1", "3:float32:killed")
    return {
        path.stem: {**np.load(path, allow_pickle=False), "weights": path.with_suffix("")}
        for path in folder.glob("*.npz")
    }


def weights(world: dict[str, Any]) -> dict[str, torch.Tensor]:
    state = load_language_model(world["weights"], "float32", "cpu").state_dict()
    # Gradients of key biases are pure rounding (they change no output), which Adam blows up.
    return {name: value for name, value in state.items() if not name.endswith("k_proj.bias")}


@pytest.mark.parametrize(
    "other", ["1-2-float32-1", "1-3-float32-1", "2-0-float32-1", "2-2-float32-1", "2-3-float32-1"]
)
def test_zero_stages_and_worlds_agree(worlds: dict[str, Any], other: str) -> None:
    one, two = worlds["1-0-float32-1"], worlds[other]
    np.testing.assert_allclose(two["loss"], one["loss"], rtol=1e-5)
    for name, weight in weights(one).items():
        torch.testing.assert_close(weights(two)[name], weight, atol=2e-5, rtol=1e-3, msg=name)


def test_what_bfloat16_rounds_away_is_no_other_model(tmp_path: Path) -> None:
    """Large weights: the two precisions of one model are 0.2 nats apart, on the rows compared."""
    loud = save_tiny_opt(tmp_path / "loud", init_std=3.0)
    train(tmp_path, loud, 1, "1:bfloat16:1")
    assert (tmp_path / "1-1-bfloat16-1" / "model.safetensors").exists()


def test_learning_rates_are_those_of_the_schedule(worlds: dict[str, Any]) -> None:
    """Three steps an epoch, two epochs, a peak of 5e-3: the peak at once, then a cosine."""
    parts = 0.5 * (1 + np.cos(np.pi * np.arange(6) / 6))
    for name, world in worlds.items():
        own = parts[3:] if name.endswith("-2") else parts[:3]
        np.testing.assert_allclose(world["learning_rate"], 5e-3 * own, rtol=1e-12, err_msg=name)


def test_loss_falls_and_each_world_sees_the_same_rows(worlds: dict[str, Any]) -> None:
    for name, world in worlds.items():
        assert world["loss"][-1] < world["loss"][0] - 0.05, name
        if name.endswith("-1"):
            np.testing.assert_array_equal(world["rows"], worlds["1-0-float32-1"]["rows"])


def test_the_loss_is_the_mean_over_the_global_batch(worlds: dict[str, Any], tiny_opt: Path) -> None:
    """The first step's loss, worked out by a plain loop over its rows with the untrained model."""
    from train_world import make_rows

    rows = make_rows()
    model = load_language_model(tiny_opt, "float32", "cpu")
    place = {row: index for index, row in enumerate(rows.row.tolist())}
    batch = [place[row] for row in worlds["1-0-float32-1"]["rows"][0].tolist() if row >= 0]
    total = num_tokens = 0.0
    with torch.no_grad():
        for index in batch:
            ids = torch.from_numpy(rows.input_ids[index].astype(np.int64))
            log_probs = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            scored = torch.from_numpy(rows.scored[index].astype(np.int64))
            total -= float(log_probs[scored - 1, ids[scored]].sum())
            num_tokens += len(scored)
    assert worlds["1-0-float32-1"]["loss"][0] == pytest.approx(total / num_tokens, rel=1e-5)


@pytest.mark.parametrize("world", ["1-1-bfloat16-1", "1-2-bfloat16-1"])
def test_bfloat16_keeps_float32_master_weights(worlds: dict[str, Any], world: str) -> None:
    """Weights saved after bfloat16 training are no bfloat16 numbers: updates did not round away."""
    saved = weights(worlds[world])
    rounded = {n: (w.bfloat16().float() == w).float().mean() for n, w in saved.items()}
    assert float(np.mean(list(rounded.values()))) < 0.2
    np.testing.assert_allclose(worlds[world]["loss"], worlds["1-0-float32-1"]["loss"], rtol=0.02)


@pytest.mark.parametrize("world", ["1-0-float32-2", "1-2-float32-2", "1-3-float32-2"])
def test_a_second_epoch_goes_on_from_the_first(worlds: dict[str, Any], world: str) -> None:
    """Saved after one epoch and taken up again, epoch 2 is what it is in one go."""
    np.testing.assert_array_equal(worlds[world]["loss"], worlds[world]["resumed"])


@pytest.mark.parametrize("world", ["1-0-float32", "1-2-bfloat16", "2-3-float32"])
def test_an_epoch_goes_on_from_its_checkpoint(worlds: dict[str, Any], world: str) -> None:
    """Interrupted and taken up by another process, it is what it would have been."""
    whole, killed = worlds[f"{world}-1"], worlds[f"{world}-killed"]
    np.testing.assert_array_equal(killed["loss"], whole["loss"])
    np.testing.assert_array_equal(killed["rows"], whole["rows"])
    np.testing.assert_array_equal(killed["learning_rate"], whole["learning_rate"])
    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(killed)[name], weight, atol=1e-6, rtol=0, msg=name)


def test_dropout_is_off_while_training_and_kept_in_the_config(
    worlds: dict[str, Any], tiny_opt: Path
) -> None:
    from transformers import AutoConfig

    assert AutoConfig.from_pretrained(tiny_opt).dropout == 0.1
    assert AutoConfig.from_pretrained(worlds["1-0-float32-1"]["weights"]).dropout == 0.1
