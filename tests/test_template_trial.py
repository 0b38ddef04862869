"""The template tried before any work: what stops a run, what is only said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import trial
from engine.assets import FOLDER
from engine.config import Config
from engine.errors import ConfigError
from engine.stages import tokens

PLAIN = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    + PLAIN
)
ONE_ROUND = "{% if messages | length > 2 %}{{ raise_exception('one round') }}{% endif %}" + PLAIN


def config_for(
    folder: Path, template: str | None, rows: Sequence[dict[str, Any]], **proxy: Any
) -> Config:
    """A model folder with that chat template, and a pool of those rows."""
    model = folder / "model"
    shutil.copytree(FOLDER / "nano-opt", model)
    if template is not None:
        (model / "chat_template.jinja").write_text(template)
    pool = folder / "pool.jsonl"
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"model": str(model), "template": "chat", **proxy}
    return Config.from_tree({"pool": {"paths": [str(pool)]}, "proxy": settings})


def chat_row(*contents: str, system: str = "") -> dict[str, Any]:
    turns = [{"role": "system", "content": system}] if system else []
    for place, content in enumerate(contents):
        turns.append({"role": "assistant" if place % 2 else "user", "content": content})
    return {"messages": turns}


def test_a_template_that_takes_every_row_says_nothing(tmp_path: Path) -> None:
    rows = [
        chat_row("a?", "One."),
        chat_row("a?", "One.", "b?", "Two."),
        chat_row("c?", "T", system="s"),
    ]
    assert tokens.check(config_for(tmp_path, PLAIN, rows)) == []


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no') }}", "template_refused|raised an error"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "beyond recognition"),
        ("{% for m in messages %}{{ m.content }", "cannot be used: unexpected"),
        (None, "has no chat template"),
    ],
)
def test_a_template_that_scores_nothing_stops_the_run(
    tmp_path: Path, template: str | None, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        tokens.check(config_for(tmp_path, template, [chat_row("a?", "One.")]))
    assert "proxy.template=alpaca" in str(error.value)


def test_rows_that_would_be_lost_are_said(tmp_path: Path) -> None:
    rows = [chat_row("a?", "One.")] * 15 + [chat_row("a?", "One.", system="s")] * 5
    (warning,) = tokens.check(config_for(tmp_path, NO_SYSTEM, rows))
    assert warning == (
        "25.0% of the pool's first rows cannot be scored (5 template_refused: the chat template "
        "raised an error on this conversation)."
    )


def test_a_template_that_costs_most_rows_stops_the_run(tmp_path: Path) -> None:
    rows = [chat_row("a?", "One.")] + [chat_row("a?", "One.", "b?", "Two.")] * 3
    with pytest.raises(ConfigError, match="of the pool's first 4 rows 3 could not") as error:
        tokens.check(config_for(tmp_path, ONE_ROUND, rows))
    assert "template_refused: 3 (" in str(error.value)


def test_long_prompts_are_said_with_what_helps(tmp_path: Path) -> None:
    rows = [chat_row("long " * 200, "One.")] * 3 + [chat_row("a?", "One.")]
    (warning,) = tokens.check(config_for(tmp_path, PLAIN, rows, max_tokens=64))
    assert warning.startswith("75.0% of the pool's first rows have a prompt that fills the context")
    assert "64 tokens" in warning
    assert "proxy.max_tokens" in warning


def test_rows_that_the_pool_loses_are_not_laid_to_the_template(tmp_path: Path) -> None:
    rows = [{"messages": []}, chat_row("", "x"), {"text": "none"}, chat_row("a?", "One.")]
    assert tokens.check(config_for(tmp_path, PLAIN, rows)) == []
    assert tokens.check(config_for(tmp_path / "b", PLAIN, [])) == []


def test_the_head_is_of_several_files_and_never_more_than_its_share(tmp_path: Path) -> None:
    for number in range(20):
        lines = [json.dumps(chat_row("a?", f"{number}-{line}")) for line in range(100)]
        (tmp_path / f"{number:02}.jsonl").write_text("\n".join(lines))
    config = Config.from_tree({"pool": {"paths": [str(tmp_path)]}})
    answers = [turns[1].content for turns in trial.pool_head(config.pool)]
    files = [text.split("-")[0] for text in answers]
    assert list(dict.fromkeys(files)) == ["0", "3", "6", "9", "12", "15", "18"]
    assert {files.count(name) for name in files} == {trial.SAMPLE_ROWS // 7}
    missing = Config.from_tree({"pool": {"paths": [str(tmp_path / "none.jsonl")]}})
    assert trial.pool_head(missing.pool) == []


def test_the_alpaca_text_is_tried_too(tmp_path: Path) -> None:
    config = config_for(tmp_path, None, [{"prompt": "a?", "response": "b"}])
    assert tokens.check(config.override(proxy={"template": "alpaca"})) == []
