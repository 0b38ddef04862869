"""FLOPs by hand for small shapes, and against torch's own counter on real layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from engine.maths.flops import Shape, forward_flops, training_flops


def opt() -> OPTForCausalLM:
    config = OPTConfig(
        vocab_size=100,
        hidden_size=8,
        word_embed_proj_dim=8,
        ffn_dim=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return OPTForCausalLM(config)


def projected_opt() -> OPTForCausalLM:
    """OPT-350m's shape: embeddings narrower than the layers."""
    config = OPTConfig(
        vocab_size=100,
        hidden_size=8,
        word_embed_proj_dim=4,
        ffn_dim=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=64,
        do_layer_norm_before=False,
    )
    return OPTForCausalLM(config)


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=8,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=100,
            n_embd=8,
            n_layer=2,
            n_head=2,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def test_the_shape_of_an_opt_by_hand() -> None:
    # Per layer: query, key, value, output of 8 x 8, and two matrices of 8 x 16.
    layer = 4 * 8 * 8 + 2 * 8 * 16
    expected = Shape(3 * layer, head_weights=8 * 100, attention_width=3 * 8, causal=True)
    assert Shape.of(opt()) == expected


def test_the_shape_of_a_llama_by_hand() -> None:
    # Queries and output of 8 x (4 heads of 4), keys and values of 8 x (2 heads of 4), three
    # matrices of the gated MLP of 8 x 24.
    layer = 2 * 8 * 16 + 2 * 8 * 8 + 3 * 8 * 24
    assert Shape.of(llama()) == Shape(2 * layer, 8 * 100, attention_width=2 * 16, causal=True)


def test_a_forward_pass_by_hand() -> None:
    shape = Shape(layer_weights=1000, head_weights=50, attention_width=10, causal=True)
    # Rows of 2 and 3 tokens see 1 + 2 and 1 + 2 + 3 pairs; four positions are scored.
    by_hand = 2 * 1000 * 5 + 2 * 50 * 4 + 4 * 10 * (3 + 6)
    assert forward_flops(shape, np.array([2, 3]), num_scored=4) == by_hand
    whole = Shape(1000, 0, 10, causal=False)
    assert forward_flops(whole, np.array([2, 3])) == 2 * 1000 * 5 + 4 * 10 * (4 + 9)


def test_training_is_three_forward_passes_and_four_with_checkpointing() -> None:
    assert training_flops(7.0) == 21.0
    assert training_flops(7.0, checkpointing=True) == 28.0


@pytest.mark.parametrize("make", [opt, projected_opt, llama, gpt2])
def test_torch_counts_the_same(make) -> None:
    """Torch counts every pair, those that the causal mask hides too, and the head everywhere."""
    model = make().eval()
    model.set_attn_implementation("eager")  # torch does not count the fused kernel of CPUs
    batch, length = 2, 7
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.ones(batch, length, dtype=torch.long), use_cache=False)
    causal = Shape.of(model)
    every_pair = Shape(
        causal.layer_weights, causal.head_weights, causal.attention_width, causal=False
    )
    lengths = np.full(batch, length)
    assert forward_flops(every_pair, lengths, batch * length) == counter.get_total_flops()


def test_torch_counts_the_same_for_an_encoder() -> None:
    config = BertConfig(
        vocab_size=100,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.ones(3, 5, dtype=torch.long))
    shape = Shape.of(model, causal=False)
    assert forward_flops(shape, np.full(3, 5)) == counter.get_total_flops()


def test_torch_counts_three_times_as_much_for_training() -> None:
    """A backward pass of exactly two forward passes."""
    model = opt().train()
    model.set_attn_implementation("eager")
    ids = torch.ones(2, 7, dtype=torch.long)
    with FlopCounterMode(display=False) as forward:
        loss = model(ids, use_cache=False).logits.sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == training_flops(forward.get_total_flops())
