"""What a plan says: counts against a real run, arithmetic by hand, and that nothing is written."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import pool_lines

import engine
from engine import cli, probe
from engine.config import Config
from engine.errors import PoolError
from engine.estimate import Estimate, estimate, num_measurements
from engine.forecast import MAP_SECONDS, TRAIN_SECONDS, Forecast, Measured, StageEstimate, stages
from engine.maths.ragged import Ragged
from engine.nodes import Nodes
from engine.pipeline import layout
from engine.plan_progress import Told
from engine.plan_table import table
from engine.probe import Rows, Speed, seconds_of_all, spread
from engine.resolve import resolve
from engine.rundir import RunDir
from engine.step import Step


def rows(num_rows: int = 8, num_scored: int = 6, num_train: int = 5) -> Rows:
    """A sample of which each scored row has 10 tokens, 4 of them scored."""
    return Rows(
        num_rows=num_rows,
        num_rejected=0,
        num_embedded=7,
        input_ids=Ragged.of([np.arange(10)] * num_scored),
        scored=Ragged.of([np.arange(6, 10, dtype=np.int32)] * num_scored),
        is_train=np.arange(num_scored) < num_train,
        texts=["text"] * 7,
        pool_seconds=0.5,
        token_seconds=0.25,
        pool_bytes=2**20,
        token_bytes=2**19,
        raw_bytes=800,
        pool_memory_bytes=10**6,
        busy_seconds=1.0,
        memory_bytes=2 * 10**6,
    )


def by_hand(**resources: object) -> tuple[Config, Nodes, Measured]:
    """A pool of 80 lines, 8 of them sampled, in shards of 30 rows, on four cores."""
    config = Config.from_tree(
        {
            "pool": {"paths": ["p.jsonl"], "shard_rows": 30},
            "clusters": {"num": 5, "num_iterations": 3},
            "select": {"percent": 10},
            "resources": {
                "device": "cpu",
                "cpus_per_worker": 2,
                "score_batch_tokens": 4096,
                **resources,
            },
        }
    )
    config = resolve(config, "cpu")
    nodes = Nodes(num_cpus=4, num_gpus=0, resources=config.resources)
    embedding = Speed(2.0, 3.0, 3 * 10**6, flops=1e9, tokens=70, details={"dimension": 384})
    scoring = Speed(
        4.0, 9.0, 10**6, flops=3e9, tokens=60, details={"budgets": {4096: 4.0, 2048: 3.0}}
    )
    training = Speed(6.0, 9.0, 10**6, flops=9e9, tokens=50, details={"weights": 1000})
    speeds = {
        "embed": embedding,
        "cluster": Speed(1e-6, 1.0, 10**6),
        "perplexity": scoring,
        "finetune": training,
    }
    starts = {"tokens": 1.0, "embed": 3.0, "cluster": 2.0, "perplexity": 5.0, "finetune": 7.0}
    return config, nodes, Measured(80, 8, rows(), speeds, starts)


def planned(config: Config, done: frozenset[str] = frozenset()) -> list[tuple[Step, bool]]:
    return [
        (Step(stage.NAME, folder, epoch, config, RunDir(Path()), {}, {}, ""), stage.NAME in done)
        for stage, folder, epoch, _ in layout(config)
    ]


def test_every_stage_by_hand() -> None:
    config, nodes, measured = by_hand()
    found = {s.label: s for s in stages(Forecast(config, nodes, measured), planned(config))}
    # 80 rows in shards of 30 are three shards; two workers of two cores do two and one of them.
    assert found["pool"].rows == 80
    assert found["pool"].shards == 3
    assert found["pool"].seconds == 5.0
    assert found["pool"].disk_bytes == 10 * 2**20
    assert found["embed"].seconds == pytest.approx(3.0 + MAP_SECONDS + 2.0 * 10 * 2 / 3)
    assert found["embed"].tokens == 700
    assert found["cluster"].flops == 2 * 70 * 5 * 384 * (3 + 1)
    assert found["cluster"].seconds == pytest.approx(2.0 + 1e-6 * found["cluster"].flops)
    assert found["tokens"].tokens == 600
    assert found["tokens"].seconds == pytest.approx(1.0 + MAP_SECONDS + 2.5 / 3)
    assert found["perplexity epoch 0"].seconds == pytest.approx(5.0 + MAP_SECONDS + 40 * 2 / 3)
    assert found["perplexity epoch 1"] == StageEstimate(
        **{**vars(found["perplexity epoch 0"]), "label": "perplexity epoch 1"}
    )
    assert found["finetune epoch 1"].rows == 50
    assert found["finetune epoch 1"].tokens == 500
    assert found["finetune epoch 1"].seconds == pytest.approx(7.0 + TRAIN_SECONDS + 60)
    assert found["finetune epoch 1"].disk_bytes == 4000
    assert found["select"].rows == 5
    assert list(found)[-1] == "report"


def test_workers_share_and_finished_stages_take_nothing() -> None:
    config, nodes, measured = by_hand(num_workers=1, train_workers=2)
    steps = planned(config, frozenset({"pool", "embed"}))
    found = {s.label: s for s in stages(Forecast(config, nodes, measured), steps)}
    assert found["pool"] == StageEstimate("pool", done=True)
    assert found["perplexity epoch 0"].seconds == 5.0 + MAP_SECONDS + 40
    assert found["finetune epoch 1"].seconds == 7.0 + TRAIN_SECONDS + 30


def test_the_table() -> None:
    config, nodes, measured = by_hand(price_per_node_hour=36.0)
    lines = [
        StageEstimate("pool", rows=80, shards=3, disk_bytes=10 * 2**20, seconds=50),
        StageEstimate("embed", done=True),
        StageEstimate(
            "finetune epoch 1", 50, 1500, 0, 2.5e12, 3 * 2**30, seconds=3700, memory_bytes=2**30
        ),
    ]
    text = table(Estimate(config, nodes, measured, lines, start_seconds=10, probe_seconds=61))
    assert text.splitlines() == [
        "stage           rows  tokens shards    FLOP    disk        time  memory     cost",
        "start of Ray                                               10 s             0.10",
        "pool              80              3         10.0 MB        50 s             0.50",
        "embed        done before",
        "finetune 1        50   1,500         2.50 T  3.0 GB  1 h 01 min  1.0 GB    37.00",
        "",
        "total                                2.50 T  3.0 GB  1 h 02 min  1.0 GB    37.60",
        "",
        "Counts are estimated from 8 of 80 lines; duplicates are not known before the",
        "run.",
        "Times were measured in 1 min 01 s on cpu (1 node, 4 cores); proxy nano-opt in",
        "float32.",
        "The proxy's epoch will have 7 optimizer steps of up to 8 rows: with fewer than",
        "32 the scores say little.",
        "Scoring is 1.33 times as fast with --set resources.score_batch_tokens=2048",
    ]
    told = table(Estimate(config, nodes, measured, lines, 10, 61, remarks=["Several\x1b splits."]))
    assert "\nSeveral" in told
    assert "\x1b" not in told


def test_the_table_of_the_largest_pool_fits_a_terminal() -> None:
    config, nodes, measured = by_hand(price_per_node_hour=36.0)
    measured = replace(measured, num_lines=10**12, rows=replace(measured.rows, num_rejected=7))
    huge = StageEstimate(
        "perplexity epoch 9", 123_456_789, 10**13, 99_999, 9.996e20, 1023 * 2**40, 5e6, 1023 * 2**30
    )
    text = table(Estimate(config, nodes, measured, [huge], start_seconds=10, probe_seconds=3600))
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[2].split() == [
        *("perplexity", "9", "123", "M", "10.0", "T", "99,999"),
        *("1000", "E", "1023", "TB", "1,389", "h", "1023", "GB", "50,000"),
    ]
    assert "7 of the 8 lines were rejected; a run stops where more are than 1.0%" in text


def test_errors_of_a_sample_name_the_pools_own_files(tmp_path: Path) -> None:
    config, nodes, _ = by_hand()
    lines = [b'{"a": 1}', b"<html>"]
    ingest, _ = probe._sample_steps(config, tmp_path, lines)
    with pytest.raises(PoolError, match="no row that can be read") as caught:
        probe._run_pool(ingest, nodes, ["data/a.csv, line 7", "b\x1b.jsonl, line 3"])
    listed = [line.strip() for line in caught.value.where.splitlines()]
    assert listed[0].startswith("data/a.csv, line 7: unknown_format, ")
    assert listed[1] == "b␛.jsonl, line 3: not_an_object, null"
    assert str(tmp_path) not in str(caught.value)


def test_what_is_told_while_a_plan_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    out = io.StringIO()
    told = Told(out)
    with told.counting(1000) as advance:
        now[0] += 20
        advance(250)
    told.begin(3)
    for stage in ("tokens", "embed", "perplexity"):
        told.stage(stage)
        now[0] += 10
        told.still(stage)
    now[0] += 10
    told.still("perplexity")
    told.still("perplexity")
    assert out.getvalue().splitlines() == [
        "  counting the pool's lines",
        "  counting                      250 / 1,000 bytes   25%  12/s  1 min 00 s left",
        "  measuring 1 of 3: reading and tokenising the sample",
        "  measuring 2 of 3: embedding (about 20 s left)",
        "  measuring 3 of 3: scoring (about 10 s left)",
        "    scoring: 20 s so far",
    ]


def test_a_budget_that_is_hardly_faster_is_not_worth_a_word() -> None:
    config, nodes, measured = by_hand()
    measured.speeds["perplexity"].details["budgets"][2048] = 3.9
    assert "score_batch_tokens" not in table(Estimate(config, nodes, measured, [], 0, 1))


def test_what_lies_between_two_measured_groups_is_interpolated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "SECONDS", 0.0)  # the middle alone
    assert seconds_of_all(9, lambda index: [float(index), 1.0]) == [4.0 * 9, 9.0]
    monkeypatch.setattr(probe, "SECONDS", 60.0)
    assert seconds_of_all(9, lambda index: [float(index)]) == [36.0]
    seen: list[int] = []
    monkeypatch.setattr(probe, "spread", lambda count: iter([0, count - 1]))

    def measure(index: int) -> list[float]:
        seen.append(index)
        return [10.0 - index]

    assert seconds_of_all(11, measure) == [pytest.approx(sum(range(11)))]
    assert seen == [5, 0, 10]
    assert seconds_of_all(0, measure) == [0.0]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 97])
def test_spread_visits_every_group_once_and_the_ends_early(count: int) -> None:
    order = list(spread(count))
    assert sorted(order) == list(range(count))
    assert {0, count - 1} <= set(order[:3])


# ── with the real thing ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def settings(tiny_opt: Path) -> list[str]:
    values = {
        "pool.shard_rows": 16,
        "pool.max_reject_fraction": 0.1,
        "pool.holdout_fraction": 0.25,
        "clusters.num": 3,
        "proxy.model": tiny_opt,
        "proxy.max_tokens": 128,
        "finetune.batch_size": 20,
        "resources.cpus_per_worker": 1,
    }
    return [f"{key}={value}" for key, value in values.items()]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_counts_of_a_small_pool_are_those_of_the_run(
    pool_file: Path, settings: list[str], tmp_path: Path
) -> None:
    config = Config.load(None, settings).override(pool={"paths": [str(pool_file)]})
    run_dir = tmp_path / "run"
    found = estimate(config, run_dir)
    assert not run_dir.exists()
    assert found.measured.num_lines == found.measured.num_sampled == len(pool_lines())
    engine.run(config, run_dir)
    run = engine.open_run(run_dir)
    real = {run.step(r.stage, _epoch(folder)).label: r for folder, r in run.records().items()}
    said = {stage.label: stage for stage in found.stages}
    assert said.keys() == real.keys()
    for label, record in real.items():
        assert said[label].rows == record.rows_out, label
        if record.tokens:
            assert said[label].tokens == record.tokens, label
    assert said["embed"].shards == said["perplexity epoch 1"].shards == 4
    before = sorted(path for path in run_dir.rglob("*"))
    assert all(stage.done for stage in estimate(config, run_dir).stages)
    assert sorted(path for path in run_dir.rglob("*")) == before


def _epoch(folder: str) -> int:
    return int(folder.rsplit("epoch-", 1)[1]) if "epoch-" in folder else 0


@pytest.mark.usefixtures("ray_session")
def test_the_command_until_a_stage(
    pool_file: Path,
    settings: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    there = sorted(tmp_path.iterdir())
    words = [word for value in settings for word in ("--set", value)]
    assert cli.main(["plan", str(pool_file), *words, "--until", "tokens"]) == 0
    shown = capsys.readouterr()
    text = shown.out
    assert shown.err.splitlines()[:2] == [
        "  counting the pool's lines",
        "  measuring 1 of 3: reading and tokenising the sample",
    ]
    assert "\n  measuring 2 of 3: embedding (about " in shown.err
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert [line.split()[0] for line in text.splitlines()[2:6]] == [
        "pool",
        "embed",
        "cluster",
        "tokens",
    ]
    assert "Counts are exact: all 51 lines were read." in text
    assert f"poolscore run {pool_file} --set pool.shard_rows=16" in text
    assert "--run-dir runs/mine" in text
    assert len(text.splitlines()) <= 24
    assert sorted(tmp_path.iterdir()) == there


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*arguments: object) -> str:
        assert cli.main(["plan", *(str(argument) for argument in arguments)]) == 1
        text = capsys.readouterr().err
        assert "Traceback" not in text
        assert len(text.splitlines()) <= 24
        return text

    return call


@pytest.mark.usefixtures("ray_session")
def test_errors_fit_on_one_screen(
    refused: Callable[..., str], pool_file: Path, tmp_path: Path
) -> None:
    assert "none.jsonl" in refused(tmp_path / "none.jsonl")
    assert "scoring" in refused(pool_file, "--until", "scoring")
    assert "no such folder" in refused(pool_file, "--set", "proxy.model=./no/such")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"a": "x"}\n')
    text = refused(bad)
    assert "no row that can be read" in text
    assert "bad.jsonl, line 1: unknown_format" in text
    assert "poolscore-plan" not in text
    table = tmp_path / "bad.csv"
    table.write_text("colour,shade\na,b\n")
    assert "bad.csv, line 2: unknown_format" in refused(table)


def test_clusters_are_measured_with_their_embeddings() -> None:
    assert num_measurements(set()) == 1
    assert num_measurements({"cluster", "report"}) == num_measurements({"embed", "cluster"}) == 3
    assert num_measurements({"embed", "perplexity", "finetune"}) == 4
