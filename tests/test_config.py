"""The configuration: what is refused and how, what --set reads, and that files round-trip."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from engine import config as config_module
from engine.config import Config, FieldMap, Section
from engine.errors import ConfigError

JOBS = sorted((Path(__file__).parents[1] / "jobs").glob("*.yaml"))


def refusal(*settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.load(settings=settings)
    return str(caught.value)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def test_an_unknown_key_is_refused_with_the_keys_beside_it() -> None:
    message = refusal("select.percentage=5")
    assert "select.percentage: no such setting" in message
    assert "percent, rows, tokens, metric, order, rule" in message


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("select.percnt=5", "; did you mean 'percent'?"),
        ("selct.percent=5", "; did you mean 'select'?"),
        ("finetune.percent=5", "; did you mean select.percent?"),
        ("pool.fields={prompt: q, response: a, sytem: s}", "; did you mean 'system'?"),
        ("select.colour=5", "\n"),
    ],
)
def test_what_may_have_been_meant_is_named(setting: str, meant: str) -> None:
    assert f"no such setting{meant}" in refusal(setting)


def test_settings_are_told_where_they_were_given(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("select: {percent: 3}\n")
    with pytest.raises(ConfigError, match=r"wrong settings in --set:\n  select\.order"):
        Config.load(file, ["select.order=up"])
    file.write_text("select: {percent: many}\n")
    with pytest.raises(ConfigError, match=f"wrong settings in {file}:\n  select.percent"):
        Config.load(file, ["select.order=low"])
    with pytest.raises(ConfigError, match=r"in engine\.Config:\n  select\.percnt"):
        Config(select={"percnt": 3})  # type: ignore[arg-type]


def test_an_unknown_section_is_refused_with_the_sections() -> None:
    message = refusal("scoring.batch=5")
    assert "scoring: no such setting" in message
    assert f"Allowed here: {', '.join(Config.model_fields)}" in message


def test_an_unknown_key_two_sections_deep_is_refused() -> None:
    message = refusal("pool.fields={prompt: q, response: a, colour: c}")
    assert "pool.fields.colour: no such setting" in message
    assert (
        "prompt, input, response, history, system, turns, role, content, thinking, weight"
        in message
    )


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("pool.shard_rows=0", "pool.shard_rows", "0"),
        ("pool.shard_rows=many", "pool.shard_rows", "'many'"),
        ("pool.holdout_fraction=1", "pool.holdout_fraction", "1"),
        ("proxy.dtype=float16", "proxy.dtype", "'float16'"),
        ("proxy.template=vicuna", "proxy.template", "'vicuna'"),
        ("finetune.learning_rate=0", "finetune.learning_rate", "0"),
        ("finetune.dropout=-0.1", "finetune.dropout", "-0.1"),
        ("select.percent=0", "select.percent", "0"),
        ("select.percent=100.5", "select.percent", "100.5"),
        ("select.percent=ten", "select.percent", "'ten'"),
        ("select.order=lowest", "select.order", "'lowest'"),
        ("resources.zero_stage=4", "resources.zero_stage", "4"),
        ("resources=8", "resources", "8"),
    ],
)
def test_a_wrong_value_is_refused_by_name(setting: str, key: str, value: str) -> None:
    assert f"\n  {key} = {value}: " in refusal(setting)


def test_every_wrong_setting_is_named_at_once() -> None:
    message = refusal("pool.shard_rows=0", "select.order=up", "embed.size=3")
    assert all(key in message for key in ("pool.shard_rows", "select.order", "embed.size"))


@pytest.mark.parametrize(
    "sizes",
    [("percent=5", "rows=10"), ("percent=5", "tokens=10"), ("rows=5", "tokens=10")],
)
def test_two_sizes_of_a_selection_are_refused(sizes: tuple[str, str]) -> None:
    assert "give one of percent, rows and tokens" in refusal(*(f"select.{s}" for s in sizes))


@pytest.mark.parametrize("size", ["rows=10", "tokens=10"])
def test_the_reference_rule_takes_only_a_percentage(size: str) -> None:
    message = refusal("select.rule=reference", f"select.{size}")
    assert "the reference rule knows only percent" in message


def test_a_schedule_shorter_than_the_training_is_refused() -> None:
    message = refusal("finetune.num_epochs=3", "finetune.schedule_epochs=2")
    assert "schedule_epochs must not be smaller than num_epochs" in message


@pytest.mark.parametrize(
    "fields", ["{prompt: q}", "{response: a}", "{}", "{prompt: q, response: a, turns: t}"]
)
def test_field_names_are_of_a_flat_or_a_chat_row(fields: str) -> None:
    assert "either both prompt and response, or turns" in refusal(f"pool.fields={fields}")


# ── --set ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("setting", "section", "name", "expected"),
    [
        ("finetune.learning_rate=5e-4", "finetune", "learning_rate", 5e-4),
        ("finetune.learning_rate=2.5E-05", "finetune", "learning_rate", 2.5e-5),
        ("finetune.learning_rate=null", "finetune", "learning_rate", None),
        ("finetune.betas=[0.8, 0.95]", "finetune", "betas", (0.8, 0.95)),
        ("pool.paths=[a.jsonl, b/*.parquet]", "pool", "paths", ("a.jsonl", "b/*.parquet")),
        ("pool.fields={turns: chat}", "pool", "fields", FieldMap(turns="chat")),
        ("pool.fields.turns=chat", "pool", "fields", FieldMap(turns="chat")),
        ("select.percent=33.3", "select", "percent", Decimal("33.3")),
        ("select.metric=a=b", "select", "metric", "a=b"),
        ("proxy.name='007'", "proxy", "name", "007"),
        ("proxy.name='1e3'", "proxy", "name", "1e3"),
        ("resources.activation_checkpointing=true", "resources", "activation_checkpointing", True),
        ("resources.score_batch_tokens=1e4", "resources", "score_batch_tokens", 10_000),
        (" finetune.seed = 7", "finetune", "seed", 7),
    ],
)
def test_set_reads_values_as_yaml(setting: str, section: str, name: str, expected: Any) -> None:
    assert getattr(getattr(Config.load(settings=[setting]), section), name) == expected


def test_set_lies_over_the_file_and_later_over_earlier(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("select:\n  percent: 5\n  order: high\nfinetune: {seed: 1}\n")
    loaded = Config.load(path, ["select.percent=7", "select.percent=2.5", "embed.max_tokens=9"])
    assert (loaded.select.percent, loaded.select.order) == (Decimal("2.5"), "high")
    assert (loaded.finetune.seed, loaded.embed.max_tokens) == (1, 9)


@pytest.mark.parametrize("setting", ["select.percent", "=5", ""])
def test_set_without_a_key_and_a_value_is_refused(setting: str) -> None:
    message = refusal(setting)
    assert "--set takes key=value, for example select.percent=5" in message
    assert repr(setting) in message


def test_set_into_a_value_is_refused() -> None:
    assert "'seed' holds a value, not a section" in refusal("finetune.seed=1", "finetune.seed.x=2")


def test_set_with_broken_yaml_is_refused() -> None:
    assert "--set pool.paths=[a: the value is not valid YAML" in refusal("pool.paths=[a")


# ── files ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_every_job_file_loads_and_means_what_it_says(path: Path) -> None:
    loaded = Config.load(path).model_dump(mode="json")
    for section, values in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        for name, value in values.items():
            if isinstance(value, dict):
                assert {key: loaded[section][name][key] for key in value} == value
            elif isinstance(loaded[section][name], str) and not isinstance(value, str):
                assert Fraction(loaded[section][name]) == Fraction(str(value))
            else:
                assert loaded[section][name] == value


def test_there_are_job_files() -> None:
    assert "demo.yaml" in [path.name for path in JOBS]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["select.percent=33.3", "finetune.learning_rate=5e-4", "proxy.dtype=bfloat16"],
        ["pool.paths=[å.jsonl, 'b: c']", "pool.fields={turns: t, roles: {Human: user}}"],
        ["select.tokens=1000", "finetune.num_epochs=2", "finetune.schedule_epochs=3"],
        ["pool.source_field='null'", "proxy.name='1e3'", "embed.revision='0123'"],
    ],
)
def test_yaml_round_trips(settings: list[str], tmp_path: Path) -> None:
    config = Config.load(settings=settings)
    path = tmp_path / "run.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    again = Config.load(path)
    assert again == config
    assert again.to_yaml() == config.to_yaml()


@pytest.mark.parametrize("percent", ["2.5", "33.3", "0.1", "66.67"])
def test_percentages_stay_exact_decimals(percent: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"select: {{percent: {percent}}}\n")
    for config in (Config.load(path), Config.load(settings=[f"select.percent={percent}"])):
        assert config.select.percent is not None
        assert Fraction(config.select.percent) == Fraction(percent)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("# nothing yet\n")
    assert Config.load(path) == Config()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"- a\n- b\n", "must be a mapping of sections"),
        (b"select: [5\n", "is not valid YAML"),
        (b"select: \xff\n", "is not valid YAML"),
    ],
)
def test_a_broken_file_is_refused_by_name(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as caught:
        Config.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*job\.yaml: No such file"):
        Config.load(tmp_path / "job.yaml")


# ── the tree ─────────────────────────────────────────────────────────────────────────────────────


def test_settings_are_frozen() -> None:
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.select.percent = Decimal(5)
    with pytest.raises(ValidationError, match="frozen"):
        config.select = config_module.SelectConfig()


def test_override_replaces_and_keeps_and_checks() -> None:
    config = Config.load(settings=["select.order=high", "finetune.seed=3"])
    changed = config.override(select={"percent": 5})
    assert (changed.select.percent, changed.select.order) == (Decimal(5), "high")
    assert changed.finetune == config.finetune
    assert config.select.percent is None
    with pytest.raises(ConfigError, match=r"select\.percent = 500"):
        config.override(select={"percent": 500})


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        ({}, "bundled"),
        ({"model": "facebook/opt-350m"}, "opt-350m"),
        ({"model": "/models/my model/"}, "my-model"),
        ({"model": "..", "name": None}, "proxy"),
        ({"model": "facebook/opt-350m", "name": "../a/b"}, "a-b"),
        ({"name": "größe 1"}, "gr-e-1"),
    ],
)
def test_the_proxys_folder_name_is_safe(proxy: dict[str, Any], expected: str) -> None:
    assert Config.from_tree({"proxy": proxy}).proxy_name == expected


def sections() -> list[type[BaseModel]]:
    return [
        value
        for value in vars(config_module).values()
        if isinstance(value, type) and issubclass(value, Section) and value is not Section
    ]


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_every_setting_has_its_sentence(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        if section is Config:  # its fields are the sections, whose docstrings speak for them
            assert field.annotation is not None
            assert (field.annotation.__doc__ or "").strip().endswith("."), name
        else:
            assert field.description is not None, name
            assert field.description[0].isupper() or field.description[0] == "`", name
            assert field.description.endswith("."), name
