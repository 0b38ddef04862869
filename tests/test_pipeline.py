"""The whole way through, once, on a tiny model; then what a second run may and may not change."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from conftest import POOL_FLAGS, POOL_REJECTED, pool_lines
from transformers import LlamaConfig, LlamaForCausalLM

import engine
from engine import cli, pipeline, schema, stages
from engine.config import STAGE_NAMES, Config
from engine.errors import ConfigError, RunDirError
from engine.maths.batching import epoch_order
from engine.models import ModelSource, load_language_model, load_tokenizer
from engine.rundir import RunDir
from engine.step import POOL
from engine.summary import status_table, summary

SHARD_ROWS = 16
BATCH_SIZE = 8
"""What is chosen for 46 rows to train on."""


def make_config(pool: Path, model: Path, **resources: object) -> Config:
    return Config.from_tree(
        {
            "pool": {
                "paths": [str(pool)],
                "shard_rows": SHARD_ROWS,
                "max_reject_fraction": 0.1,
            },
            "clusters": {"num": 3},
            "proxy": {"model": str(model), "name": "tiny", "max_tokens": 128},
            "finetune": {"learning_rate": 2e-3},
            "select": {"percent": "25"},
            "resources": {"cpus_per_worker": 1, "score_batch_tokens": 512, **resources},
        }
    )


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    path.write_text("\n".join(pool_lines()) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny_opt(tiny_opt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a chat template, which is a part of what it is."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(tiny_opt, folder)
    template = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="module")
def finished(
    pool: Path, tiny_opt: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> engine.Run:
    """A run with one scoring worker."""
    folder = tmp_path_factory.mktemp("run") / "one"
    engine.run(make_config(pool, tiny_opt, num_workers=1), folder)
    return engine.open_run(folder)


def test_every_line_is_accounted_for(finished: engine.Run) -> None:
    scores = finished.scores()
    assert Counter(scores["flag"].to_pylist()) == POOL_FLAGS
    rejected = finished.rejected()
    assert dict(zip(rejected["line"].to_pylist(), rejected["reason"].to_pylist(), strict=True)) == (
        POOL_REJECTED
    )
    assert len(scores) + len(rejected) == len(pool_lines())
    assert scores["row"].to_pylist() == list(range(len(scores)))
    assert scores.schema.names == schema.scores(1).names
    assert scores["id"].to_pylist() == finished.pool()["id"].to_pylist()


def test_scores_are_null_exactly_where_a_row_is_flagged(finished: engine.Run) -> None:
    scores = finished.scores()
    ok = np.array(scores["flag"].to_pylist()) == "ok"
    for name in ("mean_nll_0", "mean_nll_1", "ppl_0", "ppl_1", "lp_app_1", "rank_in_cluster"):
        assert (np.asarray(scores[name].is_valid()) == ok).all(), name


def test_perplexities_equal_a_plain_loop(finished: engine.Run, tiny_opt: Path) -> None:
    """Row by row, through the model's own full logits, with the weights before and after."""
    trained = finished.dir.path / finished.step("finetune", 1).folder
    scores = finished.scores().filter(pc.field("flag") == "ok")
    step = finished.step("tokens")
    rows = [
        row
        for shard in step.shards()
        for row in step.read(step.folder, shard).to_pylist()
        if row["flag"] == "ok"
    ]
    for epoch, folder in enumerate((tiny_opt, trained)):
        model = load_language_model(folder, "float32", "cpu")
        for row, got in zip(rows, scores[f"mean_nll_{epoch}"].to_pylist(), strict=True):
            assert got == pytest.approx(plain_mean_nll(model, row), abs=1e-5)


@torch.no_grad()
def plain_mean_nll(model: torch.nn.Module, row: dict) -> float:
    ids = torch.tensor([row["input_ids"]])
    logits = model(input_ids=ids).logits[0].double()
    nll = [
        torch.logsumexp(logits[p - 1], 0) - logits[p - 1, row["input_ids"][p]]
        for p in row["scored"]
    ]
    return float(sum(nll) / len(nll))


def test_training_lowers_the_loss_and_sees_each_row_once(finished: engine.Run) -> None:
    scores = finished.scores().filter(pc.field("flag") == "ok")
    assert pc.mean(scores["mean_nll_1"]).as_py() < pc.mean(scores["mean_nll_0"]).as_py() - 0.1
    step = finished.step("finetune", 1)
    steps = step.read(step.folder, "steps.parquet")
    ids, rows = scores["id"].to_pylist(), np.asarray(scores["row"])
    order = rows[epoch_order(ids, seed=42, epoch=1)]
    expected = [sorted(order[i : i + BATCH_SIZE]) for i in range(0, len(order), BATCH_SIZE)]
    assert steps["rows"].to_pylist() == expected
    scored = dict(zip(rows.tolist(), scores["num_response_tokens"].to_pylist(), strict=True))
    assert steps["num_tokens"].to_pylist() == [sum(scored[r] for r in batch) for batch in expected]


def test_a_small_pool_learns_something_and_is_told_how_little_that_means(
    finished: engine.Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """46 rows, and a proxy of random weights: on the screen, in `status`, records and report."""
    scores = finished.scores().filter(pc.field("flag") == "ok")
    lp = np.asarray(scores["lp_app_1"])
    assert np.median(lp) > 0.05
    assert (np.asarray(scores["mean_nll_0"]) != np.asarray(scores["mean_nll_1"])).all()
    trained = finished.dir.record(finished.step("finetune", 1).folder)
    assert trained is not None
    assert (trained.details["steps"], trained.details["batch_size"]) == (6, BATCH_SIZE)
    measured = finished.dir.record(finished.step("perplexity", 1).folder)
    assert measured is not None
    assert measured.warnings == []
    before, after = (measured.details[f"trained_loss_{when}"] for when in ("before", "after"))
    assert measured.details["trained_rows"] == 46
    counts = np.asarray(scores["num_response_tokens"])
    for loss, epoch in ((before, 0), (after, 1)):
        mean = np.average(np.asarray(scores[f"mean_nll_{epoch}"]), weights=counts)
        assert loss == pytest.approx(mean, rel=1e-12)
    told = ["knows next to nothing", "only 6 optimizer steps of up to 8 rows"]
    shown = summary(finished)
    shown_status = status_table(finished.status())
    for text in (shown_status, shown.partition("hardest rows")[2], page_of(finished)):
        flat = " ".join(text.split())
        assert all(words in flat for words in told)
    assert "training      6 optimizer steps of up to 8 rows" in shown
    target = str(tmp_path / "hard.jsonl")
    assert cli.main(["select", str(finished.dir.path), "--rows", "5", "--to", target]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(words in printed for words in told)


def page_of(run: engine.Run) -> str:
    return run.report().read_text(encoding="utf-8")


def test_selection_is_exact_and_the_hardest_of_each_cluster(finished: engine.Run) -> None:
    selection = finished.selection()
    assert len(selection) == 12  # round(46 x 25 / 100), halves up
    assert selection.schema.names == schema.selection(1).names
    scores = finished.scores().filter(pc.field("flag") == "ok")
    for cluster in set(scores["cluster"].to_pylist()):
        inside = selection.filter(pc.field("cluster") == cluster)
        assert sorted(inside["rank_in_cluster"].to_pylist()) == list(range(len(inside)))
    raws = set(pool_lines())
    assert set(selection["raw"].to_pylist()) <= raws
    jsonl = (finished.dir.path / finished.step("select").folder / "selected.jsonl").read_text()
    assert jsonl.splitlines() == selection["raw"].to_pylist()


def test_a_second_run_changes_nothing(finished: engine.Run, capsys: pytest.CaptureFixture) -> None:
    before = snapshot(finished.dir.path)
    pipeline.run(finished.config, finished.dir.path)
    assert snapshot(finished.dir.path) == before
    assert capsys.readouterr().out.count("done before") == len(finished.steps)


def snapshot(folder: Path) -> dict[str, tuple[str, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in files
    }


def test_two_workers_and_another_order_of_shards_give_the_same_bytes(
    finished: engine.Run, pool: Path, tiny_opt: Path, tmp_path: Path
) -> None:
    """Half of the shards are there already, so two actors do the rest in another order."""
    folder = tmp_path / "two"
    shutil.copytree(finished.dir.path, folder)
    for step in finished.steps:
        if step.stage in ("embed", "cluster", "tokens", "perplexity", "score", "select", "report"):
            (folder / step.folder / "_stage.json").unlink()
        if step.stage in ("tokens", "perplexity"):
            (folder / step.folder / "part-00000.parquet").unlink()
            (folder / step.folder / "part-00002.parquet").unlink()
        if step.stage in ("cluster", "score", "select"):
            shutil.rmtree(folder / step.folder)
    pipeline.run(make_config(pool, tiny_opt, num_workers=2), folder)
    for step in finished.steps:
        for path in sorted((finished.dir.path / step.folder).glob("*.parquet")):
            again = folder / step.folder / path.name
            assert again.read_bytes() == path.read_bytes(), f"{step.folder}/{path.name}"


def test_a_stale_shard_is_never_reused(finished: engine.Run, tmp_path: Path) -> None:
    """A shard under the right name but made with other settings counts as absent."""
    folder = tmp_path / "stale"
    shutil.copytree(finished.dir.path, folder)
    step = finished.step("perplexity", 0)
    table = step.read(step.folder, "part-00001.parquet")
    RunDir(folder).commit_table(step.folder, "part-00001.parquet", table, "other settings")
    (folder / step.folder / "_stage.json").unlink()
    stale = engine.open_run(folder).step("perplexity", 0)
    assert stale.missing() == ["part-00001.parquet"]
    with pytest.raises(RunDirError, match=r"part-00001\.parquet was made with other settings"):
        stale.read(step.folder, "part-00001.parquet")


def test_two_training_workers_under_zero_3_agree_with_one(
    finished: engine.Run, pool: Path, tiny_opt: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "zero3"
    shutil.copytree(finished.dir.path, folder)
    config = make_config(pool, tiny_opt, train_workers=2, zero_stage=3, micro_batch_tokens=256)
    pipeline.run(config, folder, until="finetune", rebuild="finetune")
    path = finished.step("finetune", 1).folder
    one = load_language_model(finished.dir.path / path, "float32", "cpu").state_dict()
    two = load_language_model(folder / path, "float32", "cpu").state_dict()
    assert one.keys() == two.keys()
    for name, weight in one.items():
        # A bias on the keys shifts all attention scores alike: its gradient is pure rounding, which
        # Adam blows up to full steps. It changes no output.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(two[name], weight, atol=1e-5, rtol=1e-4, msg=name)


def test_select_again_from_stored_scores(finished: engine.Run, tmp_path: Path) -> None:
    from engine.config import SelectConfig

    target = tmp_path / "hard.jsonl"
    chosen = finished.select(SelectConfig(rows=7), target)
    assert chosen == (46, 7)
    assert len(target.read_text().splitlines()) == 7
    finished.select(SelectConfig(rows=46), target, force=True)
    assert sorted(target.read_text().splitlines()) == sorted(
        raw
        for raw, flag in zip(
            finished.pool()["raw"].to_pylist(), finished.scores()["flag"].to_pylist(), strict=True
        )
        if flag == "ok"
    )


def test_what_is_lost_is_made_again_and_nothing_else(
    finished: engine.Run, pool: Path, tiny_opt: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A shard of the pool, of the scores and of a stage that works by shards: the same bytes."""
    folder = tmp_path / "mended"
    shutil.copytree(finished.dir.path, folder)
    broken = [
        folder / POOL / "part-00001.parquet",
        folder / finished.step("embed").folder / "part-00002.parquet",
        folder / finished.step("score").folder / "part-00000.parquet",
    ]
    broken[0].unlink()
    broken[1].write_bytes(broken[1].read_bytes() + b"more")
    broken[2].write_bytes(broken[2].read_bytes()[:-1])
    with pytest.raises(RunDirError, match=r"1-pool/part-00001\.parquet is missing"):
        engine.open_run(folder).pool()
    capsys.readouterr()
    pipeline.run(make_config(pool, tiny_opt, num_workers=1), folder)
    assert capsys.readouterr().out.count("done before") == len(finished.steps) - 3
    for path in broken:
        assert path.read_bytes() == (finished.dir.path / path.relative_to(folder)).read_bytes()
    assert engine.open_run(folder).status(verify=True).is_as_recorded


def test_the_stages_are_the_documented_ones() -> None:
    assert tuple(stage.NAME for stage in pipeline.STAGES) == STAGE_NAMES


# ── drift ────────────────────────────────────────────────────────────────────────────────────────

DRIFT = [
    ("pool", {"holdout_fraction": 0.5}, "pool"),
    ("pool", {"shard_rows": 7}, "pool"),
    ("embed", {"max_tokens": 99}, "embed"),
    ("clusters", {"seed": 1}, "cluster"),
    ("proxy", {"template": "chat"}, "tokens"),
    ("proxy", {"max_tokens": 64}, "tokens"),
    ("proxy", {"dtype": "bfloat16"}, "perplexity"),
    ("finetune", {"learning_rate": 1.0}, "finetune"),
    ("finetune", {"seed": 1}, "finetune"),
    ("finetune", {"dropout": 0.1}, "finetune"),
    ("finetune", {"batch_size": 8}, "finetune"),
    ("finetune", {"schedule": "published"}, "finetune"),
    ("select", {"percent": "26"}, "select"),
]


@pytest.mark.parametrize(("section", "change", "first"), DRIFT)
def test_a_setting_that_matters_is_refused_from_the_first_stage_it_touches(
    finished: engine.Run, section: str, change: dict, first: str
) -> None:
    steps = pipeline.plan(finished.config.override(**{section: change}), finished.dir)
    kept = {step.folder: step.fingerprint for step in finished.steps}
    changed = [step for step in steps if kept[step.folder] != step.fingerprint]
    assert changed[0].stage == first
    with pytest.raises(
        RunDirError, match=f"was made with other settings(.|\n)*{next(iter(change))}"
    ):
        pipeline.refuse_drift(changed[0])


def test_resources_are_in_no_fingerprint(finished: engine.Run) -> None:
    resources = {
        "num_workers": 7,
        "cpus_per_worker": 3,
        "train_workers": 5,
        "zero_stage": 3,
        "micro_batch_tokens": 100,
        "score_batch_tokens": 99,
        "embed_batch_rows": 3,
        "stall_seconds": 5,
    }
    steps = pipeline.plan(finished.config.override(resources=resources), finished.dir)
    assert [step.fingerprint for step in steps] == [step.fingerprint for step in finished.steps]


def test_a_changed_pool_is_refused(finished: engine.Run, pool: Path, tmp_path: Path) -> None:
    changed = tmp_path / "pool.jsonl"
    changed.write_bytes(pool.read_bytes().replace(b"red", b"rod", 1))
    config = finished.config.override(pool={"paths": [str(changed)]})
    steps = pipeline.plan(config, finished.dir)
    with pytest.raises(RunDirError, match=r"files\.pool\.jsonl: was"):
        pipeline.refuse_drift(steps[0])


def test_a_moved_pool_is_not_drift(finished: engine.Run, pool: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "pool.jsonl"
    moved.parent.mkdir()
    shutil.copy(pool, moved)
    steps = pipeline.plan(finished.config.override(pool={"paths": [str(moved)]}), finished.dir)
    assert [step.fingerprint for step in steps] == [step.fingerprint for step in finished.steps]


def change_one_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ],
)
def test_another_proxy_is_refused(
    finished: engine.Run, tiny_opt: Path, tmp_path: Path, name: str
) -> None:
    other = tmp_path / "tiny"
    shutil.copytree(tiny_opt, other)
    config = finished.config.override(proxy={"model": str(other)})
    pipeline.refuse_drift(*pipeline.plan(config, finished.dir))  # moved, but the same
    change_one_byte(other / name)
    refuse_all_from("tokens", finished, config, name)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_another_embedder_is_refused(finished: engine.Run, tmp_path: Path, name: str) -> None:
    other = tmp_path / "embedder"
    shutil.copytree(ModelSource("embed.model", "bundled").folder(), other)
    config = finished.config.override(embed={"model": str(other)})
    pipeline.refuse_drift(*pipeline.plan(config, finished.dir))  # moved, but the same
    change_one_byte(other / name)
    refuse_all_from("embed", finished, config, name)


def refuse_all_from(stage: str, finished: engine.Run, config: Config, name: str) -> None:
    """Drift of a model's file begins at a stage, and its name and both digests are told."""
    steps = pipeline.plan(config, finished.dir)
    kept = {step.folder: step.fingerprint for step in finished.steps}
    changed = [step for step in steps if kept[step.folder] != step.fingerprint]
    assert changed[0].stage == stage
    told = rf"model\.files\.{re.escape(name)}: was '[0-9a-f]{{64}}', now '[0-9a-f]{{64}}'"
    with pytest.raises(RunDirError, match=told):
        pipeline.refuse_drift(*steps)


def test_a_proxys_old_scores_are_not_read_beside_a_new_pool(
    finished: engine.Run, tmp_path: Path
) -> None:
    """As when another proxy of the same run directory had the pool made anew."""
    folder = tmp_path / "renewed"
    shutil.copytree(finished.dir.path, folder)
    record = finished.step("pool")
    made = RunDir(folder).record(record.folder)
    assert made is not None
    RunDir(folder).commit_record(record.folder, made.model_copy(update={"fingerprint": "new"}))
    renewed = engine.open_run(folder, proxy="tiny")
    with pytest.raises(RunDirError, match="made from inputs that have changed"):
        renewed.scores()
    with pytest.raises(RunDirError, match=r"no run of a proxy 'other'(.|\n)*Proxies there: tiny"):
        engine.open_run(folder, proxy="other")


def test_a_source_file_that_changes_during_the_run_is_named(
    tiny_opt: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(pool_lines()) + "\n", encoding="utf-8")
    write_all = stages.pool._write_all

    def and_somebody_appends(*arguments: Any) -> Any:
        with path.open("a") as file:
            file.write('{"instruction": "Wait!", "output": "One more."}\n')
        return write_all(*arguments)

    monkeypatch.setattr(stages.pool, "_write_all", and_somebody_appends)
    with pytest.raises(RunDirError, match=r"changed while it ran(.|\n)*files\.pool\.jsonl: was"):
        engine.run(make_config(path, tiny_opt), tmp_path / "run", until="pool")
    assert not (tmp_path / "run" / POOL).exists()  # nobody knows what it was made of


@pytest.mark.slow
def test_rows_without_a_finite_score_are_flagged_and_trained_on_by_nobody(
    pool: Path, tmp_path: Path, ray_session: None
) -> None:
    """A model that has no number for one word: its rows cost themselves, not the run."""
    word = "river"
    model = save_tiny_llama(tmp_path / "model", word)
    config = make_config(pool, model, num_workers=1)
    engine.run(config, tmp_path / "run", until="select")
    run = engine.open_run(tmp_path / "run")
    flags = run.scores()["flag"].to_pylist()
    bad = {
        row
        for row, (raw, flag) in enumerate(zip(run.pool()["raw"].to_pylist(), flags, strict=True))
        if word in raw and flag != schema.DUPLICATE
    }
    assert len(bad) >= 4
    assert {row for row, flag in enumerate(flags) if flag == schema.NOT_FINITE} == bad
    assert bad.isdisjoint(run.selection()["row"].to_pylist())
    steps = run.step("finetune", 1)
    seen = steps.read(steps.folder, "steps.parquet")["rows"].to_pylist()
    assert sorted(row for rows in seen for row in rows) == [
        row for row, flag in enumerate(flags) if flag == schema.OK
    ]


def save_tiny_llama(folder: Path, word: str) -> Path:
    """A random Llama with its own head, whose embedding of every token of a word is NaN."""
    tokenizer = load_tokenizer(ModelSource("proxy.model", "bundled"))
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    made = LlamaForCausalLM(config)
    others = tokenizer(" ".join(line.replace(word, "") for line in pool_lines())).input_ids
    own = set(tokenizer(f" {word}").input_ids) - set(others)
    with torch.no_grad():
        made.model.embed_tokens.weight[sorted(own)] = float("nan")
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("packages", "told"),
    [
        (["faiss-cpu", "numpy"], None),
        (["faiss-gpu-cu12"], None),
        (["faiss_cpu", "faiss-gpu"], "faiss-gpu and faiss_cpu are both installed"),
        (["faiss-cpu", "faiss-gpu-cu12"], "pip uninstall -y faiss-cpu faiss-gpu-cu12"),
    ],
)
def test_two_builds_of_faiss_are_refused(packages: list[str], told: str | None) -> None:
    if told is None:
        pipeline.refuse_two_faisses(packages)
        return
    with pytest.raises(ConfigError, match=told):
        pipeline.refuse_two_faisses(packages)
