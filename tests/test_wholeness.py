"""Readers go by the record: what is lost, cut short, altered or foreign stops them by its name."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from handmade import commit_run, make_step, mark_whole, reader

from engine import cli, hashes, open_run, pipeline, readers
from engine.config import Config, SelectConfig
from engine.errors import ConfigError, PoolError, PoolscoreError, RunDirError
from engine.hashes import sha256
from engine.record import Record
from engine.results import Run, Status
from engine.rundir import RECORD, SETTINGS, RunDir
from engine.stages import score, select
from engine.step import POOL, proxy_folder
from engine.summary import status_table
from engine.targets import refuse_run_dir
from engine.wholeness import altered, foreign, has_state, lost, refuse_faults

SHARDS = ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
TOKENS_FOLDER = "proxies/hand/4-tokens"
SCORE, SELECT = "proxies/hand/7-score", "proxies/hand/8-select"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool of three lines in two files, and a run over nine rows, three a shard."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (folder / "data" / name).write_text('{"instruction": "Say yes.", "output": "Yes."}\n')
    config = Config.from_tree(
        {"pool": {"paths": [str(folder / "data")]}, "proxy": {"name": "hand"}}
    )
    step = make_step(folder / "run", "score", "7-score", config)
    for number, shard in enumerate(SHARDS):
        first = 3 * number
        commit_run(
            step,
            shard,
            first,
            ids=[f"{first + i:x}" for i in range(3)],
            clusters=[0, 0, 1],
            sums=[[9.0] * 3, [3.0 + first + i for i in range(3)]],
            counts=[3] * 3,
            flags=["ok"] * 3,
        )
    score.run(step, nodes=None)  # type: ignore[arg-type]
    select.run(reader(step, "select", "8-select"), nodes=None)  # type: ignore[arg-type]
    write_records(folder / "run", config)
    return folder


def write_records(path: Path, config: Config) -> None:
    """Of every stage, as if all had run."""
    run, own = RunDir(path), proxy_folder(config)
    marks: dict[str, str] = {}
    for stage, folder, _, reads in pipeline.layout(config):
        short = folder.removeprefix(f"{own}/")
        marks[folder] = f"made-{short}" if short[0] in "789" else f"made-{folder}"
        run.make(folder)
        record = mark_whole(run, folder, marks[folder], stage.NAME)
        inputs = {name: marks[name] for name in reads}
        run.commit_record(folder, record.model_copy(update={"inputs": inputs}))
    run.commit(SETTINGS, config.to_yaml().encode())


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to break; its pool is the copied one."""
    shutil.copytree(made, tmp_path / "own")
    settings = tmp_path / "own" / "run" / SETTINGS
    settings.write_text(settings.read_text().replace(str(made), str(tmp_path / "own")))
    return tmp_path / "own"


@pytest.fixture
def run(folder: Path) -> Run:
    return open_run(folder / "run")


READERS: dict[str, tuple[str, Callable[[Run, Path], object]]] = {
    "pool": (POOL, lambda run, _: run.pool()),
    "rejected": (POOL, lambda run, _: run.rejected()),
    "scores": (SCORE, lambda run, _: run.scores()),
    "selection": (SELECT, lambda run, _: run.selection()),
    "select": (SCORE, lambda run, to: run.select(SelectConfig(rows=2), to)),
    "select from": (POOL, lambda run, to: run.select(SelectConfig(rows=2), to)),
}


def first_file(run: Run, folder: str) -> Path:
    record = run.dir.record(folder)
    assert record is not None
    return run.dir.path / folder / next(reversed(record.files))


def test_a_whole_run_is_read(run: Run, tmp_path: Path) -> None:
    assert run.pool()["row"].to_pylist() == run.scores()["row"].to_pylist() == list(range(9))
    # round(9 x 10 / 100) rows: of the larger cluster, the one that learnt least.
    assert run.selection()["row"].to_pylist() == [7]
    assert run.select(SelectConfig(rows=2), tmp_path / "new" / "two.jsonl") == (9, 2)
    lines = (tmp_path / "new" / "two.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"][0] for line in lines] == ["7", "8"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", ["lost", "cut short", "foreign"])
def test_what_is_not_as_recorded_stops_every_reader(
    run: Run, tmp_path: Path, reader: str, what: str
) -> None:
    place, read = READERS[reader]
    path = first_file(run, place)
    if what == "lost":
        path.unlink()
        told = f"{path.name} is missing"
    elif what == "cut short":
        size = path.stat().st_size
        os.truncate(path, size - 100)
        told = f"{path.name} has {size - 100:,} bytes instead of {size:,}"
    else:
        path = path.with_name("part-00099.parquet")
        shutil.copy(run.dir.path / POOL / SHARDS[0], path)
        told = "part-00099.parquet is no file of this run"
    with pytest.raises(RunDirError) as caught:
        read(run, tmp_path / "x.jsonl")
    assert f"{place}/{told}" in str(caught.value)
    assert "poolscore run" in str(caught.value)
    assert not (tmp_path / "x.jsonl").exists()


def test_a_copy_of_another_shard_under_a_shards_name_is_told(run: Run) -> None:
    """All of one size, with the right fingerprint."""
    folder = run.dir.path / SCORE
    data = (folder / SHARDS[1]).read_bytes()
    (folder / SHARDS[0]).write_bytes(data)
    record = run.dir.record(SCORE)
    assert record is not None
    entry = record.files[SHARDS[1]]
    files = {**record.files, SHARDS[0]: entry}
    run.dir.commit_record(SCORE, record.model_copy(update={"files": files}))
    with pytest.raises(RunDirError, match=r"part-00000.*was written as .*part-00001"):
        open_run(run.dir.path).scores()


def test_hidden_files_count_for_nothing(run: Run) -> None:
    (run.dir.path / POOL / ".DS_Store").write_bytes(b"x")
    (run.dir.path / POOL / ".part-00007.parquet.Xy12").write_bytes(b"of rsync")
    assert len(run.pool()) == 9


def test_nothing_is_read_behind_an_unfinished_pool(run: Run, tmp_path: Path) -> None:
    (run.dir.path / POOL / RECORD).unlink()
    for read in (Run.pool, Run.scores):
        with pytest.raises(RunDirError, match=r"pool.*is not (done|finished)"):
            read(run)
    with pytest.raises(RunDirError, match=r"1-pool is not finished"):
        run.step("score").shards()


def test_a_flipped_bit_stops_the_reader_by_name(run: Run) -> None:
    path = run.dir.path / SCORE / SHARDS[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunDirError, match=r"part-00001\.parquet is damaged"):
        run.scores()


# ── before a stage reads its inputs ──────────────────────────────────────────────────────────────


def test_an_altered_model_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    """Of one size, so that only its digest can tell."""
    run, place = RunDir(tmp_path), "proxies/hand/6-finetune/epoch-1"
    run.commit(f"{place}/config.json", b"{}")
    run.commit(f"{place}/model.safetensors", b"weights")
    record = mark_whole(run, place, "made", "finetune")
    assert refuse_faults(run, place, digests=True) == record
    run.commit(f"{place}/model.safetensors", b"wEights")
    assert refuse_faults(run, place) == record
    with pytest.raises(RunDirError, match=r"model\.safetensors has other bytes than were written"):
        refuse_faults(run, place, digests=True)
    run.commit(f"{place}/model.safetensors", b"weights")
    run.commit(f"{place}/adapter_config.json", b"{}")  # which transformers would mind
    with pytest.raises(RunDirError, match=r"adapter_config\.json is no file of this run"):
        refuse_faults(run, place, digests=True)


def trained(tmp_path: Path) -> tuple[RunDir, str, Record]:
    """A finished epoch with a state that the next one starts from."""
    run, place = RunDir(tmp_path), "proxies/hand/6-finetune/epoch-1"
    for name in ("model.safetensors", "state/latest", "state/global_step3/rank_0.pt"):
        run.commit(f"{place}/{name}", name.encode())
    run.commit(f"{place}/state/.hidden", b"")
    return run, place, mark_whole(run, place, "made", "finetune")


def test_only_who_loads_a_training_hashes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, place, record = trained(tmp_path)
    hashed: list[str] = []

    def spy(path: Path) -> str:
        hashed.append(path.name)
        return sha256(path)

    monkeypatch.setattr(hashes, "sha256", spy)
    config = Config.from_tree({"proxy": {"name": "hand"}})
    loaded = {
        "report": [],
        "score": [],
        "finetune": ["latest", "rank_0.pt"],
        "perplexity": ["model.safetensors"],
    }
    for stage, names in loaded.items():
        step = make_step(tmp_path, stage, "x", config)
        for wanted in (sorted(names), []):  # the second time it is remembered
            hashed.clear()
            assert refuse_faults(run, place, partial(step.loads, place)) == record
            assert sorted(hashed) == wanted


def test_altered_state_is_told_before_it_is_loaded(tmp_path: Path) -> None:
    run, place, record = trained(tmp_path)
    names = ["model.safetensors", "state/global_step3/rank_0.pt", "state/latest"]
    assert sorted(record.files) == names
    run.commit(f"{place}/state/latest", b"state/lAtest")
    step = make_step(tmp_path, "finetune", "x")
    with pytest.raises(RunDirError, match=r"state/latest has other bytes than were written"):
        refuse_faults(run, place, partial(step.loads, place))
    reading = make_step(tmp_path, "perplexity", "x")  # which has no use for it
    assert refuse_faults(run, place, partial(reading.loads, place)) == record
    run.commit(f"{place}/state/latest", b"short")
    with pytest.raises(RunDirError, match=r"state/latest has other bytes than were written"):
        refuse_faults(run, place, partial(step.loads, place))
    run.commit(f"{place}/state/latest", b"state/latest")
    run.commit(f"{place}/state/global_step3/rank_1.pt", b"planted")
    with pytest.raises(RunDirError, match=r"global_step3/rank_1\.pt is no file of this run"):
        refuse_faults(run, place)


def test_a_state_may_be_removed(tmp_path: Path) -> None:
    run, place, record = trained(tmp_path)
    assert has_state(run, place)
    for name in ("state/latest", "state"):  # in part, as one does with what is altered, or whole
        path = tmp_path / place / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
        assert not has_state(run, place)
    step = make_step(tmp_path, "finetune", "x")
    assert refuse_faults(run, place, partial(step.loads, place)) == record
    assert lost(run, place, record) == []


def test_a_state_that_no_record_lists_is_no_fault(tmp_path: Path) -> None:
    """As earlier versions left it: it is not loaded (`train_worker`)."""
    run, place, record = trained(tmp_path)
    files = {name: entry for name, entry in record.files.items() if "/" not in name}
    run.commit_record(place, record.model_copy(update={"files": files}))
    assert list(refuse_faults(run, place, digests=True).files) == ["model.safetensors"]
    assert not has_state(run, place)


@pytest.mark.parametrize(
    "name", ["state/", "state/../x", "state/.x", "state/a/../../b", "other/x", "/x", "state//x"]
)
def test_names_that_lead_elsewhere_are_in_no_record(tmp_path: Path, name: str) -> None:
    run, place, record = trained(tmp_path)
    told = record.model_dump()
    told["files"][name] = told["files"]["state/latest"]
    run.commit(f"{place}/{RECORD}", json.dumps(told).encode())
    with pytest.raises(RunDirError, match="is no file of a stage"):
        run.record(place)


def test_each_fault_is_listed_once_with_its_place(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("a", "b", "c", "d"):
        run.commit(f"8-select/{name}", name.encode() * 5)
    record = mark_whole(run, "8-select", "made", "select")
    (tmp_path / "8-select" / "a").unlink()
    run.commit("8-select/b", b"bb")
    run.commit("8-select/c", b"CCCCC")
    run.commit("8-select/e", b"")
    assert list(map(str, lost(run, "8-select", record))) == [
        "8-select/a is missing",
        "8-select/b has 2 bytes instead of 5: cut short, or replaced",
    ]
    (one,) = foreign(run, "8-select", record)
    assert str(one) == "8-select/e is no file of this run: move it away"
    (other,) = altered(run, "8-select", record, ["a", "c", "d"])
    assert str(other).startswith("8-select/c has other bytes")


def test_a_folder_full_of_faults_fits_on_a_screen(run: Run) -> None:
    for number in range(100):
        (run.dir.path / POOL / f"part-{number:05d}.txt").touch()
    with pytest.raises(RunDirError) as caught:
        run.pool()
    assert "and 95 more" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 12


def test_names_are_shown_without_escape_sequences(run: Run) -> None:
    (run.dir.path / POOL / "a\x1b[2Jb").touch()
    with pytest.raises(RunDirError) as caught:
        run.pool()
    assert "\x1b" not in str(caught.value)


# ── what is damaged besides shards ───────────────────────────────────────────────────────────────

DEEP = b"[" * 100_000
DAMAGES = {
    "empty": (b"", "is damaged"),
    "no JSON": (b"{", "is damaged"),
    "a list": (b"[]", "is damaged"),
    "too deep": (DEEP, "is damaged"),
    "no text": (b"\xff\xfe", "is damaged"),
    "later": (b'{"format": 2, "fingerprint": "x", "new": {}}', "later version of poolscore"),
    "earlier": (b'{"fingerprint": "x", "files": ["a"]}', "earlier version of poolscore"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", ["status", "select", "open_run"])
def test_a_damaged_record_is_told_on_one_screen(
    folder: Path, damage: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data, told = DAMAGES[damage]
    (folder / "run" / POOL / RECORD).write_bytes(data)
    if command == "open_run":
        with pytest.raises(RunDirError, match=told):
            open_run(folder / "run")
        return
    more = ["--rows", "2", "--to", str(folder / "x.jsonl")] if command == "select" else []
    assert cli.main([command, str(folder / "run"), *more]) == 1
    text = capsys.readouterr().err
    assert told in text
    assert text.rstrip().endswith("--rebuild pool")
    assert len(text) < 800
    assert len(text.splitlines()) < 10


@pytest.mark.parametrize(
    "data", [b"\xff", b"select: {", b"no_such: 1\n" + b"x: 1\n" * 9, b"[1]", b"pool: 7\n"]
)
def test_a_damaged_configuration_is_told_on_one_screen(folder: Path, data: bytes) -> None:
    (folder / "run" / SETTINGS).write_bytes(data)
    with pytest.raises(RunDirError, match=r"run\.yaml is damaged(.|\n)*poolscore run") as caught:
        open_run(folder / "run")
    assert len(str(caught.value).splitlines()) < 20


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a": 1}', DEEP, b"\xff", b'{"%s": "short"}'])
def test_damaged_remembered_digests_are_forgotten(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    run = RunDir(tmp_path)
    right = run.hash_files({"weights": path})
    (key,) = json.loads((tmp_path / "hashes.json").read_text())
    (tmp_path / "hashes.json").write_bytes(data.replace(b"%s", key.encode()))
    assert run.hash_files({"weights": path}) == right


def test_digests_that_are_not_trusted_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    right = RunDir(tmp_path).hash_files({"weights": path})
    (key,) = json.loads((tmp_path / "hashes.json").read_text())
    (tmp_path / "hashes.json").write_text(json.dumps({key: "0" * 64}))
    assert RunDir(tmp_path).hash_files({"weights": path}) == {"weights": "0" * 64}
    assert RunDir(tmp_path, {}).hash_files({"weights": path}) == right


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/passwd", "", ".hidden", RECORD, "a\0b"])
def test_a_record_lists_no_file_elsewhere(run: Run, name: str) -> None:
    record = run.dir.record(POOL)
    assert record is not None
    told = json.loads(record.model_dump_json())
    told["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    run.dir.commit(f"{POOL}/{RECORD}", json.dumps(told).encode())
    with pytest.raises(RunDirError, match="is no file of a stage"):
        run.dir.record(POOL)


def test_a_record_that_changes_is_read_again(run: Run) -> None:
    record = run.dir.record(POOL)
    assert isinstance(record, Record)
    run.dir.commit_record(POOL, record.model_copy(update={"rows_in": 10}))
    again = run.dir.record(POOL)
    assert again is not None
    assert again.rows_in == 10


# ── status ───────────────────────────────────────────────────────────────────────────────────────


def test_status_names_what_is_lost(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "run" / POOL / SHARDS[1]).unlink()
    (folder / "run" / SCORE / "part-00007.parquet").touch()
    assert cli.main(["status", str(folder / "run")]) == 0
    out = capsys.readouterr().out
    assert "1-pool/part-00001.parquet is missing" in out
    assert "7-score/part-00007.parquet is no file of this run" in out


def test_verify_finds_a_bit_that_no_reader_would(folder: Path) -> None:
    """In the footer, where no checksum looks."""
    run = open_run(folder / "run")
    path = folder / "run" / SCORE / SHARDS[0]
    data = path.read_bytes()
    at = data.rindex(b"created by") if b"created by" in data else data.rindex(b"parquet-cpp")
    path.write_bytes(data[:at] + b"P" + data[at + 1 :])
    assert len(run.scores()) == 9
    (stage,) = [s for s in run.status(verify=True).stages if s.step.stage == "score"]
    assert any("part-00000.parquet has other bytes" in fault for fault in stage.faults)


# ── where a selection may be written ─────────────────────────────────────────────────────────────


def refused(run: Run, target: Path, told: str, force: bool = True) -> None:
    before = {path: path.read_bytes() for path in run.dir.path.parent.rglob("*") if path.is_file()}
    with pytest.raises(PoolscoreError, match=told):
        run.select(SelectConfig(rows=2), target, force)
    after = {path: path.read_bytes() for path in run.dir.path.parent.rglob("*") if path.is_file()}
    assert after == before


def test_inputs_and_the_runs_own_files_are_no_targets(run: Run, folder: Path) -> None:
    refused(run, folder / "data" / "a.jsonl", "a part of .*data, which the run is made from")
    refused(run, folder / "data" / "new.jsonl", "would become, a part")
    refused(run, folder / "data" / "sub" / "new.jsonl", "would become, a part")
    refused(run, folder / "run" / SELECT / "selected.jsonl", "lies in the run directory")
    refused(run, folder / "run" / "new.jsonl", "lies in the run directory")
    refused(run, folder / "elsewhere" / ".." / "run" / "new.jsonl", "lies in the run directory")


def test_links_to_them_are_no_targets_either(run: Run, folder: Path) -> None:
    (folder / "link.jsonl").symlink_to(folder / "data" / "a.jsonl")
    refused(run, folder / "link.jsonl", "a part of")
    os.link(folder / "data" / "a.jsonl", folder / "hard.jsonl")
    refused(run, folder / "hard.jsonl", "is a file of the pool")
    (folder / "way").symlink_to(folder / "run")
    refused(run, folder / "way" / "new.jsonl", "lies in the run directory")
    (folder / "own.jsonl").symlink_to(folder / "run" / SELECT / "selected.jsonl")
    refused(run, folder / "own.jsonl", "lies in the run directory")


def test_what_a_glob_of_the_pool_would_match_is_no_target(folder: Path) -> None:
    settings = folder / "run" / SETTINGS
    settings.write_text(settings.read_text().replace(f"{folder}/data", f"{folder}/da*/*.jsonl"))
    run = open_run(folder / "run")
    refused(run, folder / "data" / "new.jsonl", "would become, a part")
    assert run.select(SelectConfig(rows=2), folder / "data" / "new.parquet") == (9, 2)


GLOBS = {
    "a linked folder": ("link/*.jsonl", "link/new.jsonl", True),
    "where the link leads": ("link/*.jsonl", "data/new.jsonl", True),
    "no folder between": ("data/**/*.jsonl", "data/new.jsonl", True),
    "many between": ("data/**/*.jsonl", "data/a/b/c/new.jsonl", True),
    "a way back": ("data/../data/*.jsonl", "data/new.jsonl", True),
    "a way back behind a star": ("da*/../data/*.jsonl", "data/new.jsonl", True),
    "a link behind a star": ("li*/*.jsonl", "data/new.jsonl", True),
    "a folder that is matched": ("da*", "data/a/new.jsonl", True),
    "everything below": ("data/**", "data/a/new.jsonl", True),
    "a deeper one": ("data/*.jsonl", "data/a/new.jsonl", False),
    "another kind": ("data/**/*.jsonl", "data/new.parquet", False),
    "a hidden one": ("data/*.jsonl", "data/.new.jsonl", False),
    "in a hidden folder": ("data/**/*.jsonl", "data/.a/new.jsonl", False),
    "hidden, and named": ("data/.*.jsonl", "data/.new.jsonl", True),
    "brackets": ("data/[m-o]ew.jsonl", "data/new.jsonl", True),
    "brackets of others": ("data/[!n]ew.jsonl", "data/new.jsonl", False),
    "case": ("data/N*.jsonl", "data/new.jsonl", False),
}


@pytest.mark.parametrize("case", GLOBS)
def test_what_would_be_found_is_what_the_reader_finds(tmp_path: Path, case: str) -> None:
    pattern, name, found = GLOBS[case]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old.csv").write_text("instruction,output\nSay.,Yes.\n")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    place = (tmp_path / name).parent.resolve() / Path(name).name
    assert readers.would_find(f"{tmp_path}/{pattern}", place) == found
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    try:
        paths = [file.path for file in readers.find_files([f"{tmp_path}/{pattern}"])]
    except PoolError:
        paths = []
    assert (place.resolve() in [path.resolve() for path in paths]) == found


def test_a_glob_by_another_name_of_its_folder_is_no_way_in(folder: Path) -> None:
    settings = folder / "run" / SETTINGS
    (folder / "link").symlink_to(folder / "data")
    before = settings.read_text()
    for pattern in ("link/*.jsonl", "data/**/*.jsonl", "data/../data/*.jsonl"):
        settings.write_text(before.replace(f"{folder}/data", f"{folder}/{pattern}"))
        run = open_run(folder / "run")
        for name in ("data", "link"):
            refused(run, folder / name / "new.jsonl", "would become, a part")


def test_a_file_that_is_there_wants_force(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "mine.jsonl"
    target.write_text("precious")
    refused(run, target, "is there already. --force", force=False)
    assert target.read_text() == "precious"
    assert run.select(SelectConfig(rows=2), target, force=True) == (9, 2)
    assert len(target.read_text().splitlines()) == 2
    (tmp_path / "folder.jsonl").mkdir()
    refused(run, tmp_path / "folder.jsonl", "no regular file")
    os.mkfifo(tmp_path / "pipe.jsonl")
    refused(run, tmp_path / "pipe.jsonl", "no regular file")


def test_nothing_is_written_through_a_planted_link(run: Run, tmp_path: Path) -> None:
    precious, target = tmp_path / "precious.txt", tmp_path / "hard.jsonl"
    precious.write_text("keep me")
    (tmp_path / ".hard.jsonl.tmp").symlink_to(precious)
    run.select(SelectConfig(rows=2), target)
    target.unlink()
    target.symlink_to(precious)
    refused(run, target, "is there already", force=False)
    run.select(SelectConfig(rows=2), target, force=True)
    assert precious.read_text() == "keep me"
    assert not target.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == [
        ".hard.jsonl.tmp"
    ]


def test_a_target_that_cannot_be_written_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirError, match=r"cannot write .*file/x\.jsonl: (Not a directory|File)"):
        run.select(SelectConfig(rows=2), tmp_path / "file" / "x.jsonl")
    with pytest.raises(ConfigError, match=r"must end in \.jsonl or \.parquet"):
        run.select(SelectConfig(rows=2), tmp_path / "x.csv")


def test_a_long_name_leaves_room_for_the_temporary_one(run: Run, tmp_path: Path) -> None:
    run.select(SelectConfig(rows=2), tmp_path / f"{'ß' * 120}.jsonl")


# ── the run directory itself ─────────────────────────────────────────────────────────────────────


def test_a_run_directory_in_the_pools_folder_is_refused(folder: Path) -> None:
    config = Config.from_tree({"pool": {"paths": [str(folder / "data")]}})
    with pytest.raises(ConfigError, match="taken for rows"):
        pipeline.run(config, folder / "data" / "runs" / "mine")
    assert sorted(path.name for path in (folder / "data").iterdir()) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "name", "mixed"),
    [
        ("data/**/*.parquet", "data/runs/mine", True),
        ("data/*", "data/runs/mine", True),
        ("data/*", "data/mine", True),
        ("data/**/*.jsonl", "data/mine", True),
        ("runs/*/proxies/*/8-select/selected.jsonl", "runs/new", True),
        ("runs/old/proxies/*/8-select/selected.jsonl", "runs/new", False),
        ("data/*.parquet", "data/mine", False),
        ("data/**/*.csv", "data/mine", False),
        ("data/*", "data/.runs/mine", False),
        ("data/*", "runs/mine", False),
    ],
)
def test_a_run_directory_that_a_glob_would_find_is_refused(
    tmp_path: Path, pattern: str, name: str, mixed: bool
) -> None:
    (tmp_path / "data").mkdir()
    wanted = pytest.raises(ConfigError, match="taken for rows") if mixed else nullcontext()
    with wanted:
        refuse_run_dir([f"{tmp_path}/{pattern}"], tmp_path / name)


def test_a_problem_is_told_without_escape_sequences(run: Run, folder: Path) -> None:
    (folder / "data" / "a\x1b[2J.jsonl").symlink_to(folder / "none")
    text = status_table(run.status())
    assert "cannot be told:" in text
    assert "\x1b" not in text
    assert "a␛[2J.jsonl" in text


def test_a_lost_record_is_not_as_recorded(run: Run) -> None:
    """Whatever was made from that stage says that it was there."""
    (run.dir.path / TOKENS_FOLDER / RECORD).unlink()
    stages = {stage.step.stage: stage for stage in run.status(verify=True).stages}
    assert stages["tokens"].faults == (
        f"{TOKENS_FOLDER}/_stage.json is missing, though perplexity epoch 0 was made from it",
    )
    (run.dir.path / run.step("report").folder / RECORD).unlink()
    assert run.status(verify=True).stages[-1].faults == ()  # nothing was made from it


def test_what_has_drifted_is_not_as_recorded(run: Run) -> None:
    stage = run.status().stages[0]
    whole = replace(stage, state="done", faults=())
    assert Status([whole], None, {}).is_as_recorded
    assert not Status([whole, replace(whole, state="drifted")], None, {}).is_as_recorded


@pytest.mark.parametrize("command", ["run", "status", "select"])
def test_an_address_is_no_run_directory(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {
        "run": ["run", str(folder / "data"), "--run-dir", "s3://bucket/run"],
        "status": ["status", "s3://bucket/run"],
        "select": ["select", "s3://bucket/run", "--rows", "2", "--to", "x.jsonl"],
    }
    assert cli.main(words[command]) == 1
    assert "s3://bucket/run: a run directory must be a path that" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["file/run", "file", "ring/run", "nul\0/run", f"{'x' * 300}/run"])
def test_a_run_directory_that_cannot_be_made_is_named(
    where: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "file").touch()
    (folder / "ring").symlink_to(folder / "ring")
    code = cli.main(["run", str(folder / "data"), "--run-dir", str(folder / where)])
    text = capsys.readouterr().err
    assert code == 1
    assert ("null byte" if "\0" in where else "Name a folder") in text
    assert len(text.splitlines()) < 5
    assert "ray" not in text.lower()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_folder_where_nothing_can_be_made(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["run", str(folder / "data"), "--run-dir", "/proc/none/run"]) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_nothing_makes_a_run_directory_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    table = pa.table({"x": [1]})
    for write in (
        lambda: run.commit("error.log", b"x"),
        lambda: run.commit_table("2-embed", SHARDS[0], table, "f"),
        lambda: run.make("2-embed/.working"),
    ):
        with pytest.raises(RunDirError, match="is gone: it was renamed or removed"):
            write()
    run.hash_files({})
    assert not run.path.exists()
