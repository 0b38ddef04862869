"""The scorer: short cuts that change no value, and a memory that is too small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from engine.maths import prefix
from engine.maths.loss import TokenNLL
from engine.maths.prefix import share_prefixes
from engine.maths.ragged import Ragged
from engine.scoring import Scorer

VOCABULARY = 97
PREFIX = 20
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
MODELS = {
    "OPT": lambda: OPTForCausalLM(
        OPTConfig(**SHAPE, ffn_dim=64, word_embed_proj_dim=16, init_std=0.3)
    ),
    "Llama": lambda: LlamaForCausalLM(
        LlamaConfig(**SHAPE, intermediate_size=64, num_key_value_heads=2, initializer_range=0.3)
    ),
    "GPT-2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128)
    ),
    "windowed": lambda: MistralForCausalLM(
        MistralConfig(**SHAPE, intermediate_size=64, num_key_value_heads=2, sliding_window=16)
    ),
}


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "MIN_GROUP_ROWS", 4)


def make_model(name: str) -> Any:
    torch.manual_seed(0)
    return MODELS[name]().eval()


def made_rows() -> tuple[Ragged, Ragged]:
    """40 rows; three of four begin with one of two prefixes."""
    random = np.random.default_rng(5)
    heads = random.integers(4, VOCABULARY, (2, PREFIX))
    rows, scored = [], []
    for i in range(40):
        own = random.integers(4, VOCABULARY, int(random.integers(6, 40)))
        row = own if i % 4 == 3 else np.concatenate([heads[i % 2], own])
        first = len(row) - int(random.integers(1, len(own) - 2))
        rows.append(row)
        scored.append(np.arange(first, len(row)))
    return Ragged.of(rows), Ragged.of(scored)


def scorer(model: Any, batch_tokens: int = 300) -> Scorer:
    made = Scorer(TokenNLL(model), "cpu", "float32", batch_tokens)
    made.prepare(made_rows()[0])
    return made


@torch.no_grad()
def plain(model: Any, rows: Ragged, scored: Ragged) -> tuple[list[float], list[float]]:
    """Sums and last values, row by row through the model's own logits in float64."""
    sums, lasts = [], []
    for i in range(len(rows)):
        ids = torch.from_numpy(rows[i].astype(np.int64))
        at = torch.from_numpy(scored[i].astype(np.int64))
        nll = -model(input_ids=ids[None]).logits[0].double().log_softmax(-1)[at - 1, ids[at]]
        sums.append(float(nll.sum()))
        lasts.append(float(nll[-1]))
    return sums, lasts


@pytest.mark.parametrize("name", ["OPT", "Llama", "GPT-2"])
def test_a_shared_prefix_changes_no_value(name: str) -> None:
    model = make_model(name)
    rows, scored = made_rows()
    own = model.config._attn_implementation
    made = scorer(model)
    assert made.way.shares_prefixes
    got = made(rows, scored)
    sums, lasts = plain(model, rows, scored)
    assert got.nll_sum / scored.lengths == pytest.approx(sums / scored.lengths, abs=1e-5)
    assert got.nll_last == pytest.approx(lasts, abs=1e-4)
    # 30 rows in two groups: all but the first of each save the prefix.
    assert got.counts.shared_tokens == 28 * PREFIX
    assert got.counts.computed_tokens >= len(rows.values) - got.counts.shared_tokens
    assert got.counts.head_rows == len(scored.values)
    assert model.config._attn_implementation == own


def test_a_model_with_a_window_is_scored_whole() -> None:
    model = make_model("windowed")
    with share_prefixes(model) as possible:
        assert not possible
    made = scorer(model)
    assert not made.way.shares_prefixes
    rows, scored = made_rows()
    got = made(rows, scored)
    assert got.counts.shared_tokens == 0
    expected = plain(model, rows, scored)[0] / scored.lengths
    assert got.nll_sum / scored.lengths == pytest.approx(expected, abs=1e-5)


def test_a_model_that_takes_no_prefix_is_found_out() -> None:
    model = make_model("OPT")
    forward = model.model.forward
    # As a model does whose layers drop what they do not know.
    model.model.forward = lambda *a, shared_prefix=None, **k: forward(*a, **k)
    assert not scorer(model).way.shares_prefixes


class SmallMemory(TokenNLL):
    """Runs out of memory above some tokens a batch, as a device would."""

    limit = 100

    def forward(self, input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        if input_ids.numel() > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(input_ids, *rest)


def test_a_batch_too_large_for_memory_is_halved() -> None:
    model = make_model("OPT")
    rows, scored = made_rows()
    small = Scorer(SmallMemory(model), "cpu", "float32", 300)
    halved, whole = (
        small(rows, scored),
        Scorer(TokenNLL(model), "cpu", "float32", 300)(rows, scored),
    )
    assert halved.counts.halved_batches > 0
    assert whole.counts.halved_batches == 0
    assert halved.nll_sum == pytest.approx(whole.nll_sum, abs=1e-4)


def test_a_single_row_too_large_for_memory_ends_it() -> None:
    made = Scorer(SmallMemory(make_model("OPT")), "cpu", "float32", 300)
    with pytest.raises(torch.OutOfMemoryError):
        made(Ragged.of([np.arange(120) % 90]), Ragged.of([[119]]))


def test_nothing_to_score() -> None:
    got = scorer(make_model("OPT"))(Ragged.of([]), Ragged.of([]))
    assert len(got.nll_sum) == len(got.nll_last) == 0
