"""The run directory's three rules: one way to commit, current or absent, record last."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import hashes, rundir, shards, storage
from engine.errors import RunDirError
from engine.rundir import RECORD, Record, RunDir, concat, fingerprint

FOLDER = "proxies/nano/5-perplexity/epoch-0"
SHARD = "part-00000.parquet"
TABLE = pa.table({"id": ["a", "b", "c"], "x": pa.array([1.5, None, -2.0], pa.float64())})


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "run").mkdir()
    return RunDir(tmp_path / "run")


def files(run: RunDir) -> list[str]:
    """Every file of the run, hidden ones included."""
    found = (Path(folder) / name for folder, _, names in os.walk(run.path) for name in names)
    return sorted(str(path.relative_to(run.path)) for path in found)


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "stage": "perplexity",
        "fingerprint": "f" * 32,
        "settings": {"dtype": "float32", "betas": [0.9, 0.999], "none": None},
        "inputs": {"4-tokens": "e" * 32},
        "rows_in": 3,
        "rows_out": 3,
        "flags": {"ok": 2, "duplicate": 1},
        "seconds": 1.25,
        "peak_memory_bytes": 2**33,
        "workers": 2,
        "files": {"part-00000.parquet": {"bytes": 7, "sha256": "0" * 64, "rows": 3}},
        "details": {"größe": [1, {"a": 2.5}]},
        "versions": {"torch": "2.13.0"},
        "commit": None,
        "finished": "2024-01-01T00:00:00+00:00",
    }
    return Record(**{**values, **changes})


# ── one way to commit ────────────────────────────────────────────────────────────────────────────


def test_commit_puts_and_replaces_whole_files(run: RunDir) -> None:
    run.commit("a/b.txt", b"first, and longer")
    assert (run.path / "a/b.txt").read_bytes() == b"first, and longer"
    run.commit("a/b.txt", b"second")
    assert (run.path / "a/b.txt").read_bytes() == b"second"
    assert files(run) == ["a/b.txt"]


def interrupted_write(*args: Any, **_: Any) -> None:
    """A write that dies half-way, the file begun."""
    Path(args[1]).write_bytes(b"PAR1 half a file")
    raise KeyboardInterrupt


def test_an_interrupted_table_leaves_nothing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards.pq, "write_table", interrupted_write)
    with pytest.raises(KeyboardInterrupt):
        run.commit_table(FOLDER, SHARD, TABLE, "f")
    assert files(run) == []


def test_an_interrupted_table_leaves_the_one_before(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.commit_table(FOLDER, SHARD, TABLE, "f")
    monkeypatch.setattr(shards.pq, "write_table", interrupted_write)
    with pytest.raises(KeyboardInterrupt):
        run.commit_table(FOLDER, SHARD, TABLE.slice(1), "g")
    monkeypatch.undo()
    assert run.read_table(FOLDER, SHARD, "f").equals(TABLE)
    assert files(run) == [f"{FOLDER}/{SHARD}"]


def test_interrupted_bytes_leave_nothing(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        run.commit("run.yaml", b"select: {}\n")
    assert files(run) == []


KILLED = """
import resource, signal, sys
from pathlib import Path
import pyarrow as pa
from engine.rundir import RunDir
run, folder, name, limit = RunDir(Path(sys.argv[1])), *sys.argv[2:4], int(sys.argv[4])
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
if name.endswith(".parquet"):
    run.commit_table(folder, name, pa.table({"id": [f"{at * at:040d}" for at in range(5000)]}), "g")
else:
    run.commit(f"{folder}/{name}", b"a record" * 5000)
"""


@pytest.mark.parametrize("name", ["part-00000.parquet", RECORD])
@pytest.mark.parametrize("there_before", [False, True])
def test_a_writer_killed_in_mid_file_leaves_what_was_there(
    run: RunDir, name: str, there_before: bool
) -> None:
    """The system kills it in the very call that would write more than a few kilobytes."""
    if there_before:
        run.commit_table(FOLDER, SHARD, TABLE, "f")
        run.commit_record(FOLDER, record())
    before = {file: (run.path / file).read_bytes() for file in files(run)}
    command = [sys.executable, "-c", KILLED, str(run.path), FOLDER, name, "5000"]
    died = subprocess.run(command, cwd=Path(__file__).parents[1], check=False)
    assert died.returncode == -signal.SIGXFSZ
    (half,) = run.path.rglob(".*.tmp")
    assert half.stat().st_size == 5000
    assert half.name.startswith(f".{name}.")
    assert not run.is_current(FOLDER, SHARD, "g")
    assert (run.record(FOLDER) is not None) == there_before
    run.sweep()
    assert {file: (run.path / file).read_bytes() for file in files(run)} == before


def test_what_says_the_same_is_not_written_again(run: RunDir) -> None:
    run.commit_changed("run.yaml", b"a: 1")
    before = (run.path / "run.yaml").stat()
    run.commit_changed("run.yaml", b"a: 1")
    assert (run.path / "run.yaml").stat() == before
    run.commit_changed("run.yaml", b"a: 2")
    assert (run.path / "run.yaml").read_bytes() == b"a: 2"


def test_a_finished_file_is_moved_into_place(run: RunDir, tmp_path: Path) -> None:
    source = tmp_path / "made elsewhere"
    source.write_bytes(b"rows")
    run.commit("8-select/selected.jsonl", b"old")
    run.commit_file("8-select/selected.jsonl", source)
    assert (run.path / "8-select/selected.jsonl").read_bytes() == b"rows"
    assert not source.exists()
    with pytest.raises(FileNotFoundError):
        run.commit_file("8-select/other.jsonl", source)
    assert files(run) == ["8-select/selected.jsonl"]


def test_a_run_travels_to_workers(run: RunDir) -> None:
    run.commit_table(FOLDER, SHARD, TABLE, "f")
    there = pickle.loads(pickle.dumps(run))  # noqa: S301 - as Ray does
    assert there == run
    assert there.read_table(FOLDER, SHARD, "f").equals(TABLE)


# ── current or absent ────────────────────────────────────────────────────────────────────────────


def test_a_table_comes_back_as_it_went_in(run: RunDir) -> None:
    schema = pa.schema([pa.field("x", pa.float64(), metadata={b"meaning": b"nats"})])
    table = pa.table({"x": [0.1, 1e300]}, schema=schema.with_metadata({b"own": b"mark"}))
    run.commit_table(FOLDER, SHARD, table, "f")
    back = run.read_table(FOLDER, SHARD, "f")
    assert back.equals(table)
    assert back.schema.field("x").metadata == {b"meaning": b"nats"}
    assert back.schema.metadata[b"own"] == b"mark"
    assert run.read_table(FOLDER, SHARD, "f", columns=["x"])["x"].to_pylist() == [0.1, 1e300]
    assert run.num_rows(FOLDER, SHARD) == 2


def test_every_shard_says_what_it_is(run: RunDir) -> None:
    run.commit_table(FOLDER, SHARD, TABLE, "f", {"rows": 3})
    mark = json.loads(pq.read_schema(run.path / FOLDER / SHARD).metadata[b"poolscore"])
    assert mark == {"stage": FOLDER, "fingerprint": "f", "shard": SHARD, "receipt": {"rows": 3}}


def test_receipts_come_back(run: RunDir) -> None:
    receipt = {"flags": {"ok": 2}, "seconds": 0.125, "peak_memory_bytes": 2**40}
    run.commit_table(FOLDER, SHARD, TABLE, "f", receipt)
    assert run.receipt(FOLDER, SHARD) == receipt
    run.commit_table(FOLDER, SHARD, TABLE, "f")
    assert run.receipt(FOLDER, SHARD) == {}


def test_only_the_fingerprint_asked_for_is_current(run: RunDir) -> None:
    assert not run.is_current(FOLDER, SHARD, "f")
    run.commit_table(FOLDER, SHARD, TABLE, "f")
    assert run.is_current(FOLDER, SHARD, "f")
    assert not run.is_current(FOLDER, SHARD, "g")
    assert not run.is_current(FOLDER, "part-00001.parquet", "f")


def test_a_parquet_file_of_somebody_else_is_not_current(run: RunDir) -> None:
    (run.path / FOLDER).mkdir(parents=True)
    pq.write_table(TABLE, run.path / FOLDER / SHARD)
    assert not run.is_current(FOLDER, SHARD, "f")
    with pytest.raises(RunDirError, match="made with other settings"):
        run.read_table(FOLDER, SHARD, "f")


def test_reading_a_stale_shard_is_refused_by_path(run: RunDir) -> None:
    run.commit_table(FOLDER, SHARD, TABLE, "f")
    with pytest.raises(RunDirError, match="made with other settings") as caught:
        run.read_table(FOLDER, SHARD, "g")
    assert str(run.path / FOLDER / SHARD) in str(caught.value)


def test_reading_a_missing_shard_is_refused_by_path(run: RunDir) -> None:
    with pytest.raises(RunDirError, match="is missing") as caught:
        run.read_table(FOLDER, SHARD, "f")
    assert str(run.path / FOLDER / SHARD) in str(caught.value)


def test_a_shard_cut_short_anywhere_is_not_current(run: RunDir) -> None:
    run.commit_table(FOLDER, SHARD, TABLE, "f")
    path = run.path / FOLDER / SHARD
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert not run.is_current(FOLDER, SHARD, "f"), length
        with pytest.raises(RunDirError, match="is damaged") as caught:
            run.read_table(FOLDER, SHARD, "f")
        assert str(path) in str(caught.value)


KINDS = pa.table(
    {
        "text": [f"text {i % 5}" for i in range(64)],  # of few values: a dictionary page
        "number": pa.array([i / 7 for i in range(64)], pa.float64()),
        "null": pa.array([None] * 64, pa.int32()),
        "list": [[i, i + 1] for i in range(64)],
        "flag": [i % 3 == 0 for i in range(64)],
    }
)


def test_no_flipped_bit_of_the_data_goes_unnoticed(run: RunDir) -> None:
    """Each bit before the footer: an error that names the file, or what was written comes out."""
    run.commit_table(FOLDER, SHARD, KINDS, "f")
    path = run.path / FOLDER / SHARD
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    told: list[str] = []
    for bit in range(8 * footer):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            assert run.read_table(FOLDER, SHARD, "f").equals(KINDS), bit
        except RunDirError as error:
            told.append(str(error))
    assert all(f"{path} is damaged" in text for text in told)
    assert len(told) > 0.8 * 8 * footer  # the rest are numbers in headers that nobody reads


def test_a_flipped_bit_of_the_footer_is_an_error_or_another_digest(run: RunDir) -> None:
    run.commit_table(FOLDER, SHARD, KINDS, "f")
    path = run.path / FOLDER / SHARD
    whole = path.read_bytes()
    before = run.digest(FOLDER, SHARD)
    told: list[str] = []
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in range(start, len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        run.is_current(FOLDER, SHARD, "f")  # a damaged footer makes it not current, no more
        for ask in (
            lambda: run.read_table(FOLDER, SHARD, "f"),
            lambda: run.num_rows(FOLDER, SHARD),
            lambda: run.receipt(FOLDER, SHARD),
        ):
            try:
                ask()
            except RunDirError as error:
                told.append(str(error))
        assert run.digest(FOLDER, SHARD) != before
    assert all(str(path) in text for text in told)


def test_what_cannot_be_read_is_told_by_path(run: RunDir) -> None:
    (run.path / FOLDER).mkdir(parents=True)
    for ask in (run.num_rows, run.receipt, run.digest):
        with pytest.raises(RunDirError, match=r"part-00000\.parquet is missing"):
            ask(FOLDER, SHARD)
    (run.path / FOLDER / SHARD).write_bytes(b"PAR1 cut off")
    for ask in (run.num_rows, run.receipt):
        with pytest.raises(RunDirError, match=r"part-00000\.parquet is damaged"):
            ask(FOLDER, SHARD)
    (run.path / "folder").write_bytes(b"a file in the place of a stage")
    assert run.record("folder") is None
    assert run.sizes("folder") == {}


def test_only_our_own_temporary_files_are_swept(run: RunDir, tmp_path: Path) -> None:
    """Not those that look alike, nor in folders of somebody else, nor behind links."""
    own = f".part-00000.parquet.{5:032x}.tmp"
    swept = [own, f"1-pool/{own}", f"proxies/any/{own}", f"{FOLDER}/{own}"]
    kept = [
        f"notes/{own}",
        f"1-pool/sub/{own}",
        "1-pool/.part-00000.parquet.tmp",
        "1-pool/.mine.tmp",
        f"1-pool/part-00000.parquet.{5:032x}.tmp",
        f"1-pool/.x.{5:031x}.tmp",
        f"proxies/any/8-select/{own}/inside",
    ]
    for name in (*swept, *kept):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_bytes(b"half")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / own).write_bytes(b"another run's")
    (run.path / "2-embed").symlink_to(outside)
    run.sweep()
    assert files(run) == sorted(kept)
    assert (outside / own).exists()


def test_shards_are_listed_in_order_and_nothing_else_is(run: RunDir) -> None:
    for name in ("part-00010.parquet", "part-00002.parquet", "centroids.parquet"):
        run.commit_table("3-cluster", name, TABLE, "f")
    (run.path / "3-cluster" / f".part-00003.parquet.{7:032x}.tmp").write_bytes(b"half")
    assert run.shards("3-cluster") == ["part-00002.parquet", "part-00010.parquet"]
    assert run.shards("4-tokens") == []


def test_concat_stacks_shards_without_their_marks(run: RunDir) -> None:
    for number in range(2):
        run.commit_table(FOLDER, f"part-{number:05}.parquet", TABLE.slice(number), f"f{number}")
    parts = [run.read_table(FOLDER, f"part-{n:05}.parquet", f"f{n}") for n in range(2)]
    stacked = concat(parts)
    assert stacked["id"].to_pylist() == ["a", "b", "c", "b", "c"]
    assert stacked.schema.metadata is None


# ── record last ──────────────────────────────────────────────────────────────────────────────────


def test_a_record_comes_back_as_it_went_in(run: RunDir) -> None:
    assert run.record(FOLDER) is None
    run.commit_record(FOLDER, record())
    assert run.record(FOLDER) == record()


@pytest.mark.parametrize("text", ["", "{}", '{"stage": "perplexity"', '{"stage": "x", "more": 1}'])
def test_a_damaged_record_is_refused_with_the_way_out(run: RunDir, text: str) -> None:
    run.commit(f"{FOLDER}/{RECORD}", text.encode())
    with pytest.raises(RunDirError, match="is damaged") as caught:
        run.record(FOLDER)
    assert str(run.path / FOLDER / RECORD) in str(caught.value)
    assert str(caught.value).endswith("--rebuild perplexity")
    run.commit(f"1-pool/{RECORD}", text.encode())
    with pytest.raises(RunDirError, match=r"--rebuild pool$"):
        run.record("1-pool")


def test_clear_removes_the_stage_and_only_it(run: RunDir) -> None:
    run.commit_table("1-pool", SHARD, TABLE, "f")
    run.commit_table("2-embed", SHARD, TABLE, "f")
    run.commit_record("2-embed", record())
    run.clear("2-embed")
    assert files(run) == [f"1-pool/{SHARD}"]
    run.clear("2-embed")  # nothing there, nothing to do


def test_clear_removes_the_record_first(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.commit_table(FOLDER, SHARD, TABLE, "f")
    run.commit_record(FOLDER, record())

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rundir.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        run.clear(FOLDER)
    assert files(run) == [f"{FOLDER}/{SHARD}"]
    assert run.record(FOLDER) is None


# ── hashing inputs ───────────────────────────────────────────────────────────────────────────────


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_hashes_are_sha256_by_name(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"")
    found = run.hash_files({"config.json": tmp_path / "a", "empty": tmp_path / "b"})
    assert found == {"config.json": sha256(b"one"), "empty": sha256(b"")}


def test_a_known_path_size_and_time_is_not_hashed_again(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    run.hash_files({"weights": path})
    monkeypatch.setattr(hashes, "sha256", lambda _: pytest.fail("it is read again"))
    assert RunDir(run.path).hash_files({"other name": path}) == {"other name": sha256(b"one")}


def test_a_byte_changed_behind_size_and_time_is_found(run: RunDir, tmp_path: Path) -> None:
    """As tools leave it that copy times too."""
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before = path.stat()
    run.hash_files({"weights": path})
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the system's clock ticks in milliseconds
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (3, before.st_mtime_ns)
    assert run.hash_files({"weights": path}) == {"weights": sha256(b"two")}


@pytest.mark.parametrize(("content", "seconds_later"), [(b"two", 1), (b"three", 0)])
def test_another_size_or_time_is_hashed_again(
    run: RunDir, tmp_path: Path, content: bytes, seconds_later: int
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before = path.stat()
    assert run.hash_files({"weights": path}) == {"weights": sha256(b"one")}
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + seconds_later * 10**9))
    assert run.hash_files({"weights": path}) == {"weights": sha256(content)}


def test_a_copy_elsewhere_is_hashed_for_itself(run: RunDir, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for path, content in ((first, b"one"), (second, b"two")):
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
    assert run.hash_files({"x": first}) == {"x": sha256(b"one")}
    assert run.hash_files({"x": second}) == {"x": sha256(b"two")}


def test_damaged_remembered_hashes_are_forgotten(run: RunDir, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    run.commit("hashes.json", b"{")
    assert run.hash_files({"weights": path}) == {"weights": sha256(b"one")}


# ── fingerprints ─────────────────────────────────────────────────────────────────────────────────

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
TREES = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


def reversed_keys(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: reversed_keys(tree[key]) for key in reversed(tree)}
    return [reversed_keys(item) for item in tree] if isinstance(tree, list) else tree


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in the tree that is no mapping or list with something in it."""
    if isinstance(tree, dict | list) and tree:
        keys = tree if isinstance(tree, dict) else range(len(tree))
        return [leaf for key in keys for leaf in leaves(tree[key], (*path, key))]
    return [path]


def test_a_fingerprint_is_a_promise() -> None:
    # Written out, not recomputed: another value would orphan every run directory there is.
    canonical = (
        b'{"inputs":{"1-pool":"aa"},"settings":{"model":"gr\\u00fcn","seed":42},'
        b'"stage":"embed","version":1}'
    )
    found = fingerprint("embed", 1, {"seed": 42, "model": "grün"}, {"1-pool": "aa"})
    assert found == sha256(canonical)[:32] == "63757f75370804ced78552e7b300cf9c"


@settings(deadline=None)
@given(settings=TREES, inputs=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3))
def test_the_order_of_keys_does_not_matter(
    settings: dict[str, Any], inputs: dict[str, str]
) -> None:
    turned = reversed_keys(settings)
    assert fingerprint("embed", 1, settings, inputs) == fingerprint(
        "embed", 1, turned, reversed_keys(inputs)
    )
    # … nor does the way through JSON, which a record takes.
    assert fingerprint("embed", 1, settings, inputs) == fingerprint(
        "embed", 1, json.loads(json.dumps(settings)), inputs
    )


@settings(deadline=None)
@given(settings=TREES, value=LEAVES, data=st.data())
def test_any_changed_leaf_changes_it(
    settings: dict[str, Any], value: Any, data: st.DataObject
) -> None:
    *parents, last = data.draw(st.sampled_from(leaves(settings)))
    changed = copy.deepcopy(settings)
    place: Any = changed
    for parent in parents:
        place = place[parent]
    same = json.dumps(place[last]) == json.dumps(value)
    place[last] = value
    before, after = (fingerprint("embed", 1, tree, {}) for tree in (settings, changed))
    assert (before == after) == same


def test_stage_version_and_inputs_change_it() -> None:
    made = [
        fingerprint("embed", 1, {"seed": 1}, {"1-pool": "a"}),
        fingerprint("cluster", 1, {"seed": 1}, {"1-pool": "a"}),
        fingerprint("embed", 2, {"seed": 1}, {"1-pool": "a"}),
        fingerprint("embed", 1, {"seed": 1}, {"1-pool": "b"}),
        fingerprint("embed", 1, {"seed": 1}, {"2-embed": "a"}),
        fingerprint("embed", 1, {"seed": 1}, {}),
        fingerprint("embed", 1, {"seed": "1"}, {"1-pool": "a"}),
        fingerprint("embed", 1, {"seed": None}, {"1-pool": "a"}),
        fingerprint("embed", 1, {}, {"1-pool": "a"}),
    ]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("name", ["gone.jsonl", "folder"])
def test_a_file_that_cannot_be_hashed_is_named(tmp_path: Path, name: str) -> None:
    """Missing, or there but not to be read (a folder, which root cannot read either)."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunDirError, match=rf"cannot read .*{name}"):
        RunDir(tmp_path / "run").hash_files({name: tmp_path / name})


# ── storage that fails ───────────────────────────────────────────────────────────────────────────


def failing(times: int, code: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the next `times` calls of fsync fail, as storage does; returns the pauses made."""
    left, pauses, real = [times], [], os.fsync

    def fsync(file: int) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(storage.time, "sleep", pauses.append)
    return pauses


def test_storage_that_is_away_is_waited_for(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = failing(6, errno.ESTALE, monkeypatch)
    run.commit("a/b.txt", b"whole")
    assert (run.path / "a/b.txt").read_bytes() == b"whole"
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert files(run) == ["a/b.txt"]


def test_storage_that_stays_away_is_an_error(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(10**6, errno.EIO, monkeypatch)
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        run.commit("b.txt", b"whole")
    assert files(run) == []


def test_a_full_disk_is_not_waited_for(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    run.commit("b.txt", b"before")
    pauses = failing(1, errno.ENOSPC, monkeypatch)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        run.commit("b.txt", b"after")
    assert pauses == []
    assert (run.path / "b.txt").read_bytes() == b"before"
    assert files(run) == ["b.txt"]


@pytest.mark.parametrize("ask", ["is_current", "read_table"])
def test_a_disk_that_fails_is_not_taken_for_damaged_bytes(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    run.commit_table(FOLDER, SHARD, TABLE, "f")

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(shards.pq, "read_schema", fails)
    monkeypatch.setattr(shards.pq, "ParquetFile", fails)
    with pytest.raises(RunDirError, match=r"part-00000.*cannot be read: Too many open files"):
        getattr(run, ask)(FOLDER, SHARD, "f")


def test_patience_begins_with_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the work took until then."""
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(storage, "FIRST_PAUSE", 0.0)
    tried = []

    def slow() -> int:
        tried.append(1)
        if len(tried) == 1:
            time.sleep(0.4)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return len(tried)

    assert storage.patiently(slow) == 2


def test_nothing_is_written_through_a_link_that_leads_out(run: RunDir, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    run.path.mkdir(exist_ok=True)
    (run.path / "2-embed").symlink_to(outside)
    with pytest.raises(RunDirError, match=r"leads out of the run directory(.|\n)*remove the link"):
        run.commit_table("2-embed", "part-00000.parquet", pa.table({"a": [1]}), "f")
    assert list(outside.iterdir()) == []


def test_a_link_in_place_of_a_file_is_replaced(run: RunDir, tmp_path: Path) -> None:
    outside = tmp_path / "precious.txt"
    outside.write_text("keep me")
    run.path.mkdir(exist_ok=True)
    (run.path / "run.yaml").symlink_to(outside)
    run.commit("run.yaml", b"new")
    assert outside.read_text() == "keep me"
    assert not (run.path / "run.yaml").is_symlink()
