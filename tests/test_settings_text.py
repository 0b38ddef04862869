"""`poolscore settings`: what it prints can be edited and read again."""

from __future__ import annotations

import pytest
import yaml
from pydantic import BaseModel

from engine.config import Config
from engine.errors import ConfigError
from engine.settings_text import settings_yaml

CHANGED = ["select.percent=2.5", "pool.paths=['a b.jsonl', 'ü*.parquet']"]
FIELDS = ["pool.fields={prompt: q, response: 'null', roles: {narrator: system}}"]


@pytest.mark.parametrize("config", [Config(), Config.load(settings=[*CHANGED, *FIELDS])])
def test_what_is_printed_is_the_same_configuration(config: Config) -> None:
    assert Config.from_tree(yaml.safe_load(settings_yaml(config))) == config


def test_every_setting_stands_below_its_sentence() -> None:
    lines = settings_yaml(Config()).splitlines()
    for name, section in Config.model_fields.items():
        kind = section.annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        start = lines.index(f"{name}:")
        for key, field in kind.model_fields.items():
            place = next(i for i in range(start, len(lines)) if lines[i].startswith(f"  {key}:"))
            comment: list[str] = []
            while lines[place - 1].startswith("  # "):
                place -= 1
                comment.insert(0, lines[place].removeprefix("  # "))
            assert field.description
            assert " ".join(comment).startswith(" ".join(field.description.split()))


def test_words_that_are_allowed_are_listed() -> None:
    text = settings_yaml(Config(), "select")
    assert "# Which part of each cluster to take: lowest, middle or highest scores. One\n" in text
    assert "of: low, mid, high.\n  order: low\n" in text
    assert "A\n  # mapping of: prompt, input, response" in settings_yaml(Config(), "pool")


def test_it_fits_a_small_terminal() -> None:
    assert max(map(len, settings_yaml(Config()).splitlines())) <= 80


def test_a_section_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"selct: no such section; did you mean 'select'\?"):
        settings_yaml(Config(), "selct")
