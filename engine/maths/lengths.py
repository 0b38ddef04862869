"""Models that treat a row by the length of its batch, and which rows may share one there.

Rotary frequencies may depend on how long the padded batch is: "longrope" has two sets of them, one
for batches of up to the length of the pretraining and one for longer ones; "dynamic" stretches them
to the very length, and goes on with the last ones it made. Sparse attention that picks its keys
breaks ties in an order that depends on how many keys there are.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from engine.maths.batching import LengthRule


def length_rule(config: Any) -> LengthRule:
    """Which rows may share a batch, so that each is treated as it would be alone.

    Args:
        config: a configuration of transformers.
    """
    inner = config.get_text_config()
    ropes = _rope_settings(inner)
    borders = {_original_length(rope, inner) for rope in ropes if "longrope" in _kind(rope)}
    equal_above: list[int] = []
    if any("dynamic" in _kind(rope) for rope in ropes):
        equal_above.append(int(inner.max_position_embeddings))
    if isinstance(picked := getattr(inner, "index_topk", None), int):
        equal_above.append(picked)  # shorter rows attend to all their keys
    return LengthRule(tuple(sorted(borders)), min(equal_above, default=None))


def _rope_settings(config: Any) -> list[dict[str, Any]]:
    """The rotary settings: one for the model, or one for each kind of layer."""
    told = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    ropes = cast("dict[str, Any]", told or {})
    inside = [cast("dict[str, Any]", rope) for rope in ropes.values() if isinstance(rope, dict)]
    return [ropes, *inside]


def _kind(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "")


def _original_length(rope: dict[str, Any], config: Any) -> int:
    original = rope.get("original_max_position_embeddings")
    original = original or getattr(config, "original_max_position_embeddings", None)
    return int(original or config.max_position_embeddings)


def stretching_modules(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Rotary embeddings whose frequencies are those of the longest batch they have seen.

    Returns:
        Each with what the names of its frequencies begin with: nothing, or a kind of layer.
    """
    found: list[tuple[nn.Module, str]] = []
    for module in model.modules():
        kinds: Any = getattr(module, "rope_type", None)
        by_layer = cast("dict[str, str]", kinds if isinstance(kinds, dict) else {"": kinds})
        for layer, kind in by_layer.items():
            if "dynamic" in str(kind):
                found.append((module, f"{layer}_" if layer else ""))
    return found


def forget_lengths(modules: list[tuple[nn.Module, str]]) -> None:
    """Let `stretching_modules` treat the next batch as if it were their first."""
    for module, name in modules:
        original = getattr(module, f"{name}original_inv_freq", None)
        seen = getattr(module, f"{name}max_seq_len_cached", None)
        if original is not None and seen is not None and seen != module.original_max_seq_len:
            now = getattr(module, f"{name}inv_freq")
            module.register_buffer(f"{name}inv_freq", original.to(now.device), persistent=False)
            setattr(module, f"{name}max_seq_len_cached", module.original_max_seq_len)
