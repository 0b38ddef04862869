"""Whether the proxy can judge a response at all, found out before any work.

A proxy reads from left to right: what it says of a token depends on the tokens before it alone. An
encoder has the answer in sight, and an encoder-decoder reads the prompt otherwise. Most are told by
their configuration; the rest by a few dozen tokens through the weights themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import ray
from jinja2 import TemplateError
from ray.exceptions import RayError

from engine import models
from engine.config import Config
from engine.errors import CAUSAL_ONLY, DEVICE_LOST, ConfigError, ModelError, in_short
from engine.failures import for_a_person
from engine.models import ModelSource
from engine.nodes import Nodes
from engine.parallel import Task
from engine.terminal import plain
from engine.text import make_template
from engine.trial import CONVERSATIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRIAL_TOKENS = 48
SMALL_BYTES = 64 * 2**20
"""Weights that are tried in this process: to start another takes longer than all the rest."""
LISTED_TOKENS = 3


def check(config: Config, nodes: Nodes) -> None:
    """Refuse a proxy that is no causal language model, or does not fit its tokenizer.

    Raises:
        ModelError: says what it is instead.
    """
    source = models.proxy_source(config)
    refuse_kind(source)
    tokenizer = models.load_tokenizer(source)
    ordinary = _ordinary(tokenizer)
    largest = _largest(tokenizer, {*ordinary, *_rendered(tokenizer, source, config)})
    row = _spread(ordinary, models.context_length(source, TRIAL_TOKENS))
    try_out = partial(complaint, source, config.proxy.dtype, nodes.device, largest, row)
    small = 0 < models.proxy_bytes(config) <= SMALL_BYTES
    if small and nodes.device == "cpu":
        told = try_out()
    else:
        # Where the scorer will load it: this machine may have neither a GPU nor the memory.
        wanted = _try_out.options(num_cpus=nodes.cpus_per_worker, num_gpus=nodes.gpus_per_worker)
        try:
            told = Task(partial(wanted.remote, try_out)).result()
        except RayError as error:
            raise for_a_person(
                "trying out the proxy",
                error,
                "A worker that died without a word was most often out of memory.",
            ) from None
    if told:
        raise ModelError(f"{source.setting} = {source.name!r}: {told}")


# One call a process: it would keep the weights on a GPU that Ray takes for free. Ray decides that
# by what stands here, where it knows of no GPU yet.
@ray.remote(max_calls=1, max_retries=0)
def _try_out(function: partial[str]) -> str:
    return function()


def _ordinary(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of all tokens that are text, ascending; added ones mean more, or nothing."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    added: dict[str, int] = cast("Any", tokenizer).get_added_vocab()
    return sorted(i for token, i in vocabulary.items() if token not in added)


def _rendered(
    tokenizer: PreTrainedTokenizerBase, source: ModelSource, config: Config
) -> Iterator[int]:
    """Ids that the template makes of plain conversations, those of its own marks among them."""
    proxy = config.proxy
    length = models.context_length(source, proxy.max_tokens)
    # A template that cannot be used is told by the stage that uses it.
    with suppress(TemplateError, ValueError, ConfigError):
        template = make_template(proxy.template, tokenizer, length, proxy.scored_turns, proxy.date)
        for row in template.encode(CONVERSATIONS):
            yield from row.input_ids.tolist()


def _largest(tokenizer: PreTrainedTokenizerBase, ids: set[int]) -> list[tuple[int, str]]:
    """The largest of some ids and their tokens."""
    found = sorted(ids, reverse=True)[: LISTED_TOKENS + 1]
    return [(i, str(tokenizer.convert_ids_to_tokens(i))) for i in found]


def _spread(ids: list[int], length: int) -> list[int]:
    """So many ids, from all over."""
    return ids[:: max(1, len(ids) // length)][:length]


def refuse_kind(source: ModelSource) -> None:
    """Refuse what its configuration says is no causal language model.

    Raises:
        ModelError: says what it is.
    """
    config = models.load_config(source)
    told = kind_complaint(config)
    if told:
        raise ModelError(f"{source.setting} = {source.name!r} is {told}. {CAUSAL_ONLY}")


def kind_complaint(config: Any) -> str:
    """What a model is that is no causal language model by its configuration; else nothing.

    Args:
        config: a configuration of transformers.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED,
    )

    kind = str(config.model_type)
    if getattr(config, "is_encoder_decoder", False):
        return f"an encoder-decoder ({kind}): it reads the prompt with an encoder of its own"
    if kind not in CAUSAL:
        return f"a model ({kind}) that transformers has no causal language model of"
    # XLM and XLNet have names of their own for it.
    is_causal = (
        getattr(config, "is_decoder", False)
        or getattr(config, "causal", False)
        or getattr(config, "attn_type", "") == "uni"
    )
    if (kind in MASKED or kind == "xlnet") and not is_causal:
        return f"an encoder ({kind}): it sees the whole text, the answer included"
    return ""


def complaint(
    source: ModelSource, dtype: str, device: str, largest: list[tuple[int, str]], row: list[int]
) -> str:
    """Why the weights cannot be scored with, found out on one short row; else nothing.

    Args:
        source: the model.
        dtype: ``float32`` or ``bfloat16``.
        device: ``cpu`` or ``cuda``.
        largest: the largest ids that rows may hold and their tokens.
        row: token ids to try the weights on; which ones plays no part.
    """
    from engine.scoring import BREAKS

    model = models.load_language_model(source.folder(), dtype, device)
    embedding: Any = model.get_input_embeddings()
    num_rows = len(embedding.weight)
    beyond = [f"{token!r} = {i}" for i, token in largest if i >= num_rows]
    if beyond:
        named = ", ".join([*beyond[:LISTED_TOKENS], *(["…"] if beyond[LISTED_TOKENS:] else [])])
        return (
            f"its tokenizer has tokens that its embedding of {num_rows:,} rows has not: {named}\n"
            "Take the tokenizer that belongs to these weights, or resize the embedding with "
            "transformers: model.resize_token_embeddings(len(tokenizer))"
        )
    try:
        return _complaint_of_values(model, row, dtype, device)
    except BREAKS as error:
        told = " ".join(str(error).split())
        if DEVICE_LOST in told:
            raise
        return (
            f"it breaks on {len(row)} tokens of its own vocabulary: {type(error).__name__}: "
            f"{plain(in_short(told))}\nIts config.json may not belong to these "
            "weights, or this transformers cannot run it here. Choose another proxy."
        )


def _complaint_of_values(model: PreTrainedModel, row: list[int], dtype: str, device: str) -> str:
    import torch

    from engine.maths.trial import sees_ahead

    tokens = torch.tensor(row, device=device)
    with torch.inference_mode():
        logits = model(input_ids=tokens[None], use_cache=False).logits
    if not bool(torch.isfinite(logits).any(dim=-1).all()):
        return f"its logits are not finite in {dtype}. The weights may be damaged."
    if sees_ahead(model, tokens):
        return f"its value of a token changes with the tokens behind it. {CAUSAL_ONLY}"
    return ""
