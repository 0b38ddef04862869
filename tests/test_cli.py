"""The command line as people meet it: help, and errors that fit on one screen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import cli, heartbeat, pipeline, rundir

Run = Callable[..., tuple[int, str]]
TOLERANT = ("--max-reject-fraction", "0.1")
"""The small pool is made to have 2 of 51 lines rejected."""


@pytest.fixture
def poolscore(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: its exit code and what it wrote to stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        code = cli.main([str(argument) for argument in arguments])
        return code, capsys.readouterr().err

    return call


def check(result: tuple[int, str], *parts: str) -> None:
    """An error for people: exit code 1, every part named, on one screen, without a traceback."""
    code, text = result
    assert code == 1
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 24
    for part in parts:
        assert part in text, text


@pytest.mark.parametrize(
    "command",
    [[], *([name] for name in ("plan", "run", "status", "select", "settings", "completion"))],
)
def test_help_has_a_text_for_every_option_and_examples(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, "--help"])
    text = capsys.readouterr().out
    assert not command or "example" in text
    parser = cli.parser()
    actions = parser._actions if not command else _sub(parser, command[0])._actions
    assert all(action.help for action in actions)


def _sub(parser, name: str):
    return parser._subparsers._group_actions[0].choices[name]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["rnu"], "; did you mean 'run'?"),
        (["select", "r", "--rows", "3", "--to", "a.jsonl", "--order", "lo"], "'low'?"),
        (["run", "p.jsonl", "--run-dir", "r", "--rebild=x"], "; did you mean '--rebuild'?"),
    ],
)
def test_typos_get_a_suggestion(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_options(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("select", "--run-dir", "--rebuild", "settings"))


def test_bash_takes_the_completion(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["completion", "bash"])
    script = capsys.readouterr().out + "\ncomplete -p poolscore"
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip().endswith("poolscore")


def test_help_is_quick_to_come() -> None:
    """Help imports neither torch nor Ray: counted in modules, not in seconds."""
    code = (
        "import sys, engine.cli; engine.cli.parser(); "
        "print('torch' in sys.modules, 'ray' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


@pytest.mark.usefixtures("ray_session")
class TestErrors:
    """Each bad input, what is named, and that nothing counts as done afterwards."""

    def test_missing_pool(self, poolscore: Run, tmp_path: Path) -> None:
        result = poolscore("run", tmp_path / "none.jsonl", "--run-dir", tmp_path / "r")
        check(result, "none.jsonl", "fix:")

    def test_no_pool(self, poolscore: Run, tmp_path: Path) -> None:
        check(poolscore("run", "--run-dir", tmp_path / "r"), "pool")

    def test_unknown_format(self, poolscore: Run, tmp_path: Path) -> None:
        pool = tmp_path / "p.jsonl"
        pool.write_text('{"a": "x"}\n{"a": "y"}\n')
        result = poolscore("run", pool, "--run-dir", tmp_path / "r")
        check(result, "no row that can be read", "2 lines", "unknown_format", "pool.fields")
        assert not list((tmp_path / "r").rglob("_stage.json"))

    def test_unreadable_parquet(self, poolscore: Run, tmp_path: Path) -> None:
        pool = tmp_path / "p.parquet"
        pool.write_bytes(b"PAR1 and then nothing")
        check(poolscore("run", pool, "--run-dir", tmp_path / "r"), "p.parquet", "fix:")
        assert not list((tmp_path / "r").rglob("_stage.json"))

    def test_unknown_setting(self, poolscore: Run, pool_file: Path, tmp_path: Path) -> None:
        result = poolscore("run", pool_file, "--run-dir", tmp_path / "r", "--set", "select.pct=3")
        check(result, "select.pct", "no such setting", "percent")

    def test_unknown_local_model(self, poolscore: Run, pool_file: Path, tmp_path: Path) -> None:
        result = poolscore(
            "run", pool_file, "--run-dir", tmp_path / "r", "--set", "proxy.model=./no/such"
        )
        check(result, "proxy.model", "./no/such", "no such folder")

    def test_hub_model_must_be_pinned(
        self, poolscore: Run, pool_file: Path, tmp_path: Path
    ) -> None:
        result = poolscore(
            "run", pool_file, "--run-dir", tmp_path / "r", "--set", "proxy.model=owner/name"
        )
        check(result, "proxy.model = 'owner/name'", "proxy.revision", "40 hex digits")

    def test_model_without_safetensors(
        self, poolscore: Run, pool_file: Path, tiny_opt: Path, tmp_path: Path
    ) -> None:
        pickled = tmp_path / "pickled"
        shutil.copytree(tiny_opt, pickled)
        (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
        result = poolscore(
            "run", pool_file, "--run-dir", tmp_path / "r", "--set", f"proxy.model={pickled}"
        )
        check(result, "no *.safetensors", "poolscore convert")

    def test_unknown_stage(self, poolscore: Run, pool_file: Path, tmp_path: Path) -> None:
        result = poolscore("run", pool_file, "--run-dir", tmp_path / "r", "--until", "scoring")
        check(result, "--until scoring", "perplexity")

    def test_too_little_disk(
        self,
        poolscore: Run,
        pool_file: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=10 * 2**20)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        result = poolscore("run", pool_file, "--run-dir", tmp_path / "r")
        check(result, "only 10 MB are free", "goes on where it stopped")
        assert not (tmp_path / "r" / "1-pool").exists()

    def test_drift_and_its_two_ways_out(
        self, poolscore: Run, pool_file: Path, tmp_path: Path
    ) -> None:
        run_dir = tmp_path / "r"
        again = ("run", pool_file, "--run-dir", run_dir, "--until", "pool", *TOLERANT)
        assert poolscore(*again)[0] == 0
        change = ("--set", "pool.holdout_fraction=0.5")
        check(poolscore(*again, *change), "holdout_fraction: was 0.0, now 0.5", "--rebuild pool")
        assert poolscore(*again, *change, "--rebuild", "pool")[0] == 0

    def test_verify_finds_what_is_not_as_recorded(
        self, poolscore: Run, pool_file: Path, tmp_path: Path
    ) -> None:
        run_dir = tmp_path / "r"
        verify = ("status", run_dir, "--verify")
        again = ("run", pool_file, "--run-dir", run_dir, "--until", "pool", *TOLERANT)
        assert poolscore(*again)[0] == 0
        assert poolscore(*verify)[0] == 0
        shard = run_dir / "1-pool" / "part-00000.parquet"
        whole = shard.read_bytes()
        shard.write_bytes(whole.replace(b"parquet-cpp", b"parquet-Cpp"))  # in its footer
        assert poolscore("status", run_dir)[0] == 0
        check(poolscore(*verify), "not as it was recorded")
        shard.write_bytes(whole)
        assert poolscore(*verify)[0] == 0
        # A source that changed behind the digest that is remembered of it.
        hashes = json.loads((run_dir / "hashes.json").read_text())
        pool_file.write_bytes(pool_file.read_bytes().replace(b"red", b"rod"))
        now = rundir.RunDir(run_dir).hash_files({"pool": pool_file})["pool"]
        known = json.loads((run_dir / "hashes.json").read_text())
        lied = {
            key: next(iter(hashes.values())) if value == now else value
            for key, value in known.items()
        }
        (run_dir / "hashes.json").write_text(json.dumps(lied))
        check(poolscore(*verify), "not as it was recorded")

    def test_a_directory_in_use(self, poolscore: Run, pool_file: Path, tmp_path: Path) -> None:
        run_dir = tmp_path / "r"
        run_dir.mkdir()
        lock = {**heartbeat.this_process(), "run": "x", "pid": os.getppid()}
        del lock["started"]
        (run_dir / rundir.LOCK).write_text(json.dumps(lock))
        result = poolscore("run", pool_file, "--run-dir", run_dir)
        check(result, "in use by another run", str(os.getppid()))

    def test_a_file_as_run_directory(self, poolscore: Run, pool_file: Path) -> None:
        check(poolscore("run", pool_file, "--run-dir", pool_file), "is a file")


def test_status_and_select_without_a_run(poolscore: Run, tmp_path: Path) -> None:
    check(poolscore("status", tmp_path), "holds no run")
    check(
        poolscore("select", tmp_path, "--percent", 5, "--to", tmp_path / "x.jsonl"), "holds no run"
    )


def test_select_names_a_wrong_suffix_and_a_wrong_percent(poolscore: Run, tmp_path: Path) -> None:
    check(poolscore("select", tmp_path, "--percent", 5, "--to", "x.csv"), ".jsonl or .parquet")
    check(
        poolscore("select", tmp_path, "--percent", 500, "--to", "x.jsonl"), "select.percent", "500"
    )


@pytest.mark.usefixtures("ray_session")
def test_status_shows_each_state(
    pool_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "r"
    arguments = ["run", str(pool_file), "--run-dir", str(run_dir), *TOLERANT]
    arguments += ["--set", "pool.shard_rows=16"]
    assert cli.main([*arguments, "--until", "embed"]) == 0
    (run_dir / pipeline.EMBED / rundir.RECORD).unlink()
    (run_dir / pipeline.EMBED / "part-00001.parquet").unlink()
    capsys.readouterr()
    assert cli.main(["status", str(run_dir)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "done" in lines["pool"]
    assert "49" in lines["pool"]
    assert "3/4 shards" in lines["embed"]
    assert "missing" in lines["cluster"]
    pool_file.write_text(pool_file.read_text().replace("red", "rod"))
    assert cli.main(["status", str(run_dir)]) == 0
    assert "drifted" in capsys.readouterr().out


@pytest.mark.usefixtures("ray_session")
def test_quiet_lets_warnings_through_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = tmp_path / "pool.jsonl"
    rows = [{"instruction": f"Say {word}.", "output": word} for word in ("red", "green", "blue")]
    rows = [{**row, "source": "made"} for row in rows[:1]] + rows[1:]
    pool.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    command = ["run", str(pool), "--run-dir", str(tmp_path / "r"), "--until", "pool"]
    assert cli.main([*command, "--set", "pool.source_field=source", "--quiet"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert " ".join(told.err.split()).startswith("warning: 2 of 3 rows have no source")
    assert len(told.err.splitlines()) == 1


@pytest.mark.usefixtures("ray_session")
def test_something_is_said_before_anything_takes_long(
    pool_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", str(pool_file), "--run-dir", str(tmp_path / "r"), *TOLERANT]
    assert cli.main([*command, "--until", "pool"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    heads = ["preparing", "poolscore ", "preparing", "[1/10] pool"]
    begins = [line for line in lines if line.startswith(tuple(heads))]
    assert [line.startswith(head) for line, head in zip(begins, heads, strict=True)] == [True] * 4
    assert "starting Ray …" in begins[0]
    assert "looking at the pool and the models …" in begins[2]


def run_apart(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, for what concerns its streams."""
    return subprocess.run(
        [sys.executable, "-m", "engine", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_help_and_errors_can_be_printed_in_ascii(tmp_path: Path) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for command in ("run", "plan", "status", "select"):
        assert run_apart(command, "--help", **ascii_only).returncode == 0
    failed = run_apart("status", str(tmp_path / "geht→nicht"), **ascii_only)
    assert failed.returncode == 1
    assert "geht->nicht holds no run" in failed.stderr


def test_who_has_read_enough_ends_the_command_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from engine import cli; sys.exit(cli.main(['status', 'r']))"
    code = f"import engine.cli as c; c.status = lambda o: print('x' * 100000)\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("word", ["a\0b", "caf\udce9"])
def test_words_that_no_file_can_bear_are_refused(poolscore: Run, word: str) -> None:
    check(poolscore("status", word), "not valid UTF-8")
