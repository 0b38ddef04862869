"""Which models treat a row by the length of its batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma3TextConfig, LlamaConfig, LlamaForCausalLM, OPTConfig, Phi3Config

from engine.maths.batching import ANY_LENGTHS, LengthRule
from engine.maths.lengths import forget_lengths, length_rule, stretching_modules

LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


def rope(**settings: Any) -> LlamaConfig:
    settings = {"rope_theta": 1e4, **settings}
    return LlamaConfig(
        hidden_size=32,
        num_attention_heads=4,
        num_hidden_layers=1,
        intermediate_size=32,
        vocab_size=50,
        max_position_embeddings=24,
        rope_parameters=settings,
    )


def test_most_models_take_rows_of_any_lengths() -> None:
    assert length_rule(OPTConfig()) == ANY_LENGTHS
    assert length_rule(LlamaConfig()) == ANY_LENGTHS
    assert length_rule(rope(rope_type="linear", factor=2.0)) == ANY_LENGTHS
    assert length_rule(rope(rope_type="yarn", factor=2.0)) == ANY_LENGTHS


def test_longrope_has_a_border_at_the_length_of_its_pretraining() -> None:
    told = rope(**LONG, original_max_position_embeddings=12)
    assert length_rule(told) == LengthRule(borders=(12,))
    phi = Phi3Config(
        hidden_size=32,
        num_attention_heads=4,
        original_max_position_embeddings=20,
        rope_parameters={**LONG, "rope_theta": 1e4},
        pad_token_id=0,
    )
    assert length_rule(phi) == LengthRule(borders=(20,))


def test_dynamic_frequencies_ask_for_equal_lengths_beyond_the_positions() -> None:
    assert length_rule(rope(rope_type="dynamic", factor=2.0)) == LengthRule(equal_above=24)


def test_frequencies_of_one_kind_of_layer_count_as_well() -> None:
    config = Gemma3TextConfig(max_position_embeddings=64)
    plain = {"rope_type": "default", "rope_theta": 1e4}
    config.rope_parameters = {
        "sliding_attention": plain,
        "full_attention": {**plain, "rope_type": "dynamic", "factor": 2.0},
    }
    assert length_rule(config) == LengthRule(equal_above=64)


def test_attention_that_picks_its_keys_asks_for_equal_lengths_beyond_their_number() -> None:
    config = LlamaConfig()
    config.index_topk = 16
    assert length_rule(config) == LengthRule(equal_above=16)


@torch.no_grad()
def test_a_longer_batch_is_forgotten() -> None:
    model = LlamaForCausalLM(rope(rope_type="dynamic", factor=4.0)).eval()
    row, longer = torch.arange(1, 31)[None], torch.arange(1, 41)[None]
    first = model(input_ids=row).logits
    model(input_ids=longer)
    assert (model(input_ids=row).logits - first).abs().max() > 1e-5  # what is to be undone
    modules = stretching_modules(model)
    assert [name for _, name in modules] == [""]
    forget_lengths(modules)
    assert torch.equal(model(input_ids=row).logits, first)


def test_other_models_have_nothing_to_forget() -> None:
    assert stretching_modules(LlamaForCausalLM(rope(rope_type="default"))) == []
    with pytest.raises(AttributeError):
        length_rule(object())
