"""Prompts that begin alike: which rows share how many first tokens, and attention that uses it.

Every prompt of a template starts with the same tokens. Under causal attention their keys and values
do not depend on what follows, so they are computed once and shared by all rows of a group.

`shared_prefixes` finds the groups; `SharedPrefix` and `attention` are the other half, plugged into
a transformers model by `share_prefixes`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engine.maths.batching import ANY_LENGTHS
from engine.maths.lengths import length_rule
from engine.maths.ragged import Ragged

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Ints = npt.NDArray[np.int64]

MIN_GROUP_ROWS = 64
"""Smaller groups than this would cost more in short batches than their prefix saves."""
MIN_SAVED = 0.1
"""Part of a group's tokens that sharing must save; below it the rows are scored whole."""
MAX_PREFIX_TOKENS = 1024
_SHARING = "poolscore_shared_prefix"
"""Name of `attention` among the attention functions of transformers."""


@dataclass(frozen=True)
class PrefixGroup:
    """Rows that begin alike."""

    rows: Ints
    """Which rows, ascending."""
    num_tokens: int
    """How many first tokens they share; 0 for rows that are scored whole."""


def shared_prefixes(rows: Ragged, limits: npt.NDArray[np.integer]) -> list[PrefixGroup]:
    """Split rows into groups that share a prefix.

    Rows are split where their common prefix ends, as long as a part keeps `MIN_GROUP_ROWS` rows;
    groups whose prefix saves less than `MIN_SAVED` of their tokens are put together as whole rows.

    Args:
        rows: token ids of n rows.
        limits: int[n], the most first tokens of each row that may be shared, less than its length.

    Returns:
        Groups that together hold 0 … n-1 once; a pure function of the rows.
    """
    width = int(min(np.max(limits, initial=0), MAX_PREFIX_TOKENS))
    heads = _first_tokens(rows, np.minimum(limits, width), width)
    whole: list[Ints] = []
    groups: list[PrefixGroup] = []
    todo = [np.arange(len(rows), dtype=np.int64)]
    while todo:
        members = todo.pop()
        if not len(members):
            continue
        shared = _common(heads[members])
        branches: npt.NDArray[np.int32] = (
            heads[members, shared] if shared < width else np.full(len(members), -1, np.int32)
        )
        tokens, counts = np.unique(branches, return_counts=True)
        large = tokens[(counts >= MIN_GROUP_ROWS) & (tokens >= 0)]
        todo += [members[branches == token] for token in large]
        left = members[~np.isin(branches, large)]
        saved = shared * (len(left) - 1)
        worth = shared > 0 and saved >= MIN_SAVED * rows.lengths[left].sum()
        if worth and len(left) >= MIN_GROUP_ROWS:
            groups.append(PrefixGroup(left, shared))
        else:
            whole.append(left)
    alone = np.sort(np.concatenate([*whole, np.zeros(0, dtype=np.int64)]))
    return [*groups, PrefixGroup(alone, 0)] if len(alone) else groups


def _first_tokens(
    rows: Ragged, limits: npt.NDArray[np.integer], width: int
) -> npt.NDArray[np.int32]:
    """int32[n, width]: the tokens that may be shared, -1 behind each row's limit."""
    places = rows.offsets[:-1, None] + np.arange(width)
    inside = np.arange(width) < limits[:, None]
    heads = np.full((len(rows), width), -1, dtype=np.int32)
    heads[inside] = rows.values[places[inside]]
    return heads


def _common(heads: npt.NDArray[np.int32]) -> int:
    """Number of first columns in which all rows hold the same token."""
    same = ((heads == heads[0]) & (heads >= 0)).all(axis=0)
    return int(same.argmin()) if not same.all() else len(same)


@dataclass
class SharedPrefix:
    """Keys and values of a prefix, layer by layer: filled by one pass over it, then only read."""

    num_tokens: int
    keys_and_values: dict[int, tuple[Tensor, Tensor]] = field(
        default_factory=dict[int, tuple[Tensor, Tensor]]
    )
    """Per layer two tensors [1, heads, num_tokens, head dimension]."""
    filled: bool = False


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    shared_prefix: SharedPrefix | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention of transformers, behind a shared prefix where one is given.

    The prefix's keys and values are laid before each row's own. As many empty queries are laid
    before the row's, so that the plain causal kernel applies: its mask starts at the first key.

    Args:
        module: the attention layer; tells its `layer_idx`.
        query: [batch, heads, length, head dimension].
        key: [batch, key heads, length, head dimension].
        value: like `key`.
        attention_mask: must be None where a prefix is shared.
        shared_prefix: what to put before the rows.
        settings: passed on (scaling, dropout).

    Returns:
        [batch, length, heads, head dimension], and no weights.
    """
    from transformers.integrations.sdpa_attention import (
        sdpa_attention_forward as sdpa,  # pyright: ignore[reportUnknownVariableType]
    )

    if shared_prefix is None:
        return sdpa(module, query, key, value, attention_mask, **settings)
    assert attention_mask is None, "a shared prefix knows only causal attention"
    layer = int(module.layer_idx)  # pyright: ignore[reportArgumentType]
    if not shared_prefix.filled:
        shared_prefix.keys_and_values[layer] = key, value
        return sdpa(module, query, key, value, None, **settings)
    keys, values = shared_prefix.keys_and_values[layer]
    num, batch = shared_prefix.num_tokens, len(query)
    out, _ = sdpa(
        module,
        nn.functional.pad(query, (0, 0, num, 0)),
        torch.cat([keys.expand(batch, -1, -1, -1), key], dim=2),
        torch.cat([values.expand(batch, -1, -1, -1), value], dim=2),
        None,
        **settings,
    )
    return out[:, num:], None


@contextmanager
def share_prefixes(model: PreTrainedModel) -> Generator[bool, None, None]:
    """Let a model attend to a shared prefix (`attention`) while inside, and only there.

    Models that go by the name of their attention compute something else while inside: whoever
    enters has compared (`scoring.Scorer.prepare`).

    Yields:
        Whether it can: a model of plain causal attention, which runs on torch's own kernel. Where
        it can't, nothing is changed.
    """
    import transformers
    from transformers import masking_utils

    masking: Any = masking_utils
    if not _may_share(model.config):
        yield False
        return
    functions: Any = transformers.AttentionInterface
    masks = masking.AttentionMaskInterface
    outer: Any = model.config
    before = [(config, config._attn_implementation) for config in _all_configs(outer)]
    functions.register(_SHARING, attention)
    masks.register(_SHARING, masking.sdpa_mask)
    outer._attn_implementation = _SHARING
    try:
        yield True
    finally:
        for config, implementation in before:  # inner ones may have had another than the outer
            config._attn_implementation = implementation
        for registered in (functions, masks):
            registered._global_mapping.pop(_SHARING, None)


def _may_share(config: Any) -> bool:
    inner = config.get_text_config()
    kinds = set(getattr(inner, "layer_types", None) or ["full_attention"])
    windowed = getattr(inner, "sliding_window", None) or kinds != {"full_attention"}
    # Rotary frequencies that change with the row's length would not fit the prefix's keys.
    by_length = length_rule(config) != ANY_LENGTHS
    own = {found._attn_implementation for found in _all_configs(config)}
    return (
        own <= {"sdpa", None}
        and config._attn_implementation == "sdpa"
        and not (windowed or by_length)
    )


def _all_configs(config: Any) -> list[Any]:
    """A configuration and all that are inside it, outer ones first."""
    inner = [getattr(config, name, None) for name in config.sub_configs]
    return [config, *(c for found in inner if found is not None for c in _all_configs(found))]
