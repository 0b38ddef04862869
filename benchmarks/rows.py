"""The rows that benchmarks run on: the pool's first ones, tokenised for the bundled proxy."""

from __future__ import annotations

from itertools import chain, islice

from benchmarks.harness import pool_path
from engine import formats, models, readers, schema
from engine.assets import bundled_proxy
from engine.formats import Turn
from engine.maths.ragged import Ragged
from engine.models import ModelSource
from engine.text import make_template

PROXY = ModelSource("proxy.model", "bundled")
MAX_TOKENS = 512


def conversations(num: int) -> list[list[Turn]]:
    """Those of the pool's first `num` lines that can be scored."""
    (file,) = readers.find_files([str(pool_path())])
    lines = chain.from_iterable(map(readers.read_lines, readers.cut(file)))
    rows = (line.row for line in islice(lines, num) if line.row is not None)
    converted = (formats.to_conversation(row, None) for row in rows)
    return [list(turns) for turns, flag in converted if flag == schema.OK]


def tokenised(num: int) -> tuple[Ragged, Ragged]:
    """Token ids and scored positions of the first `num` rows (full contexts aside)."""
    tokenizer = models.load_tokenizer(PROXY)
    template = make_template("alpaca", tokenizer, MAX_TOKENS)
    encoded = [row for row in template.encode(conversations(num)) if row.flag == schema.OK]
    return Ragged.of([row.input_ids for row in encoded]), Ragged.of([row.scored for row in encoded])


def proxy_model(dtype: str = "float32", device: str = "cpu") -> models.PreTrainedModel:
    """The bundled proxy."""
    return models.load_language_model(bundled_proxy().folder, dtype, device)
