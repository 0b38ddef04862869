"""The GPU benchmark's own arithmetic, and that all of it runs (on the CPU, on tiny shapes)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY))  # the benchmarks are no part of the installed package

from benchmarks import harness  # noqa: E402
from benchmarks.gpu import shapes  # noqa: E402
from benchmarks.gpu.__main__ import PARTS, WITHOUT_GPU, main  # noqa: E402
from benchmarks.gpu.scoring import score_rows  # noqa: E402
from benchmarks.gpu.shapes import SHAPES, Shape, alpaca_rows, build  # noqa: E402
from benchmarks.gpu.training import MasterWeights  # noqa: E402
from benchmarks.reference import score_as_published  # noqa: E402
from engine.maths.loss import TokenNLL  # noqa: E402

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ── counts ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "millions"),
    [("OPT-125m", 125.2), ("OPT-350m", 331.2), ("OPT-1.3B", 1315.8), ("Llama-2-7B", 6738.4)],
)
def test_shapes_have_the_published_number_of_weights(name: str, millions: float) -> None:
    shape = next(shape for shape in SHAPES if shape.name == name)
    model = build(shape, "meta", tiny=False)
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.06)


def test_rows_have_alpacas_lengths() -> None:
    rows = alpaca_rows(20_000, vocabulary=50_272)
    assert rows.lengths.mean() == pytest.approx(shapes.MEAN_LENGTH, rel=0.02)
    assert rows.lengths.max() == shapes.LONGEST
    assert rows.num_scored / rows.num_tokens == pytest.approx(0.5, abs=0.01)
    once, again = (alpaca_rows(5, 99).input_ids.values.tolist() for _ in range(2))
    assert once == again


# ── what is timed is right ───────────────────────────────────────────────────────────────────────


@every_shape
def test_both_loops_score_alike(shape: Shape) -> None:
    model = build(shape, "cpu", tiny=True).float()
    rows = alpaca_rows(11, model.config.vocab_size, longest=40)
    found = score_rows(TokenNLL(model), rows, 64, "cpu")
    expected = score_as_published(model, rows.input_ids, rows.scored, pad_id=1)
    assert found == pytest.approx(expected, abs=1e-4)
    assert np.ptp(found) > 0.01  # rows differ, so an order mixed up would show


def test_masters_step_as_float32_adamw_on_the_sum_of_micro_batches() -> None:
    torch.manual_seed(0)
    rounded, plain = torch.nn.Linear(6, 5).bfloat16(), torch.nn.Linear(6, 5)
    plain.load_state_dict(rounded.state_dict())
    weights = MasterWeights(rounded, learning_rate=0.01)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01)
    inputs = torch.randn(3, 4, 6).bfloat16()
    for step in range(3):
        optimizer.zero_grad()
        for micro in inputs:
            (rounded(micro) ** (step + 2)).sum().backward()
            # The same rounded gradients, summed in float32.
            copy = torch.nn.Linear(6, 5).bfloat16()
            copy.load_state_dict(rounded.state_dict())
            (copy(micro) ** (step + 2)).sum().backward()
            for parameter, gradient in zip(plain.parameters(), copy.parameters(), strict=True):
                assert gradient.grad is not None
                total = gradient.grad.float()
                parameter.grad = total if parameter.grad is None else parameter.grad + total
        weights.step()
        optimizer.step()
    for master, weight, parameter in zip(
        weights.masters, weights.weights, plain.parameters(), strict=True
    ):
        torch.testing.assert_close(master, parameter.data, rtol=0, atol=1e-6)
        assert torch.equal(weight, master.bfloat16())


# ── the script ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_everything_runs_on_tiny_shapes_and_no_aim_counts_as_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    assert main(["--tiny"]) == 0
    told = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert told.keys() == {f"gpu-tiny-{part}" for part in PARTS}
    rows = [row for part in told.values() for row in part["rows"]]
    assert {row["reached"] for row in rows} == {None}
    assert {row["aim"] for row in rows} == {""}
    # Each part's matrix product; 4 models scored, 1 trained in two ways; 2 × 2 embeddings; k-means.
    assert len(rows) == 4 + 4 * 3 + 2 * 2 + 2 * 2 + 1
    shares = [row["details"]["utilisation"] for row in rows if "utilisation" in row["details"]]
    assert len(shares) == 4 + 2
    assert all(0 < share < 1 for share in shares)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_gpu_it_says_what_it_would_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == WITHOUT_GPU + "\n"
