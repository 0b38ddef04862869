"""The scorer: short cuts that change no value, and a memory that is too small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import build
from transformers import (
    BertConfig,
    BertLMHeadModel,
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from engine.errors import ModelError
from engine.maths import prefix
from engine.maths.batching import ANY_LENGTHS, LengthRule, micro_batches
from engine.maths.lengths import length_rule
from engine.maths.loss import TokenNLL, padded_batch
from engine.maths.prefix import share_prefixes
from engine.maths.ragged import Ragged
from engine.scoring import WAYS, Scorer, Way, training_way

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


# ── models that go by more than their tokens ─────────────────────────────────────────────────────


@pytest.mark.parametrize("alibi", [False, True], ids=["rotary", "alibi"])
@pytest.mark.parametrize("new", [False, True], ids=["old", "new"])
def test_a_short_cut_that_is_refused_leaves_nothing_behind(alibi: bool, new: bool) -> None:
    # Falcon goes by the name of its attention: under another it looks ahead.
    torch.manual_seed(0)
    config = FalconConfig(
        **SHAPE, alibi=alibi, new_decoder_architecture=new, num_kv_heads=2, initializer_range=0.3
    )
    model = FalconForCausalLM(config).eval()
    rows, scored = made_rows()
    expected = plain(model, rows, scored)[0] / scored.lengths
    before = config.to_json_string(), config._attn_implementation, registered()
    made = scorer(model)
    got = made(rows, scored)
    assert got.nll_sum / scored.lengths == pytest.approx(expected, abs=1e-5)
    assert made.way == Way()
    assert (config.to_json_string(), config._attn_implementation, registered()) == before


def registered() -> tuple[list[str], list[str]]:
    """Names of all attention functions and masks."""
    from transformers import AttentionInterface, masking_utils

    return sorted(AttentionInterface()), sorted(masking_utils.AttentionMaskInterface())


def test_inner_configurations_keep_attention_of_their_own() -> None:
    model = build("fuyu")
    before, inner = registered(), model.config.get_text_config()
    assert inner is not model.config
    with share_prefixes(model) as possible:
        assert possible
        assert registered() != before
        assert inner._attn_implementation == model.config._attn_implementation != "sdpa"
    assert inner._attn_implementation == model.config._attn_implementation == "sdpa"
    assert registered() == before
    inner._attn_implementation = "eager"
    with share_prefixes(model) as possible:
        assert not possible  # for it would have to run on another kernel
    assert inner._attn_implementation == "eager"


def by_length(rope: dict[str, Any], **changes: Any) -> Any:
    torch.manual_seed(0)
    shape = {**SHAPE, "intermediate_size": 64, "pad_token_id": 0, **changes}
    shape |= {"initializer_range": 0.3, "rope_parameters": {"rope_theta": 1e4, **rope}}
    if rope["rope_type"] == "longrope":
        return Phi3ForCausalLM(Phi3Config(**shape)).eval()
    return LlamaForCausalLM(LlamaConfig(**shape)).eval()


LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [9.0, 7.0, 5.0, 3.0]}
DYNAMIC = {"rope_type": "dynamic", "factor": 8.0}


@pytest.mark.parametrize(
    ("rope", "changes"),
    [
        (LONGROPE, {"original_max_position_embeddings": 30}),
        (DYNAMIC, {"max_position_embeddings": 30}),
    ],
    ids=["longrope", "dynamic"],
)
def test_no_row_is_treated_by_the_length_of_another(rope: dict, changes: dict) -> None:
    rows, scored = made_rows()
    assert (rows.lengths > 30).any()
    assert (rows.lengths <= 30).any()
    # Each alone, and through a model of its own: one that has seen longer rows may remember them.
    alone = [
        plain(by_length(rope, **changes), rows.take(np.array([i])), scored.take(np.array([i])))[0]
        for i in range(len(rows))
    ]
    expected = np.concatenate(alone) / scored.lengths
    made = scorer(by_length(rope, **changes), batch_tokens=2000)
    assert not made.way.equal_lengths
    for order in (np.arange(len(rows)), np.argsort(rows.lengths)):  # twice, in another order
        got = made(rows.take(order), scored.take(order))
        found = got.nll_sum / scored.lengths[order]
        assert found == pytest.approx(expected[order], abs=1e-5)
    # In one batch, as before, they would not be.
    made.rule = ANY_LENGTHS
    wrong = made(rows, scored).nll_sum / scored.lengths
    assert np.abs(wrong - expected).max() > 1e-2


class Padded(TokenNLL):
    """Of rows of several lengths in one batch it makes something else, as no padding may."""

    def forward(self, input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        nll = super().forward(input_ids, *rest)
        return nll + 0.1 if (input_ids[:, -1] == 0).any() else nll


class Batched(TokenNLL):
    """Of several rows it makes something else than of each."""

    def forward(self, input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        return super().forward(input_ids, *rest) + 0.1 * (len(input_ids) > 1)


class Headless(TokenNLL):
    """Decoder and head are not the model."""

    def forward(self, input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        return super().forward(input_ids, *rest) + 0.1 * (not self.full_logits)


class Fickle(TokenNLL):
    """Never says the same twice."""

    def forward(self, input_ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        nll = super().forward(input_ids, *rest)
        return nll + torch.rand_like(nll)


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (TokenNLL, Way(shares_prefixes=True)),
        (Headless, Way(full_logits=True)),
        (Padded, Way(equal_lengths=True)),
        (Batched, Way(full_logits=True, alone=True)),
    ],
)
def test_a_model_is_scored_as_fast_as_its_values_allow(kind: type[TokenNLL], way: Way) -> None:
    model = make_model("OPT")
    rows, scored = made_rows()
    made = Scorer(kind(model), "cpu", "float32", 300)
    made.prepare(rows)
    assert made.way == way
    expected = plain(model, rows, scored)[0] / scored.lengths
    found = made(rows, scored).nll_sum / scored.lengths
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_model_that_never_agrees_with_itself_is_refused() -> None:
    with pytest.raises(ModelError, match="OPTForCausalLM gives other values each time"):
        Scorer(Fickle(make_model("OPT")), "cpu", "float32", 300).prepare(made_rows()[0])


def test_a_model_without_finite_values_is_scored_as_it_is() -> None:
    model = make_model("OPT")
    torch.nn.init.constant_(model.model.decoder.final_layer_norm.weight, float("nan"))
    assert scorer(model).way == WAYS[-1]


def test_an_encoder_is_refused() -> None:
    config = BertConfig(**SHAPE, intermediate_size=64, initializer_range=0.3)
    torch.manual_seed(0)
    with pytest.raises(ModelError, match="BertLMHeadModel judges a token with later ones in sight"):
        scorer(BertLMHeadModel(config).eval())
    config.is_decoder = True
    rows, scored = made_rows()
    decoder = BertLMHeadModel(config).eval()
    expected = plain(decoder, rows, scored)[0] / scored.lengths
    found = scorer(decoder)(rows, scored).nll_sum / scored.lengths
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["bert-generation", "roc_bert", "xlm"])
def test_an_encoder_is_refused_in_either_precision(kind: str, dtype: str) -> None:
    # On average over the vocabulary these differ by no more than what rounding does to others.
    model = build(kind).to(getattr(torch, dtype))
    with pytest.raises(ModelError, match="judges a token with later ones in sight"):
        Scorer(TokenNLL(model), "cpu", dtype, 300).prepare(made_rows()[0])


@pytest.mark.parametrize("kind", ["opt", "mixtral", "mamba", "gemma2", "prophetnet"])
def test_no_causal_model_is_refused_in_bfloat16(kind: str) -> None:
    scorer = Scorer(TokenNLL(build(kind).bfloat16()), "cpu", "bfloat16", 300)
    scorer.prepare(made_rows()[0])


# ── training ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("opt", Way()),
        ("gemma2", Way(full_logits=True)),
        ("prophetnet", Way(full_logits=True, equal_lengths=True)),
    ],
)
def test_a_model_is_trained_on_in_batches_that_change_no_value(kind: str, way: Way) -> None:
    rows, scored = made_rows()
    model = build(kind)
    found = training_way(model, rows, "float32")
    assert found == way
    rule, budget = found.rule(length_rule(model.config)), found.budget(500)
    batches = micro_batches(np.arange(len(rows)), rows.lengths, budget, 0, 1, rule)
    nll = TokenNLL(model, found.full_logits)
    expected = plain(model, rows, scored)[0]
    for batch in batches:
        values = nll(*padded_batch(rows.take(batch), scored.take(batch), "cpu")).detach()
        total = float(values.sum())
        assert total == pytest.approx(sum(expected[i] for i in batch), rel=1e-5)
    assert max(map(len, batches)) > 1


def test_rows_alone_are_micro_batches_of_one() -> None:
    alone = WAYS[-1]
    lengths = np.array([5, 9, 5])
    rule = alone.rule(ANY_LENGTHS)
    batches = micro_batches(np.arange(3), lengths, alone.budget(500), 0, 1, rule)
    assert [batch.tolist() for batch in batches] == [[1], [0], [2]]
    assert Way().budget(500) == 500
    assert Way().rule(LengthRule(borders=(7,))) == LengthRule(borders=(7,))
    assert Way(equal_lengths=True).rule(ANY_LENGTHS) == LengthRule(equal_above=0)


def test_padding_is_tried_where_the_budget_is_smaller_than_the_probe() -> None:
    rows, _ = made_rows()
    made = Scorer(Padded(make_model("OPT")), "cpu", "float32", batch_tokens=30)
    made.prepare(rows)
    assert made.way == Way(equal_lengths=True)
    assert made.batch_tokens == 30


def test_nothing_to_score() -> None:
    got = scorer(make_model("OPT"))(Ragged.of([]), Ragged.of([]))
    assert len(got.nll_sum) == len(got.nll_last) == 0
