"""What many tests share: a private Ray, tiny models, small pools."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.assets import bundled_proxy

pytest_plugins = ["chaos_runs"]  # its fixtures, and the table it prints

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One private Ray for all tests that need one: starting it costs seconds."""
    import ray

    from engine.config import ResourcesConfig
    from engine.nodes import session

    os.environ.pop("RAY_ADDRESS", None)
    assert not ray.is_initialized()
    with session(ResourcesConfig()):
        yield


def save_tiny_opt(folder: Path, **overrides: object) -> Path:
    """A random two-layer OPT with the bundled tokenizer, as a Hugging Face folder."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    source = bundled_proxy().folder
    settings = {
        "vocab_size": 8192,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "dropout": 0.1,
        "init_std": 0.2,
    }
    torch.manual_seed(0)
    OPTForCausalLM(OPTConfig(**{**settings, **overrides})).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny_opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random OPT."""
    return save_tiny_opt(tmp_path_factory.mktemp("tiny-opt"))


COLOURS = ("red", "green", "blue", "brown", "white", "black")
THINGS = ("car", "house", "river", "stone", "letter", "garden", "window", "song")


def pool_lines() -> list[str]:
    """46 rows that can be scored, and one of each kind that cannot, as JSON lines."""
    rows = [
        {
            "instruction": f"Describe a {colour} {thing}." if i % 2 else f"Name a {thing}",
            "input": "" if i % 3 else f"It is number {i}.",
            "output": f"The {thing} is {colour}." + " It stands here." * (i % 4),
        }
        for i, (colour, thing) in enumerate((c, t) for c in COLOURS for t in THINGS)
    ][:46]
    lines = [json.dumps(row) for row in rows]
    lines.insert(5, '{"instruction": "Say nothing.", "input": "", "output": " "}')
    lines.insert(9, lines[0])  # a duplicate
    lines.insert(20, json.dumps({"instruction": "long " * 300, "output": "never reached"}))
    lines.insert(30, '{"instruction": "cut off')
    lines.insert(31, '{"question": "which format is this?"}')
    return lines


POOL_FLAGS = {"ok": 46, "empty_response": 1, "duplicate": 1, "prompt_too_long": 1}
POOL_REJECTED = {31: "invalid_json", 32: "missing_field"}


@pytest.fixture
def pool_file(tmp_path: Path) -> Path:
    """The small pool as a JSONL file."""
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(pool_lines()) + "\n", encoding="utf-8")
    return path
