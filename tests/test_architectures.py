"""Every causal architecture of the installed transformers: scored as row by row, or refused.

The table it prints: ``python -m pytest -s tests/test_architectures.py``
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from tiny_models import VOCABULARY, architectures, build
from transformers import PreTrainedModel
from transformers.utils import logging

from engine.errors import ModelError
from engine.maths import prefix
from engine.maths.loss import TokenNLL
from engine.maths.ragged import Ragged
from engine.scoring import Scorer

MAX_ERROR = 2e-5
MIN_SCORED, MAX_UNBUILT = 150, 25
"""How many there must be of those that are scored, and may be of those that can't be built."""
ENCODERS = ("bert", "camembert", "electra", "ernie", "rembert", "roberta", "roformer")
REFUSED = {
    *ENCODERS,
    *("bert-generation", "big_bird", "cpmant", "data2vec-text", "megatron-bert", "roc_bert"),
    *("roberta-prelayernorm", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod"),
}
"""What sees the tokens it is asked for, unless it is told not to; and CPM-Ant, which is trained to
read a prefix both ways. Nothing else may be refused."""
IN_USE = {
    *("bloom", "deepseek_v3", "falcon", "gemma2", "gemma3", "gemma3_text", "gemma4", "gpt2"),
    *("gpt_oss", "llama", "llama4", "mamba", "mistral", "mixtral", "olmo2", "opt", "phi3"),
    *("qwen2", "qwen3", "qwen3_5", "qwen3_5_moe", "qwen3_moe"),
}
"""What people have today, that which also sees among it: built and scored."""
MORE = (
    *((f"{kind} as decoder", kind, {"is_decoder": True}) for kind in ENCODERS),
    ("falcon, alibi", "falcon", {"alibi": True}),
    ("falcon, new", "falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("xlnet, one way", "xlnet", {"attn_type": "uni"}),
)


@dataclass(frozen=True)
class Tried:
    """What became of one architecture."""

    name: str
    outcome: str
    """``scored``, ``refused`` or ``not built``."""
    error: float
    ways: str
    """What was taken of short cuts and detours; or why there is nothing."""


def made_rows() -> tuple[Ragged, Ragged]:
    """10 rows of 7 to 50 tokens; two of three begin with the same 14."""
    random = np.random.default_rng(3)
    head = random.integers(4, VOCABULARY, 14)
    rows, scored = [], []
    for i in range(10):
        own = random.integers(4, VOCABULARY, int(random.integers(7, 37)))
        row = np.concatenate([head, own]) if i % 3 else own
        rows.append(row)
        scored.append(np.arange(len(row) - len(own) + 2, len(row)))
    return Ragged.of(rows), Ragged.of(scored)


@torch.no_grad()
def one_by_one(model: PreTrainedModel, rows: Ragged, scored: Ragged) -> list[np.ndarray]:
    """float64 NLLs of each row alone, through the model's own logits."""
    nlls = []
    for i in range(len(rows)):
        ids = torch.from_numpy(rows[i].astype(np.int64))
        at = torch.from_numpy(scored[i].astype(np.int64))
        logits = model(input_ids=ids[None]).logits[0].double()
        nlls.append(-logits.log_softmax(-1)[at - 1, ids[at]].numpy())
    return nlls


def largest_error(model: PreTrainedModel) -> tuple[float, str]:
    """Largest difference of a row's mean or last NLL, and how the rows were scored."""
    rows, scored = made_rows()
    expected = one_by_one(model, rows, scored)
    scorer = Scorer(TokenNLL(model), "cpu", "float32", 200)
    scorer.prepare(rows)
    found = scorer(rows, scored)
    means = found.nll_sum / scored.lengths - [nll.mean() for nll in expected]
    lasts = found.nll_last - [nll[-1] for nll in expected]
    ways = [field.name for field in fields(scorer.way) if getattr(scorer.way, field.name)]
    assert (found.counts.shared_tokens > 0) == scorer.way.shares_prefixes
    return float(np.abs([means, lasts]).max()), ", ".join(ways) or "padded batches"


def tried(name: str, kind: str, overrides: dict) -> Tried:
    try:
        model = build(kind, **overrides)
        one_by_one(model, *(ragged.take(np.arange(1)) for ragged in made_rows()))
    # A configuration made small by rules may not hold together, and says so in any way.
    except Exception as error:  # noqa: BLE001
        return Tried(name, "not built", 0, " ".join(str(error).split())[:60])
    try:
        return Tried(name, "scored", *largest_error(model))
    except ModelError as error:
        return Tried(name, "refused", 0, " ".join(str(error).split()))


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(prefix, "MIN_GROUP_ROWS", 4)
    threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    yield
    torch.set_num_threads(threads)
    logging.set_verbosity(verbosity)


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
@pytest.mark.filterwarnings("ignore")
def test_every_causal_architecture_is_scored_as_row_by_row() -> None:
    began = time.monotonic()
    all_of_them = [(kind, kind, {}) for kind, _ in architectures()]
    table = [tried(*each) for each in (*all_of_them, *MORE)]
    print()
    for row in sorted(table, key=lambda row: (row.outcome, -row.error)):
        error = f"{row.error:8.1e}" if row.outcome == "scored" else " " * 8
        print(f"{row.name:26} {row.outcome:9} {error}  {row.ways}")
    by_outcome = {o: [r for r in table if r.outcome == o] for o in ("scored", "refused")}
    scored, refused = by_outcome["scored"], {row.name for row in by_outcome["refused"]}
    unbuilt = len(table) - len(scored) - len(refused)
    took = time.monotonic() - began
    print(f"{len(scored)} scored, {len(refused)} refused, {unbuilt} not built, {took:.0f} s")

    assert {row.name: row.error for row in scored if not row.error <= MAX_ERROR} == {}
    assert len(scored) >= MIN_SCORED
    assert unbuilt <= MAX_UNBUILT
    names = {row.name for row in scored}
    assert names >= {name for name, _, _ in MORE}
    assert names >= IN_USE
    assert refused == REFUSED
    told = {row.name for row in by_outcome["refused"] if "later ones in sight" in row.ways}
    assert told == REFUSED
    # The short cuts stay where they are right.
    shared = {row.name for row in scored if "shares_prefixes" in row.ways}
    assert {"opt", "llama", "gpt2", "qwen2", "qwen3", "gpt_neox", "phi3", "olmo2"} <= shared
    careful = {row.name for row in scored if "equal_lengths" in row.ways or "alone" in row.ways}
    assert len(careful) <= 3
