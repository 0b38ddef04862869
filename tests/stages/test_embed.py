"""The paper's text of a row, and embeddings that stand where their rows do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from handmade import commit, full_id, make_step

from engine import schema
from engine.models import ModelSource
from engine.stages.embed import EmbedWorker, text_of
from engine.step import POOL, Step


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


def test_single_turn_text_is_the_papers() -> None:
    row = turns(("user", " Add. "), ("input", "1 and 2\n"), ("assistant", " 3 "))
    assert text_of(row) == "Instruction: Add. 1 and 2 Response: 3"
    assert text_of(turns(("user", "Hi"), ("assistant", "Ho"))) == "Instruction: Hi Response: Ho"


def test_longer_conversations_give_first_prompt_and_first_response() -> None:
    row = turns(
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
        ("assistant", "four"),
    )
    assert text_of(row) == "Instruction: one Response: two"


def test_masked_answers_and_what_was_asked_for_them_are_left_out() -> None:
    def masked(content: str, scored: bool | None = False) -> dict[str, Any]:
        return {"role": "assistant", "content": content, "thinking": "", "scored": scored}

    (one,), (two,), (more,) = (turns(("user", text)) for text in ("one", "two", "more"))
    (extra,) = turns(("input", " 1 "))
    right = masked("right", scored=True)
    assert (
        text_of([one, masked("wrong"), two, extra, right]) == "Instruction: two 1 Response: right"
    )
    assert text_of([one, masked("a"), two, masked("b"), more, right, one, masked("c", True)]) == (
        "Instruction: more Response: right"
    )
    assert (
        text_of([one, two, right, more, masked("wrong")]) == "Instruction: one two Response: right"
    )
    assert text_of([one, masked("x", None), two, right]) == "Instruction: one Response: x"
    # Where all are masked no row is scored, and its text is that of an unmasked one.
    assert text_of([one, masked("wrong"), two, masked("x")]) == "Instruction: one Response: wrong"
    # An answer that goes on from a masked one is asked for by the same turn.
    assert text_of([one, masked("wrong"), right]) == "Instruction: one Response: right"


SHARD = "part-00000.parquet"
RESPONSES = ("red", "", "green", "a longer blue", "white", "black")
"""Of the shard's rows; the empty one is flagged."""


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """One shard of 1-pool."""
    made = make_step(tmp_path, "embed", "unused")
    rows = [
        {
            "id": full_id(str(i)),
            "turns": turns(("user", f"Name colour {i}."), ("assistant", response)),
            "flag": schema.OK if response else schema.EMPTY_RESPONSE,
        }
        for i, response in enumerate(RESPONSES)
    ]
    commit(made, POOL, SHARD, pa.Table.from_pylist(rows, schema=schema.POOL))
    return made


@pytest.fixture
def worker() -> EmbedWorker:
    """The bundled embedder, one row at a time: then no row's last bits depend on the others."""
    source = ModelSource("embed.model", "bundled")
    return EmbedWorker(source, "float32", "cpu", 64, batch_rows=1, num_threads=1)


def test_rows_left_out_are_null_and_change_no_other_row(step: Step, worker: EmbedWorker) -> None:
    whole = worker(step, worker.read(step, SHARD))
    assert not whole.flags
    # The flagged row is left out as well, and counts for nothing: it has failed nobody.
    skip = np.array([False, True, False, True, False, True])
    made = worker(step, worker.read(step, SHARD, skip))
    assert made.flags == {schema.EMBEDDING_FAILED: 2}
    assert made.table.schema.equals(whole.table.schema, check_metadata=True)
    kept = np.isin(np.arange(6), [0, 2, 4])
    assert np.asarray(made.table["embedding"].is_valid()).tolist() == kept.tolist()
    assert made.table["id"].equals(whole.table["id"])
    assert made.table.filter(pa.array(kept)).equals(whole.table.filter(pa.array(kept)))


def test_a_shard_of_which_nothing_is_left(step: Step, worker: EmbedWorker) -> None:
    made = worker(step, worker.read(step, SHARD, np.ones(6, dtype=np.bool_)))
    assert made.table["embedding"].null_count == 6
    assert made.flags == {schema.EMBEDDING_FAILED: 5}


def test_vectors_that_are_not_finite_are_null_and_counted_with_those_left_out(
    step: Step, worker: EmbedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One number of a vector is enough: k-means would have no centre, or no distance."""
    whole = worker(step, worker.read(step, SHARD))
    encode = worker.embedder.encode
    bad = {"green": float("nan"), "white": float("inf")}

    def with_bad_numbers(texts: list[str], **options: Any) -> np.ndarray:
        vectors = encode(texts, **options)
        for vector, text in zip(vectors, texts, strict=True):
            vector[7] = next((bad[word] for word in bad if word in text), vector[7])
        return vectors

    monkeypatch.setattr(worker.embedder, "encode", with_bad_numbers)
    skip = np.arange(6) == 5
    made = worker(step, worker.read(step, SHARD, skip))
    assert made.flags == {schema.EMBEDDING_FAILED: 3}
    kept = np.isin(np.arange(6), [0, 3])
    assert np.asarray(made.table["embedding"].is_valid()).tolist() == kept.tolist()
    assert made.table.filter(pa.array(kept)).equals(whole.table.filter(pa.array(kept)))
