"""Rendered text → token ids, scored positions and length flags.

The text is tokenised as a whole, and a token is scored when it *starts* inside a response, white
space before it aside. Positions decide, never token ids: pad, EOS and BOS are often the same token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from engine import schema
from engine.formats import Turn

BATCH_ROWS = 256
"""Texts tokenised at a time: what a tokenizer makes of them is some 100 bytes per token."""


Conversation = Sequence[Turn] | Sequence[tuple[str, str]]
"""Turns; a plain one is as good as its role and content."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as one text."""

    text: str
    responses: tuple[tuple[int, int], ...]
    """Character spans [start, end) of what is scored: responses, and their end-of-turn tokens."""
    ends_turn: bool = True
    """The last span ends with the end-of-turn token of the last response that is scored."""


@dataclass(frozen=True)
class Encoded:
    """A row as the model sees it."""

    input_ids: npt.NDArray[np.int32]
    scored: npt.NDArray[np.int32]
    """Positions in `input_ids` that are scored, ascending."""
    end_scored: bool
    """The last scored position holds the end-of-turn token of the last response."""
    truncated: bool
    flag: str


def as_turns(conversation: Conversation) -> list[Turn]:
    """The turns of a conversation with all that a turn may have."""
    return [turn if isinstance(turn, Turn) else Turn(*turn) for turn in conversation]


def until_last_response(turns: Sequence[Turn]) -> Sequence[Turn]:
    """The conversation without what follows the last assistant turn: nothing there is scored."""
    return turns[: last_response(turns) + 1]


def last_response(turns: Sequence[Turn]) -> int:
    """Place of the last assistant turn; there is one in every row that is ``ok``."""
    return max(place for place, turn in enumerate(turns) if turn.role == schema.ASSISTANT)


def scored_turns(turns: Sequence[Turn], which: str) -> list[int]:
    """Places of the assistant turns that are scored: all, or the last; never one that is masked."""
    first = last_response(turns) if which == "last" else 0
    return [
        place
        for place, turn in enumerate(turns)
        if place >= first and turn.role == schema.ASSISTANT and turn.scored
    ]


def encode_all(
    tokenizer: PreTrainedTokenizerBase,
    rendered: Sequence[Rendered | str],
    max_tokens: int,
    add_special_tokens: bool,
) -> list[Encoded]:
    """Token ids and scored positions of each text; a flag in a text's place stays that flag."""
    texts = [one for one in rendered if isinstance(one, Rendered)]
    encoded = iter(_tokenise(tokenizer, texts, max_tokens, add_special_tokens))
    return [next(encoded) if isinstance(one, Rendered) else _flagged(one) for one in rendered]


def _tokenise(
    tokenizer: PreTrainedTokenizerBase,
    rendered: Sequence[Rendered],
    max_tokens: int,
    add_special_tokens: bool,
) -> list[Encoded]:
    # Past transformers, which would copy every row's ids and offsets into lists and keep them for
    # the whole batch; these three settings are what it would set for a plain call.
    backend: Any = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    encoded: list[Encoded] = []
    for start in range(0, len(rendered), BATCH_ROWS):
        batch = rendered[start : start + BATCH_ROWS]
        made = backend.encode_batch(
            [one.text for one in batch], add_special_tokens=add_special_tokens
        )
        encoded += [
            _encode(row.ids, row.offsets, one, max_tokens)
            for row, one in zip(made, batch, strict=True)
        ]
    return encoded


def _encode(
    ids: Sequence[int], offsets: Sequence[tuple[int, int]], one: Rendered, max_tokens: int
) -> Encoded:
    # Every offset is looked at: tokenizers do not promise that they ascend. `fromiter` over the
    # flat numbers takes half as long as `asarray`, which first asks each pair for its shape.
    flat = np.fromiter(chain.from_iterable(offsets), dtype=np.int64, count=2 * len(ids))
    starts, ends = flat.reshape(-1, 2).T
    # A special token put in by the tokenizer has the empty span (0, 0). It is never scored, and
    # behind the text, where some put EOS, it would be a second end token.
    in_text = ends > 0
    length = int(in_text.nonzero()[0][-1]) + 1 if in_text.any() else 0
    scored = np.zeros(len(ids), dtype=bool)
    for first, end in one.responses:
        scored |= (starts >= first) & (starts < end)
        if one.text[first - 1 : first].isspace():
            # Many tokenizers make one token of a space and the word behind it, and give it the
            # space's place or the word's. Behind "ASSISTANT: " it is the response's first word.
            for place in ((starts < first) & (ends > first)).nonzero()[0]:
                scored[place] |= one.text[starts[place] : first].isspace()
    return _cut(ids[:length], (scored & in_text).nonzero()[0], one.ends_turn, max_tokens)


def _cut(
    ids: Sequence[int], scored: npt.NDArray[np.integer], ends_turn: bool, max_tokens: int
) -> Encoded:
    """Cut a row at the context's end, on the right."""
    truncated = len(ids) > max_tokens
    inside = scored[scored < max_tokens]
    complete = bool(len(inside)) and len(inside) == len(scored)
    return Encoded(
        input_ids=np.asarray(ids[:max_tokens], dtype=np.int32),
        scored=inside.astype(np.int32),
        end_scored=complete and ends_turn,
        truncated=truncated,
        flag=_length_flag(len(inside), truncated),
    )


def _length_flag(num_scored: int, truncated: bool) -> str:
    if num_scored:
        return schema.OK
    return schema.PROMPT_TOO_LONG if truncated else schema.NO_SCORED_TOKEN


def _flagged(flag: str) -> Encoded:
    empty = np.zeros(0, dtype=np.int32)
    return Encoded(empty, empty, end_scored=False, truncated=False, flag=flag)
