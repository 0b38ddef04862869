"""Small GGUF files: a Llama of one or two layers, packed in some way, with a tokenizer of bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = "{% for m in messages %}{{ '<s>' + m['content'] + '</s>' }}{% endfor %}"
WIDTH, HEADS, LAYERS, POSITIONS = 64, 4, 2, 128
_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def words() -> list[str]:
    """GPT-2's letters for all bytes, a merge or two, and the special tokens."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [
        "<s>",
        "</s>",
        *bytes_to_unicode().values(),
        "th",
        "the",
        *(f"<{i}>" for i in range(30)),
    ]


def tiny_llama() -> LlamaForCausalLM:
    """Random, with tied weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words()),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval()


def _paired(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys in llama.cpp's order: both halves of a head, turn by turn."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path, model: LlamaForCausalLM, kind: str = "F32", **changes: Any
) -> dict[str, np.ndarray]:
    """Write a model as a GGUF; what is packed comes back as it will be unpacked.

    Args:
        path: of the file.
        model: a Llama.
        kind: how matrices are packed; vectors stay as they are.
        changes: metadata to write otherwise (`layers`), or tensors to leave out (`without`), or to
            add (`extra`).
    """
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(changes.get("layers", LAYERS))
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(changes.get("width", WIDTH))
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(words()))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words())
    writer.add_token_types([3, 3] + [1] * (len(words()) - 2))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(1)
    writer.add_chat_template(TEMPLATE)
    unpacked: dict[str, np.ndarray] = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" or name == changes.get("without"):
            continue
        values = weight.numpy().astype(np.float32)
        type_ = GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        heads = {"self_attn.q_proj": HEADS, "self_attn.k_proj": 2}
        turned = next((heads[key] for key in heads if key in name), None)
        packed = quantize(_paired(values, turned) if turned else values, type_)
        writer.add_tensor(_gguf_name(name), packed, raw_dtype=type_)
        unpacked[name] = values if turned else dequantize(packed, type_)
        if turned:  # whole rows are moved, and packed row by row
            unpacked[name] = dequantize(quantize(values, type_), type_)
    for name, values in changes.get("extra", {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return unpacked


def _gguf_name(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, inner = name.split(".", 3)
    return f"blk.{layer}.{_NAMES[inner.removesuffix('.weight')]}.weight"
