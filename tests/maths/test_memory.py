"""Bytes of training, against sums done by hand."""

from __future__ import annotations

import pytest

from engine.maths.memory import Model, choose_zero_stage, needs_checkpointing, states_bytes

GB = 10**9
LLAMA_7B = Model(7 * GB, num_layers=32, width=4096, dtype="bfloat16")
OPT_1B = Model(GB, num_layers=24, width=2048, dtype="bfloat16")
NANO = Model(5_000_000, num_layers=4, width=256, dtype="float32")


@pytest.mark.parametrize(
    ("model", "stage", "world", "expected"),
    [
        (NANO, 0, 1, (4 + 4 + 8) * 5_000_000),
        (NANO, 2, 2, (4 + 2 + 4) * 5_000_000),
        (OPT_1B, 0, 4, (2 + 4 + 12) * GB),
        (OPT_1B, 1, 4, (2 + 4 + 3) * GB),
        (OPT_1B, 2, 4, (2 + 1 + 3) * GB),
        (OPT_1B, 3, 4, 4.5 * GB),
    ],
)
def test_bytes_of_the_states(model: Model, stage: int, world: int, expected: float) -> None:
    assert states_bytes(model, stage, world) == expected


def test_the_lowest_stage_that_fits() -> None:
    assert choose_zero_stage(NANO, 1, 24 * GB) == 0
    assert choose_zero_stage(OPT_1B, 1, 24 * GB) == 1  # float32 masters, on one worker too
    assert choose_zero_stage(OPT_1B, 4, 24 * GB) == 2  # 6 of 24 GB
    assert choose_zero_stage(LLAMA_7B, 4, 80 * GB) == 2  # 42 of 48 GB
    assert choose_zero_stage(LLAMA_7B, 4, 48 * GB) == 3


def test_activations_are_recomputed_only_where_they_do_not_fit() -> None:
    # 34 x 32 layers x 4096 x 16,384 tokens = 73 GB beside 31.5 GB of states
    assert needs_checkpointing(LLAMA_7B, 3, 4, 16_384, 80 * GB)
    assert not needs_checkpointing(LLAMA_7B, 3, 4, 16_384, 141 * GB)
    assert not needs_checkpointing(NANO, 0, 1, 2048, 8 * GB)
