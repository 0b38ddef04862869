"""The rows that benchmarks run on: the pool's first ones, tokenised for the bundled proxy."""

from __future__ import annotations

from itertools import islice

from benchmarks.harness import pool_path
from engine import formats, models, readers, schema
from engine.assets import bundled_proxy
from engine.maths.ragged import Ragged
from engine.models import ModelSource
from engine.text import Turn, make_template

PROXY = ModelSource("proxy.model", "bundled")
MAX_TOKENS = 512


def conversations(num: int) -> list[list[Turn]]:
    """The first `num` rows of the pool that can be scored."""
    (file,) = readers.find_files([str(pool_path())])
    converted = (
        formats.to_conversation(line.row, None)
        for piece in readers.cut(file)
        for line in readers.read_lines(piece)
        if line.row is not None
    )
    return list(islice((list(turns) for turns, flag in converted if flag == schema.OK), num))


def tokenised(num: int) -> tuple[Ragged, Ragged]:
    """Token ids and scored positions of the first `num` rows (full contexts aside)."""
    tokenizer = models.load_tokenizer(PROXY)
    template = make_template("alpaca", tokenizer, MAX_TOKENS)
    encoded = [row for row in template.encode(conversations(num)) if row.flag == schema.OK]
    return Ragged.of([row.input_ids for row in encoded]), Ragged.of([row.scored for row in encoded])


def proxy_model(dtype: str = "float32", device: str = "cpu") -> models.PreTrainedModel:
    """The bundled proxy."""
    return models.load_language_model(bundled_proxy().folder, dtype, device)
