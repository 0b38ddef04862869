"""A CUDA device computes what the CPU does. Run with ``pytest -m gpu tests/gpu``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedModel

from engine.maths.batching import length_sorted_batches
from engine.maths.loss import MAX_SPLIT_ERROR, TokenNLL
from engine.maths.ragged import Ragged
from engine.scoring import Scorer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

VOCABULARY, LONGEST = 503, 96
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "OPT": lambda: OPTForCausalLM(
        OPTConfig(
            **SHAPE, num_attention_heads=4, ffn_dim=128, word_embed_proj_dim=64, dropout=0.0,
            init_std=0.1,
        )
    ),
    "OPT projected": lambda: OPTForCausalLM(
        OPTConfig(
            **SHAPE, num_attention_heads=4, ffn_dim=128, word_embed_proj_dim=32, dropout=0.0,
            do_layer_norm_before=False, init_std=0.1,
        )
    ),
    "Llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SHAPE, num_attention_heads=4, num_key_value_heads=2, intermediate_size=176,
            initializer_range=0.1,
        )
    ),
}  # fmt: skip
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
"""Nats per token by which CUDA may differ from float32 on the CPU."""

every_model = pytest.mark.parametrize("name", MODELS)
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE)


def model_of(name: str, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """The same weights each time, those of bfloat16 rounded."""
    torch.manual_seed(0)
    model: torch.nn.Module = MODELS[name]().eval()
    return model.to(device, getattr(torch, dtype))  # pyright: ignore[reportReturnType]


def rows() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, LONGEST, 17)
    return [generator.integers(0, VOCABULARY, n, dtype=np.int32) for n in lengths]


def batch_of(ids: list[np.ndarray], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Padded ids, and row and position of all tokens but the first third of each row."""
    scored = [np.arange(max(1, len(row) // 3), len(row)) for row in ids]
    index = np.repeat(np.arange(len(ids)), [len(places) for places in scored])
    arrays = (Ragged.of(ids).pad(0), index, np.concatenate(scored))
    first, second, third = (torch.from_numpy(array).to(device) for array in arrays)
    return first, second, third


@torch.inference_mode()
def scores(model: PreTrainedModel, budget: int, device: str, full_logits: bool = False) -> Tensor:
    """float32[scored tokens], in the order of `length_sorted_batches`."""
    ids, nll = rows(), TokenNLL(model, full_logits)
    batches = length_sorted_batches(np.array([len(row) for row in ids]), budget)
    return torch.cat([nll(*batch_of([ids[i] for i in b], device)).cpu() for b in batches])


@every_model
@every_dtype
def test_scores_are_the_cpus(name: str, dtype: str) -> None:
    expected = scores(model_of(name), 256, "cpu")
    found = scores(model_of(name, dtype, "cuda"), 256, "cuda")
    assert expected.std() > 0.1  # tokens differ, so an order mixed up would show
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype])


@every_model
@every_dtype
def test_batches_do_not_change_scores(name: str, dtype: str) -> None:
    model = model_of(name, dtype, "cuda")
    alone, together = (scores(model, budget, "cuda") for budget in (1, 10**6))
    torch.testing.assert_close(together, alone, rtol=0, atol=TOLERANCE[dtype])


@every_model
@every_dtype
def test_decoder_and_head_are_the_models_own_logits(name: str, dtype: str) -> None:
    model = model_of(name, dtype, "cuda")
    split, full = (scores(model, 512, "cuda", own) for own in (False, True))
    torch.testing.assert_close(split, full, rtol=0, atol=MAX_SPLIT_ERROR[dtype])
    scorer = Scorer(TokenNLL(model), "cuda", dtype, 512)
    scorer.prepare(Ragged.of(rows()))
    assert not scorer.way.full_logits


def train(model: PreTrainedModel, device: str) -> list[float]:
    """Five steps of AdamW on one batch, fused where it is a GPU's; the mean NLL at each."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=device == "cuda")
    nll, batch = TokenNLL(model).train(), batch_of(rows(), device)
    losses: list[float] = []
    for _ in range(5):
        loss = nll(*batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@every_model
def test_training_steps_are_the_cpus_and_learn(name: str) -> None:
    expected = train(model_of(name), "cpu")
    found = train(model_of(name, device="cuda"), "cuda")
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0] - 0.1
    assert found == pytest.approx(expected, abs=1e-3)


def test_kmeans_on_the_gpu_is_as_good_as_on_the_cpu() -> None:
    """In a process of its own, as in the pipeline: faiss and torch bring two OpenMP runtimes."""
    program = """
import sys
import faiss
if not hasattr(faiss, "StandardGpuResources"):
    sys.exit(77)
import numpy as np
from engine.maths.kmeans import kmeans
generator = np.random.default_rng(0)
centres = generator.standard_normal((40, 32)) * 4
vectors = centres[generator.integers(0, 40, 20_000)] + generator.standard_normal((20_000, 32))
vectors = vectors.astype(np.float32)
cpu, gpu = (kmeans(vectors, 60, 20, 0, 4, use_gpu) for use_gpu in (False, True))
nearest = np.linalg.norm(vectors[:500, None] - gpu.centroids[None], axis=2)
assert np.allclose(gpu.distance[:500], nearest.min(axis=1), atol=1e-2)
print(cpu.inertia, gpu.inertia)
"""
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if told.returncode == 77:
        pytest.skip("faiss-cpu is installed, not faiss-gpu")
    assert told.returncode == 0, told.stderr
    cpu, gpu = map(float, told.stdout.split())
    assert gpu == pytest.approx(cpu, rel=0.01)
