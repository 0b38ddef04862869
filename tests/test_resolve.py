"""Settings that were left open: the day that a chat template prints."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine import resolve, rundir
from engine.assets import FOLDER
from engine.config import Config
from engine.errors import ConfigError
from engine.resolve import settle
from engine.rundir import RunDir
from engine.stages import tokens
from engine.step import PERPLEXITY, TOKENS, proxy_folder

DATED = (
    "{{ strftime_now('%d %b %Y') }}\n{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "<|end|>{% endfor %}"
)
TODAY, TOMORROW = datetime.date(2025, 12, 31), datetime.date(2026, 1, 1)


def set_clock(patch: pytest.MonkeyPatch, day: datetime.date) -> None:
    class Day(datetime.date):
        @classmethod
        def today(cls) -> Any:
            return day

    patch.setattr(resolve.datetime, "date", Day)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    model = tmp_path / "model"
    shutil.copytree(FOLDER / "nano-opt", model)
    (model / "chat_template.jinja").write_text(DATED)
    return Config.from_tree({"proxy": {"model": str(model), "template": "chat"}})


def begin(config: Config, run: RunDir) -> None:
    """What a run leaves that has begun to tokenise."""
    own = run.path / proxy_folder(config)
    (own / TOKENS).mkdir(parents=True)
    (own / rundir.SETTINGS).write_text(config.to_yaml())


def test_a_run_keeps_its_day(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "run")
    set_clock(monkeypatch, TODAY)
    first = settle(config, "cpu", run)
    assert first.proxy.date == TODAY
    before = tokens.settings(first, run, 0)
    assert before["date"] == "2025-12-31"
    begin(first, run)

    set_clock(monkeypatch, TOMORROW)
    assert tokens.settings(settle(config, "cpu", run), run, 0) == before
    # Another run, or tokens made anew, are of their own day; a day that is given is taken.
    assert settle(config, "cpu", RunDir(tmp_path / "other")).proxy.date == TOMORROW
    assert settle(config, "cpu", run, ["tokens"]).proxy.date == TOMORROW
    given = config.override(proxy={"date": "2024-02-29"})
    assert settle(given, "cpu", run).proxy.date == datetime.date(2024, 2, 29)


def test_where_nothing_prints_today_there_is_no_day(config: Config, tmp_path: Path) -> None:
    (tmp_path / "model" / "chat_template.jinja").write_text(DATED.replace("strftime_now", "str"))
    assert settle(config, "cpu", RunDir(tmp_path / "run")).proxy.date is None
    alpaca = config.override(proxy={"template": "alpaca"})
    assert settle(alpaca, "cpu", RunDir(tmp_path / "run")).proxy.date is None


def test_several_chat_templates_without_a_default_are_no_day_and_a_message(
    config: Config, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    (model / "chat_template.jinja").unlink()
    path = model / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    named = [{"name": name, "template": DATED} for name in ("tool_use", "rag")]
    path.write_text(json.dumps(settings | {"chat_template": named}))
    settled = settle(config, "cpu", RunDir(tmp_path / "run"))
    assert settled.proxy.date is None
    with pytest.raises(ConfigError) as error:
        tokens.check(settled)
    assert str(error.value) == (
        f"proxy.template = 'chat', but the chat template of {str(model)!r} cannot be used: there "
        "are several (rag, tool_use), and none is named default. Save the one you mean as "
        "chat_template.jinja in a folder with the model.\nOr use proxy.template=alpaca."
    )
    named[1]["name"] = "default"
    path.write_text(json.dumps(settings | {"chat_template": named}))
    assert settle(config, "cpu", RunDir(tmp_path / "run")).proxy.date == datetime.date.today()


@pytest.mark.parametrize("damage", ["", "a: [1", "nonsense: 3", "proxy: !!bool x", "\0"])
def test_settings_of_before_that_cannot_be_read_are_no_dead_end(
    config: Config, tmp_path: Path, damage: str
) -> None:
    run = RunDir(tmp_path / "run")
    begin(config, run)
    (run.path / proxy_folder(config) / PERPLEXITY).mkdir()
    own = run.path / proxy_folder(config) / rundir.SETTINGS
    for path in (own, run.path / rundir.SETTINGS):
        path.write_text(damage)
    told: list[str] = []
    day = datetime.date(2024, 2, 29)
    given = config.override(proxy={"date": day.isoformat()})
    assert settle(given, "cpu", run, warn=told.append).proxy.date == day
    if damage:
        assert [text.split(" is damaged")[0] for text in told] == [
            str(own),
            str(run.path / rundir.SETTINGS),
        ]
        assert all("is written anew" in text and len(text) < 3000 for text in told)
    else:  # an empty file is a configuration of defaults
        assert told == []


def test_the_day_is_a_setting_as_people_write_it(tmp_path: Path) -> None:
    config = Config.load(None, ["proxy.date=2025-03-09"])
    assert config.proxy.date == datetime.date(2025, 3, 9)
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    assert Config.load(tmp_path / "run.yaml") == config
