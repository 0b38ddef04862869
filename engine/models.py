"""Loading models. Device and dtype are decided here and only here.

Where a model comes from and what is checked of its folder is `model_source`.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import BUNDLED, Config
from engine.errors import ModelError, PoolscoreError, in_short
from engine.model_source import ModelSource
from engine.rundir import RunDir
from engine.storage import is_away

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from engine.step import Step

PROBE_TOKENS = 64


def proxy_source(config: Config) -> ModelSource:
    """The configured proxy."""
    return ModelSource("proxy.model", config.proxy.model, config.proxy.revision)


def proxy_of(step: Step) -> ModelSource:
    """The proxy that a step's settings were made from, for its workers."""
    return proxy_source(step.config).meaning(step.settings.get("model", {}))


def embedder_source(config: Config) -> ModelSource:
    """The configured embedder."""
    return ModelSource("embed.model", config.embed.model, config.embed.revision)


def proxy_bytes(config: Config) -> int:
    """Weights of the proxy, as every scoring actor holds them; 0 where that is not known."""
    return proxy_source(config).local_bytes(config.proxy.dtype)


def embedder_bytes(config: Config) -> int:
    """The same of the embedder."""
    return embedder_source(config).local_bytes(config.embed.dtype)


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The model's own fast tokenizer, untouched: no token is added.

    Raises:
        ModelError: the tokenizer does not load, or has no fast version (character offsets need
            one) or no EOS.
    """
    from transformers import AutoTokenizer

    folder = source.tokenizer_folder()
    with _loading(folder, "folder with a tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ModelError(
            f"{source.setting} = {source.name!r}: its tokenizer has no fast version "
            "(tokenizer.json), which character offsets need. Choose another model or convert it."
        )
    if tokenizer.eos_token is None:
        raise ModelError(
            f"{source.setting} = {source.name!r}: its tokenizer has no end-of-sequence token, "
            "so the end of a response cannot be scored. Set eos_token in tokenizer_config.json."
        )
    return tokenizer


def load_config(source: ModelSource) -> PreTrainedConfig:
    """The model's configuration.

    Raises:
        ModelError: transformers knows no such model, or the file is damaged.
    """
    from transformers import AutoConfig

    folder = source.tokenizer_folder()
    with _loading(folder, "folder with a model's configuration"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def context_length(source: ModelSource, max_tokens: int) -> int:
    """Tokens a row may have: the setting, capped by the model's own number of positions."""
    path = source.tokenizer_folder() / "config.json"
    with _loading(path, "configuration"):
        config = json.loads(path.read_text())
    # Models that also see or hear keep what is about text apart.
    config = {**config, **(config.get("text_config") or {})}
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    positions = next((config[name] for name in names if config.get(name)), None)
    return min(max_tokens, positions) if positions else max_tokens


def vocabulary_size(source: ModelSource) -> int:
    """Tokens the model chooses among; 0 where its configuration does not say."""
    path = source.tokenizer_folder() / "config.json"
    with _loading(path, "configuration"):
        config = json.loads(path.read_text())
        return int(
            config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size", 0)
        )


def notes_of(source: ModelSource, run: RunDir) -> list[str]:
    """What people should know of this proxy; a copy of the bundled one is told by its weights."""

    def weights(of: ModelSource) -> list[str]:
        files: dict[str, str] = of.identity(run).get("files", {})
        return sorted(digest for name, digest in files.items() if name.endswith(".safetensors"))

    bundled = ModelSource(source.setting, BUNDLED)
    return (bundled if weights(source) == weights(bundled) else source).notes()


def load_language_model(folder: Path, dtype: str, device: str, **overrides: Any) -> PreTrainedModel:
    """A causal language model in evaluation mode.

    Args:
        folder: config.json and safetensors.
        dtype: ``float32`` or ``bfloat16``.
        device: ``cpu`` or ``cuda``.
        overrides: entries of the model's config to replace (dropout while fine-tuning).

    Raises:
        ModelError: weights are missing (transformers would leave them random) or nothing loads.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with _loading(folder, "causal language model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **overrides,
        )
    model, info = loaded
    for kind in ("missing_keys", "mismatched_keys"):
        if info[kind]:
            raise ModelError(f"{folder}: {kind.replace('_', ' ')}: {sorted(info[kind])[:5]}")
    return model.to(device).eval()


def probe_loss(model: PreTrainedModel) -> float:
    """Mean loss of a language model on some ids of no meaning: equal for equal models."""
    import torch

    embedding: Any = model.get_input_embeddings()
    size = len(embedding.weight)
    ids = (torch.arange(PROBE_TOKENS) * 7919 % size)[None]
    with torch.no_grad():
        logits = model(ids, use_cache=False).logits[0, :-1].double()
    return float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))


def load_embedder(
    source: ModelSource, dtype: str, device: str, max_tokens: int
) -> SentenceTransformer:
    """A sentence-transformers model that sees `max_tokens` tokens of a text.

    Raises:
        ModelError: it does not load.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    folder = source.folder()
    with _loading(folder, "sentence-transformers model"):
        embedder = SentenceTransformer(
            str(folder),
            device=device,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"dtype": getattr(torch, dtype), "use_safetensors": True},
        )
    embedder.max_seq_length = min(max_tokens, embedder.max_seq_length or max_tokens)
    return embedder.eval()


@contextmanager
def _loading(path: Path, what: str) -> Iterator[None]:
    """Turn what libraries raise over files that are damaged, or do not belong together.

    And let transformers draw no bars of its own meanwhile, in the middle of our lines.
    """
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except PoolscoreError:
        raise
    except Exception as error:
        if is_away(error) or _is_of_the_machine(error):
            raise
        raise ModelError(f"{path} is no {what} that can be loaded: {in_short(error)}") from None
    finally:
        if bars:
            logging.enable_progress_bar()


def _is_of_the_machine(error: Exception) -> bool:
    """Whether memory, file handles or the device are what is missing."""
    scarce = isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EMFILE)
    text = str(error)
    return scarce or isinstance(error, MemoryError) or "CUDA" in text or "allocate memory" in text


def use_threads(num_threads: int) -> None:
    """Fix torch's thread count: sums are grouped by thread, so the last bits depend on it."""
    import torch

    torch.set_num_threads(num_threads)


def use_tokenizer_threads(num_threads: int) -> None:
    """Let fast tokenizers share a batch among threads; call it before the first one is used.

    A GPU embeds more rows than the few thousand a second that one thread tokenises.
    """
    os.environ.update(TOKENIZERS_PARALLELISM="true", RAYON_NUM_THREADS=str(num_threads))
