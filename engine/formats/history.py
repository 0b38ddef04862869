"""Earlier rounds beside a prompt: pairs of texts, objects of two texts, or turns."""

from __future__ import annotations

from typing import Final, cast

from engine import schema
from engine.formats.chat import TurnKeys, add_turns
from engine.formats.turns import Draft, Turn
from engine.formats.values import Row, RowError, is_absent_json, is_empty, json_type
from engine.schema import ASSISTANT, USER

_ASKS: Final = ("user", "human", "prompt", "instruction", "question", "query", "input")
_ANSWERS: Final = (
    *("assistant", "gpt", "bot", "model", "response", "output", "completion", "answer"),
)


def add_history(draft: Draft, row: Row, keys: tuple[str, ...], turn_keys: TurnKeys) -> None:
    """Append earlier rounds under the first of the keys that holds some. Their answers are context.

    They are ``[[user, assistant], …]``, objects such as ``{"user": …, "assistant": …}``, or turns.

    Raises:
        RowError: they are none of these.
    """
    key = next((key for key in keys if not is_absent_json(row.get(key))), None)
    draft.used += [other for other in keys if other != key and is_absent_json(row.get(other))]
    if key is None:
        return
    draft.used.append(key)
    start = len(draft.turns)
    rounds = row[key]
    if not isinstance(rounds, list):
        detail = f"{key}: {json_type(rounds)}, expected a list of [user, assistant] pairs"
        raise RowError(schema.WRONG_TYPE, detail)
    items = cast(list[object], rounds)
    if isinstance(items[0], dict) and _names(items[0], turn_keys) is None:
        add_turns(draft, key, items, turn_keys)
    else:
        for position, item in enumerate(items):
            _add_round(draft, item, key, f"{key}[{position}]", turn_keys)
    draft.mask(start, len(draft.turns))


def _add_round(draft: Draft, item: object, key: str, where: str, turn_keys: TurnKeys) -> None:
    texts: list[object] = []
    if isinstance(item, dict):
        fields = cast(dict[str, object], item)
        names = _names(fields, turn_keys) or ()
        texts = [fields[name] for name in names]
        others = [name for name in fields if name not in names and not is_empty(fields[name])]
        draft.unused += [f"{key}[].{name}" for name in others]
    elif isinstance(item, list | tuple):
        texts = cast(list[object], item)
    if len(texts) == 2 and isinstance(texts[0], str) and isinstance(texts[1], str):
        draft.turns += Turn(USER, texts[0]), Turn(ASSISTANT, texts[1])
        return
    raise RowError(schema.WRONG_TYPE, f"{where}: expected a pair of texts, user and assistant")


def _names(item: object, turn_keys: TurnKeys) -> tuple[str, str] | None:
    """Under which keys of an object a prompt and its answer are texts; None if it is a turn."""
    fields = cast(dict[str, object], item)
    if any(not is_empty(fields.get(key)) for key in turn_keys.role):
        return None
    ask = next((key for key in _ASKS if isinstance(fields.get(key), str)), None)
    answer = next((key for key in _ANSWERS if isinstance(fields.get(key), str)), None)
    return (ask, answer) if ask is not None and answer is not None else None
