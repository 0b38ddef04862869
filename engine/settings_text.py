"""Every setting with its meaning, as YAML that can be edited: ``poolscore settings``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engine.config import Config
from engine.errors import ConfigError, did_you_mean

WIDTH = 80


def settings_yaml(config: Config, section: str | None = None) -> str:
    """The settings as YAML, each below a comment that says what it means.

    Args:
        config: whose values are shown.
        section: one of its sections alone, such as ``finetune``.

    Raises:
        ConfigError: there is no such section.
    """
    sections = Config.model_fields
    if section is not None and section not in sections:
        raise ConfigError(
            f"{section}: no such section{did_you_mean(section, sections)}\n"
            f"Sections: {', '.join(sections)}"
        )
    names = [section] if section is not None else list(sections)
    return "\n".join("\n".join(_section(name, getattr(config, name))) + "\n" for name in names)


def _section(name: str, values: BaseModel) -> Iterator[str]:
    kind = type(values)
    yield from _comment(" ".join((kind.__doc__ or "").split()), "")
    yield f"{name}:"
    shown = values.model_dump(mode="json")
    for key, field in kind.model_fields.items():
        meaning = " ".join((field.description or "").split())
        yield from _comment(meaning + _allowed(field), "  ")
        yield textwrap.indent(_entry(key, shown[key]), "  ")


def _comment(text: str, indent: str) -> list[str]:
    mark = f"{indent}# "
    return textwrap.wrap(
        text, WIDTH, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False
    )


def _entry(key: str, value: Any) -> str:
    # A mapping in braces: were it a block, its own keys would look like settings of the section.
    flow = isinstance(value, dict | list)
    text = yaml.safe_dump(value, default_flow_style=flow, width=10**6, allow_unicode=True)
    text = text.removesuffix("\n").removesuffix("\n...")  # which YAML puts behind a bare value
    return f"{key}: {text}"


def _allowed(field: FieldInfo) -> str:
    """`` One of: low, mid, high.`` where only some words are allowed, and the keys of a mapping."""
    kinds = _kinds(field.annotation)
    words = [str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    keys = [key for kind in kinds if _is_section(kind) for key in kind.model_fields]
    told = {" One of": words, " A mapping of": keys}
    return "".join(f"{what}: {', '.join(names)}." for what, names in told.items() if names)


def _kinds(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, UnionType):
        return [kind for kind in get_args(annotation) if kind is not NoneType]
    return [annotation]


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
