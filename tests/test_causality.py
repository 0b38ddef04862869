"""What is refused as a proxy before any work, and what it is told to be."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from conftest import save_tiny_opt
from transformers import (
    BartConfig,
    BertConfig,
    ElectraConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    OPTForCausalLM,
    RobertaConfig,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    XLMConfig,
    XLNetConfig,
)

from engine import causality, models, pipeline
from engine.assets import bundled_proxy
from engine.causality import kind_complaint
from engine.config import Config, ResourcesConfig
from engine.errors import ModelError
from engine.nodes import Nodes

NODES = Nodes(num_cpus=2, num_gpus=0, resources=ResourcesConfig())


def config_of(model: Path | str) -> Config:
    return Config.from_tree({"proxy": {"model": str(model), "name": "tried", "dtype": "float32"}})


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (BertConfig(), "an encoder (bert)"),
        (RobertaConfig(), "an encoder (roberta)"),
        (ElectraConfig(), "an encoder (electra)"),
        (XLNetConfig(), "an encoder (xlnet)"),
        (XLMConfig(), "an encoder (xlm)"),
        (T5Config(), "an encoder-decoder (t5)"),
        (BartConfig(), "an encoder-decoder (bart)"),
        (ViTConfig(), "a model (vit) that transformers has no causal language model of"),
    ],
)
def test_what_is_refused_by_its_kind(config: Any, told: str) -> None:
    assert kind_complaint(config).startswith(told)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(),
        GPT2Config(),
        BertConfig(is_decoder=True),
        BartConfig(is_encoder_decoder=False, is_decoder=True),
        XLNetConfig(attn_type="uni"),
        XLMConfig(causal=True),
    ],
)
def test_what_is_not(config: Any) -> None:
    assert kind_complaint(config) == ""


def test_t5_is_refused_before_any_weight_is_read(tmp_path: Path) -> None:
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    folder = tmp_path / "t5"
    T5ForConditionalGeneration(T5Config(**shape, vocab_size=50)).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    shutil.copy(bundled_proxy().folder / "tokenizer.json", folder)
    with pytest.raises(ModelError, match=r"an encoder-decoder \(t5\)(.|\n)*causal") as caught:
        causality.check(config_of(folder), NODES)
    assert "proxy.model" in str(caught.value)


def test_the_bundled_proxy_is_fit() -> None:
    pipeline.check(config_of("bundled"), {"tokens", "perplexity"}, NODES)


def with_tokens(folder: Path, added: list[str], ordinary: list[str] | None = None) -> Path:
    """A tiny model whose tokenizer has more tokens than its embedding of 8,192 rows."""
    save_tiny_opt(folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    for i, token in enumerate(ordinary or []):
        tokenizer["model"]["vocab"][token] = 8192 + i
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [
        {"id": 8192 + len(ordinary or []) + i, "content": token, "special": True, **flags}
        for i, token in enumerate(added)
    ]
    path.write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("stages", [{"tokens"}, {"perplexity"}])
def test_a_tokenizer_larger_than_the_embedding_is_found_at_the_start(
    tmp_path: Path, stages: set[str]
) -> None:
    folder = with_tokens(tmp_path / "model", ["<image>"], [f"zz{i}" for i in range(5)])
    with pytest.raises(ModelError) as caught:
        pipeline.check(config_of(folder), stages, NODES)
    text = str(caught.value)
    assert "its embedding of 8,192 rows has not: 'zz4' = 8196, 'zz3' = 8195" in text
    assert "resize_token_embeddings" in text
    assert "<image>" not in text


def test_a_token_that_no_text_makes_may_lie_past_the_embedding(tmp_path: Path) -> None:
    # As Gemma 3 has one for images, in sizes that see none.
    causality.check(config_of(with_tokens(tmp_path / "model", ["<image>"])), NODES)


def test_unless_the_template_writes_it(tmp_path: Path) -> None:
    folder = with_tokens(tmp_path / "model", ["<image>", "<turn>"])
    path = folder / "tokenizer_config.json"
    template = "{% for m in messages %}<turn>{{ m['role'] }} {{ m['content'] }}</s>{% endfor %}"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    config = config_of(folder)
    causality.check(config, NODES)  # the Alpaca text has no such token
    chat = config.model_copy(update={"proxy": config.proxy.model_copy(update={"template": "chat"})})
    with pytest.raises(ModelError, match=r"has not: '<turn>' = 8193\n"):
        causality.check(chat, NODES)


def test_a_context_shorter_than_the_trial_is_no_fault(tmp_path: Path) -> None:
    folder = save_tiny_opt(tmp_path / "model")
    torch.manual_seed(0)
    shape = {"vocab_size": 8192, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}
    GPT2LMHeadModel(GPT2Config(**shape)).save_pretrained(folder)
    causality.check(config_of(folder), NODES)


def test_what_a_model_raises_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_opt(tmp_path / "model")
    load = models.load_language_model

    def broken(*args: Any) -> Any:
        model = load(*args)
        model.model.decoder.layers[0] = torch.nn.Linear(3, 3)
        return model

    monkeypatch.setattr(models, "load_language_model", broken)
    with pytest.raises(ModelError) as caught:
        causality.check(config_of(folder), NODES)
    assert f"proxy.model = {str(folder)!r}: it breaks on 48 tokens" in str(caught.value)
    assert "TypeError: " in str(caught.value)


def test_weights_that_give_no_numbers_are_found_at_the_start(tmp_path: Path) -> None:
    folder = save_tiny_opt(tmp_path / "model")
    model = OPTForCausalLM.from_pretrained(folder)
    torch.nn.init.constant_(model.model.decoder.final_layer_norm.weight, float("nan"))
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match="logits are not finite in float32"):
        causality.check(config_of(folder), NODES)


def test_a_model_that_looks_ahead_is_found_by_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_opt(tmp_path / "model", init_std=0.3)
    load = models.load_language_model

    def without_mask(*args: Any) -> Any:
        model = load(*args)
        for module in model.modules():
            if hasattr(module, "is_causal"):
                module.is_causal = False
        return model

    monkeypatch.setattr(models, "load_language_model", without_mask)
    with pytest.raises(ModelError, match="changes with the tokens behind it"):
        causality.check(config_of(folder), NODES)


def test_positions_of_models_that_keep_text_apart(tmp_path: Path) -> None:
    source = models.ModelSource("proxy.model", str(tmp_path))
    for config, expected in (
        ({"max_position_embeddings": 128}, 128),
        ({"n_positions": 64}, 64),
        ({"max_seq_len": 32}, 32),
        ({"text_config": {"max_position_embeddings": 16}}, 16),
        ({"max_position_embeddings": 4096}, 512),
        ({}, 512),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert models.context_length(source, 512) == expected


@pytest.mark.usefixtures("ray_session")
def test_each_trial_has_a_process_of_its_own_that_ends() -> None:
    def process() -> str:
        return str(os.getpid())

    found = [
        ray.get(causality._try_out.options(num_cpus=1).remote(partial(process))) for _ in range(3)
    ]
    assert len(set(found)) == 3
    assert str(os.getpid()) not in found


@pytest.mark.usefixtures("ray_session")
def test_a_large_proxy_is_tried_where_it_will_be_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causality, "SMALL_BYTES", 0)
    causality.check(config_of(save_tiny_opt(tmp_path / "fit")), NODES)
    folder = save_tiny_opt(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"no weights")
    monkeypatch.setattr(models, "proxy_bytes", lambda config: 0)
    with pytest.raises(ModelError, match="causal language model that can be loaded"):
        causality.check(config_of(folder), NODES)
