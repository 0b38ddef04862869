"""Every causal architecture of the installed transformers, as small as it can be built.

Nothing here knows one architecture from another where a name or a kind of number can tell: a new
one is picked up by itself, or listed as one that can't be built.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
)

VOCABULARY, WIDTH, HEADS, POSITIONS = 97, 32, 4, 256
WEIGHTS_STD = 0.15
"""Weights as large as this make every mistake in attention show in the loss."""
MAX_PARAMETERS = 8_000_000

SIZES = {
    VOCABULARY: ("vocab_size", "vocab_size_per_layer_input", "n_words", "text_vocab_size"),
    WIDTH: (
        *("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "n_embed"),
        *("embedding_dim", "word_embed_proj_dim", "input_embedding_size", "attention_hidden_size"),
        *("lru_width", "dim_model", "hidden_size_per_layer_input"),
    ),
    64: (
        *("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "dim_ff", "dff", "d_ff"),
        *("decoder_ffn_dim", "encoder_ffn_dim", "feed_forward_size", "shared_intermediate_size"),
        *("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"),
        *("intermediate_size_mlp", "mlp_hidden_size", "mamba_intermediate", "mlp_ffn_hidden_size"),
        *("dense_intermediate_size", "moe_shared_expert_intermediate_size", "block_ff_dim"),
        *("moe_ffn_hidden_size", "feedforward_size", "shared_expert_size", "mamba_d_ssm"),
    ),
    HEADS: (
        *("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"),
        *("encoder_attention_heads", "num_local_experts", "num_experts", "n_routed_experts"),
        *("num_encoder_attention_heads", "num_decoder_attention_heads", "moe_num_experts"),
        *("linear_num_value_heads", "mamba_num_heads", "mamba_n_heads", "swa_num_attention_heads"),
        *("index_n_heads", "conv_kernel", "conv_kernel_size", "linear_num_heads"),
    ),
    2: (
        *("num_key_value_heads", "num_kv_heads", "n_head_kv", "attention_num_kv_heads"),
        *("num_experts_per_tok", "moe_topk", "moe_k", "top_k_experts", "moe_top_k", "n_layers"),
        *("decoder_layers", "encoder_layers", "num_encoder_layers", "num_decoder_layers"),
        *("linear_num_key_heads", "swa_num_key_value_heads", "num_global_key_value_heads"),
        *("experts_per_token", "num_experts_per_token", "moe_num_experts_per_tok"),
    ),
    1: ("n_group", "topk_group", "n_shared_experts", "num_shared_experts", "mamba_n_groups"),
    8: (
        *("head_dim", "kv_channels", "attention_head_dim", "qk_rope_head_dim", "v_head_dim"),
        *("qk_nope_head_dim", "linear_key_head_dim", "linear_value_head_dim", "mamba_head_dim"),
        *("swa_head_dim", "global_head_dim", "mamba_d_head", "mamba_d_state", "ssm_state_size"),
        *("state_size", "rope_head_dim", "dim_head", "swa_v_head_dim", "time_step_rank"),
    ),
    16: (
        *(
            "sliding_window",
            "attention_chunk_size",
            "local_attention",
            "window_size",
            "q_lora_rank",
        ),
        *("kv_lora_rank", "chunk_size", "index_head_dim", "index_topk", "mamba_chunk_size"),
        *("attention_window_size", "lora_rank", "o_lora_rank", "sliding_window_size"),
    ),
    POSITIONS: ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_length"),
}
SIZE_OF = {name: size for size, names in SIZES.items() for name in names}
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers", "n_layers")
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
OF_OTHERS = ("vision_config", "audio_config", "vq_config", "image_config", "encoder_config")


def architectures() -> Iterator[tuple[str, type[PretrainedConfig]]]:
    """Model type and configuration of every causal language model, those of one class once."""
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        yield kind, CONFIG_MAPPING[kind]


# What no rule of names and numbers finds: sizes that must agree with one another, and what turns an
# encoder into a language model.
_MIXED = {
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "mlp_layer_types": ["dense", "sparse"],
}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8}
OWN: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {**_MIXED, "linear_head_dim": 8},
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_group": 1, "n_group": 1},
    "dots3_note_text": {"head_dim": 16, "per_layer_config": {}},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {**_MAMBA, "mlp_multipliers": [1.0] * 2, "ssm_multipliers": [1.0] * 5},
    "gemma4_text": {"per_layer_config": {"05": {"head_dim": 16}}},
    "gemma4_unified_text": {"per_layer_config": {"05": {"head_dim": 16}}},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {**_MAMBA, **_MIXED},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": _MIXED,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 8, "qk_head_dim": 16},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"n_groups": 1, "mamba_num_heads": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "block_types": ["recurrent"] * 2 + ["attention"]},
    "reformer": {"is_decoder": True, "axial_pos_shape": [16, 16], "axial_pos_embds_dim": [8, 24]},
    "roc_bert": {"shape_vocab_size": VOCABULARY, "pronunciation_vocab_size": VOCABULARY},
    "xlnet": {"d_head": 8},
    "xmod": {"default_language": "en_XX"},
}


def build(kind: str, **overrides: Any) -> PreTrainedModel:
    """A random model in evaluation mode; whatever transformers raises where it can't be built."""
    cls = CONFIG_MAPPING[kind]
    config, made = _shrunk(cls(), overrides), MODEL_FOR_CAUSAL_LM_MAPPING[cls]
    # As transformers does when it loads one: of a model that also sees, the part that reads.
    if config.sub_configs.get("text_config") is made.config_class:
        config = config.get_text_config()
    with torch.device("meta"):
        large = made(copy.deepcopy(config)).num_parameters()
    if large > MAX_PARAMETERS:
        raise ValueError(f"{large:,} parameters")
    torch.manual_seed(0)
    model = made(config).eval()
    return _with_large_weights(model)


def _shrunk(config: PretrainedConfig, overrides: dict[str, Any]) -> PretrainedConfig:
    return type(config).from_dict({**_small(config.to_dict()), **overrides})


def _small(values: dict[str, Any]) -> dict[str, Any]:
    """The entries of a configuration, and of those inside it, made small."""
    small: dict[str, Any] = {}
    names = {name for name in LAYERS if isinstance(values.get(name), int)}
    heads = values.get("num_attention_heads")
    kinds = values.get("layer_types") or values.get("layers_block_type") or []
    num_layers = min(max(2, _until_all_kinds(kinds)), 8)
    for name, value in values.items():
        if name in ("id2label", "label2id", "num_labels"):
            continue
        if name == "per_layer_config":
            small[name] = {k: v for k, v in (value or {}).items() if int(k) < num_layers}
        elif isinstance(value, dict):
            small[name] = _small(value) if all(isinstance(key, str) for key in value) else value
        elif name in names:
            small[name] = min(value, num_layers)
        elif isinstance(value, list) and len(value) > num_layers and name not in SPECIAL:
            small[name] = value[:num_layers]
        elif name == "num_key_value_heads" and value == heads and heads is not None:
            small[name] = HEADS  # as many as there are heads, which some need
        elif name in SIZE_OF and isinstance(value, int) and not isinstance(value, bool) and value:
            small[name] = min(value, SIZE_OF[name])
        elif name.endswith(("_token_id", "_token_index")):
            small[name] = SPECIAL.get(name, value and 3)
        else:
            small[name] = value
    return {**small, **OWN.get(str(values.get("model_type")), {})}


def _until_all_kinds(kinds: list[str]) -> int:
    return max((kinds.index(kind) + 1 for kind in set(kinds)), default=2)


@torch.no_grad()
def _with_large_weights(model: PreTrainedModel) -> PreTrainedModel:
    for parameter in model.parameters():
        spread = float(parameter.std()) if parameter.ndim > 1 and parameter.numel() > 1 else 0.0
        if parameter.ndim > 1 and spread < WEIGHTS_STD:
            parameter.copy_(torch.randn_like(parameter) * WEIGHTS_STD)
    return model
