"""A stage's handle on the run: what differs, and the message when a run was made otherwise."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from handmade import mark_whole

from engine.config import Config
from engine.errors import RunDirError
from engine.record import Record, fingerprint
from engine.rundir import RunDir
from engine.step import POOL, Step, differences, refuse_drift


def step_at(
    path: Path,
    settings: dict[str, Any],
    stage: str = "finetune",
    folder: str = "proxies/bundled/6-finetune/epoch-1",
    inputs: dict[str, str] | None = None,
) -> Step:
    inputs = {"1-pool": "aaa"} if inputs is None else inputs
    return Step(
        stage=stage,
        folder=folder,
        epoch=1 if "epoch-" in folder else 0,
        config=Config(),
        run=RunDir(path),
        settings=settings,
        inputs=inputs,
        fingerprint=fingerprint(stage, 1, settings, inputs),
    )


def finish(step: Step) -> None:
    step.run.path.mkdir(exist_ok=True)
    record = Record(
        stage=step.stage,
        fingerprint=step.fingerprint,
        settings=dict(step.settings),
        inputs=dict(step.inputs),
        rows_in=0,
        rows_out=0,
        flags={},
        seconds=0.0,
        peak_memory_bytes=0,
        workers=1,
        files=step.entries(),
        details={},
        versions={},
        commit=None,
        finished="2024-01-01T00:00:00+00:00",
    )
    step.run.commit_record(step.folder, record)


# ── differences ──────────────────────────────────────────────────────────────────────────────────


def test_differences_name_each_leaf_with_both_values() -> None:
    old = {"seed": 1, "model": {"files": {"a": "x", "b": "y"}}, "betas": [0.9, 0.999], "same": {}}
    new = {"seed": 2, "model": {"files": {"a": "z", "c": "y"}}, "betas": [0.9, 0.95], "same": {}}
    assert differences(old, new) == [
        ("betas", [0.9, 0.999], [0.9, 0.95]),
        ("model.files.a", "x", "z"),
        ("model.files.b", "y", None),
        ("model.files.c", None, "y"),
        ("seed", 1, 2),
    ]


def test_a_branch_that_became_a_leaf_is_one_difference() -> None:
    assert differences({"a": {"b": 1}}, {"a": 3}) == [("a", {"b": 1}, 3)]


def test_equal_trees_do_not_differ() -> None:
    tree = {"a": {"b": [1, {"c": None}]}}
    assert differences(tree, {"a": {"b": [1, {"c": None}]}}) == []


# ── drift ────────────────────────────────────────────────────────────────────────────────────────


def test_a_step_without_a_record_is_to_be_done(tmp_path: Path) -> None:
    assert refuse_drift(step_at(tmp_path, {"seed": 1})) == [False]


def test_a_step_recorded_under_the_same_settings_is_done(tmp_path: Path) -> None:
    finish(step_at(tmp_path, {"seed": 1}))
    assert refuse_drift(step_at(tmp_path, {"seed": 1})) == [True]


def test_drift_names_every_key_both_values_and_both_ways_out(tmp_path: Path) -> None:
    finish(step_at(tmp_path, {"seed": 1, "model": {"dtype": "float32"}, "dropout": 0.0}))
    now = step_at(tmp_path, {"seed": 7, "model": {"dtype": "bfloat16"}, "dropout": 0.0})
    with pytest.raises(RunDirError) as caught:
        refuse_drift(now)
    message = str(caught.value)
    assert str(tmp_path / now.folder) in message
    assert "  seed: was 1, now 7\n" in message
    assert "  model.dtype: was 'float32', now 'bfloat16'\n" in message
    assert "dropout" not in message
    assert "--run-dir" in message
    assert "--rebuild finetune" in message


def test_drift_of_an_input_is_refused_too(tmp_path: Path) -> None:
    finish(step_at(tmp_path, {"seed": 1}, inputs={"1-pool": "aaa"}))
    with pytest.raises(RunDirError, match=r"from other inputs(.|\n)*--run-dir(.|\n)*--rebuild"):
        refuse_drift(step_at(tmp_path, {"seed": 1}, inputs={"1-pool": "bbb"}))


# ── shards ───────────────────────────────────────────────────────────────────────────────────────


def pool_of(path: Path, *shards: str) -> None:
    for shard in shards:
        RunDir(path).commit_table(POOL, shard, pa.table({"row": [1, 2]}), "aaa")
    mark_whole(RunDir(path), POOL, "aaa")


def test_missing_are_the_shards_without_a_current_result(tmp_path: Path) -> None:
    pool_of(tmp_path, "part-00001.parquet", "part-00000.parquet", "part-00002.parquet")
    step = step_at(tmp_path, {"seed": 1})
    assert step.missing() == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    step.commit("part-00001.parquet", pa.table({"x": [1]}))
    assert step.missing() == ["part-00000.parquet", "part-00002.parquet"]
    # Under another seed nothing of it counts.
    assert len(step_at(tmp_path, {"seed": 2}).missing()) == 3


def test_a_step_reads_its_inputs_and_itself_under_their_own_fingerprints(tmp_path: Path) -> None:
    pool_of(tmp_path, "part-00000.parquet")
    step = pickle.loads(pickle.dumps(step_at(tmp_path, {"seed": 1})))  # noqa: S301 - as Ray does
    step.commit("part-00000.parquet", pa.table({"x": [5, 6]}), {"rows": 2})
    assert step.read(POOL, "part-00000.parquet")["row"].to_pylist() == [1, 2]
    assert step.read(step.folder, "part-00000.parquet", ["x"])["x"].to_pylist() == [5, 6]
    stale = step_at(tmp_path, {"seed": 1}, inputs={"1-pool": "bbb"})
    with pytest.raises(RunDirError, match="made with other settings"):
        stale.read(POOL, "part-00000.parquet")


@pytest.mark.parametrize(
    ("stage", "folder", "label"),
    [
        ("pool", "1-pool", "pool"),
        ("finetune", "proxies/bundled/6-finetune/epoch-1", "finetune epoch 1"),
        ("score", "proxies/bundled/7-score", "score"),
    ],
)
def test_labels_name_the_epoch_where_there_is_one(stage: str, folder: str, label: str) -> None:
    assert step_at(Path("run"), {}, stage, folder).label == label


def test_inputs_of_the_proxys_part_are_named_in_full() -> None:
    step = step_at(Path("run"), {})
    assert step.proxy_input("4-tokens") == "proxies/bundled/4-tokens"
    assert step.proxy_input("5-perplexity", 0) == "proxies/bundled/5-perplexity/epoch-0"


def test_a_stage_written_over_by_what_outlived_an_older_run_is_not_done(tmp_path: Path) -> None:
    """A task of a killed run with other settings; the run that finds it does that shard again."""
    step, older = step_at(tmp_path, {"seed": 2}), step_at(tmp_path, {"seed": 1})
    pool_of(tmp_path, "part-00000.parquet", "part-00001.parquet")
    for shard in step.shards():
        step.commit(shard, pa.table({"x": [2]}))
    finish(step)
    assert refuse_drift(step) == [True]
    older.commit("part-00007.parquet", pa.table({"x": [1]}))  # of a pool that was larger
    with pytest.raises(RunDirError, match=r"part-00007\.parquet is no file of this run"):
        refuse_drift(step)
    (tmp_path / step.folder / "part-00007.parquet").unlink()
    older.commit("part-00001.parquet", pa.table({"x": [1]}))
    assert refuse_drift(step) == [False]
    assert step.missing() == ["part-00001.parquet"]


def test_a_stage_whose_file_is_gone_is_not_done(tmp_path: Path) -> None:
    """So that running again mends it: deleting a damaged shard is a way out."""
    step = step_at(tmp_path, {"seed": 1})
    step.commit("part-00000.parquet", pa.table({"x": [1]}))
    finish(step)
    assert refuse_drift(step) == [True]
    (tmp_path / step.folder / "part-00000.parquet").unlink()
    assert refuse_drift(step) == [False]


def test_two_drifts_are_told_at_once_with_both_stages_to_redo(tmp_path: Path) -> None:
    """One after the other they would each send a person to the other's way out."""
    for stage, folder in (("cluster", "3-cluster"), ("finetune", "6-finetune")):
        finish(step_at(tmp_path, {"seed": 1}, stage=stage, folder=folder))
    now = [
        step_at(tmp_path, {"seed": 2}, stage=stage, folder=folder)
        for stage, folder in (("cluster", "3-cluster"), ("finetune", "6-finetune"))
    ]
    with pytest.raises(RunDirError, match="--rebuild cluster --rebuild finetune"):
        refuse_drift(*now)
