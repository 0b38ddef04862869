"""What the GPU benchmark computes on: models of real shapes, rows of Alpaca's lengths.

The weights are random: speed does not depend on their values, and nothing need be fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from engine.maths.ragged import Ragged

LONGEST, MEAN_LENGTH, SIGMA = 512, 121, 0.55
"""Tokens of Alpaca's rows under its own template: mostly short, a few that fill the context."""
TINY_LONGEST, TINY_ROWS = 64, 24


@dataclass(frozen=True)
class Shape:
    """A language model's shape, how much to score with it, and the utilisation aimed at."""

    name: str
    config: type[PretrainedConfig]
    settings: dict[str, Any]
    tiny: dict[str, Any]
    """What `--tiny` puts in place of `settings`; the kind of layers stays."""
    num_rows: int
    scoring_aim: float | None = None
    training_aim: float | None = None


_TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 503}
_TINY_OPT = {**_TINY, "ffn_dim": 128, "word_embed_proj_dim": 64}


def _opt(width: int, layers: int, heads: int, **changes: Any) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "ffn_dim": 4 * width,
        "word_embed_proj_dim": width,
        "dropout": 0.0,
        **changes,
    }


SHAPES = (
    Shape("OPT-125m", OPTConfig, _opt(768, 12, 12), _TINY_OPT, 16384),
    Shape(
        "OPT-350m",
        OPTConfig,
        _opt(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
        {**_TINY_OPT, "word_embed_proj_dim": 32},
        16384,
        scoring_aim=0.30,
    ),
    Shape(
        "OPT-1.3B",
        OPTConfig,
        _opt(2048, 24, 32),
        _TINY_OPT,
        8192,
        scoring_aim=0.45,
        training_aim=0.40,
    ),
    Shape(
        "Llama-2-7B",
        LlamaConfig,
        {
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "vocab_size": 32000,
        },
        {**_TINY, "intermediate_size": 176, "num_key_value_heads": 4},
        4096,
        scoring_aim=0.55,
    ),
)


def build(shape: Shape, device: str, tiny: bool) -> PreTrainedModel:
    """The shape with random bfloat16 weights, made on `device`, in evaluation mode."""
    config = shape.config(**{**shape.settings, **(shape.tiny if tiny else {})})
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    return model.eval()


@dataclass(frozen=True)
class Rows:
    """Random tokens of Alpaca-like lengths."""

    input_ids: Ragged
    scored: Ragged
    """Positions: the second half of each row, as if the first were its prompt."""

    def first(self, num_rows: int) -> Rows:
        """The first rows alone."""
        return self.part(0, num_rows)

    def part(self, start: int, end: int) -> Rows:
        """Rows from `start` to before `end`, or as far as there are any."""
        rows = np.arange(start, min(end, len(self.input_ids)))
        return Rows(self.input_ids.take(rows), self.scored.take(rows))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens per row."""
        return self.input_ids.lengths

    @property
    def num_tokens(self) -> int:
        """Useful tokens: padding is none of them."""
        return len(self.input_ids.values)

    @property
    def num_scored(self) -> int:
        """Tokens whose NLL is asked for."""
        return len(self.scored.values)


def alpaca_rows(num_rows: int, vocabulary: int, longest: int = LONGEST, seed: int = 0) -> Rows:
    """Rows of log-normal length, cut at `longest`; the mean scales with it."""
    generator = np.random.default_rng(seed)
    mean = np.log(MEAN_LENGTH * longest / LONGEST) - SIGMA**2 / 2
    lengths = np.clip(generator.lognormal(mean, SIGMA, num_rows), 4, longest).astype(int)
    return Rows(
        Ragged.of([generator.integers(0, vocabulary, length) for length in lengths]),
        Ragged.of([np.arange(length // 2, length) for length in lengths]),
    )
