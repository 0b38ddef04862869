"""The model hub: which commit a name stands for now, and the files of a commit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engine.errors import ModelError

SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken", "*.spm")
FILES = ("*.safetensors", *SMALL_FILES)
PICKLED = ("pytorch_model*.bin", "pytorch_model.bin.index.json", *SMALL_FILES)
"""What a conversion asks for, and nothing else does."""
TIMEOUT_SECONDS = 20.0
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def blobs(folder: Path, kind: str) -> list[Path]:
    """Where the hub's cache keeps what the links of a snapshot stand for; none for other folders.

    Args:
        folder: as resolved.
        kind: ``models`` or ``datasets``.
    """
    whole = folder.parent.parent
    if folder.parent.name != "snapshots" or not whole.name.startswith(f"{kind}--"):
        return []
    return [whole / "blobs", whole.parent / "blobs"]  # its own, and those shared by all


def cannot_be(name: str) -> bool:
    """Whether a name is none that the hub could know: of a file, or with too many parts."""
    return not _NAME.fullmatch(name) or name.endswith((".gguf", ".bin", ".safetensors"))


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit, which stands for the same files for ever."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def check_pinned(setting: str, name: str, revision: str | None) -> None:
    """Refuse a model that may be another one tomorrow.

    Raises:
        ModelError: the revision is no commit.
    """
    if not is_commit(revision):
        raise _not_pinned(setting, name, "and a hub model must be pinned")


def commit_of(setting: str, name: str, revision: str | None) -> str:
    """The commit that a branch (by default the main one) or a tag stands for now.

    Args:
        setting: that named the model: ``proxy.model``.
        name: of the model on the hub.
        revision: branch or tag; None for the main branch.

    Raises:
        ModelError: there is no network, or the hub knows no such model or revision.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        found = HfApi().model_info(name, revision=revision, timeout=TIMEOUT_SECONDS).sha
    except OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set"
        raise _not_pinned(setting, name, f"whose commit cannot be looked up: {reason}") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        at = f" at {revision!r}" if revision else ""
        raise ModelError(
            f"{setting} = {name!r}: the hub has no such model{at} for you (it answers {status}).\n"
            "Check the name and the revision; gated and private models need HF_TOKEN. Or give a "
            "local folder."
        ) from None
    except HFValidationError:
        raise _not_pinned(setting, name, "which it cannot be by its name") from None
    except Exception as error:  # of whichever HTTP library it comes with
        reason = f"the hub does not answer ({type(error).__name__})"
        raise _not_pinned(setting, name, f"whose commit cannot be looked up: {reason}") from error
    if not is_commit(found):
        raise _not_pinned(setting, name, "and the hub does not tell its commit")
    assert found is not None
    return found


def why_not_fetched(name: str, revision: str | None) -> str:
    """Why nothing of a model can be fetched now; empty where the hub answers.

    Where it does not, its library is content with whatever of the model it has.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        HfApi().model_info(name, revision=revision, timeout=TIMEOUT_SECONDS)
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set"
    except Exception as error:  # noqa: BLE001  of whichever HTTP library it comes with
        return f"the hub does not answer ({type(error).__name__})"
    return ""


def _not_pinned(setting: str, name: str, why: str) -> ModelError:
    return ModelError(
        f"{setting} = {name!r} is no folder and no file here, so it is taken for a hub model,\n"
        f"{why}. Set {setting.removesuffix('model')}revision to its commit (40 hex digits, on the "
        "model's page\nunder Files, History), or name a local folder."
    )


def download(setting: str, name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder in the hub's cache with the files of a commit, fetched if need be.

    Raises:
        ModelError: the revision is no commit, or it cannot be fetched.
    """
    check_pinned(setting, name, revision)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except Exception as error:  # the hub library raises a dozen kinds; all mean the same here
        raise ModelError(
            f"{setting} = {name!r} at revision {revision} cannot be fetched: "
            f"{type(error).__name__}.\nCheck the name, the network, HF_TOKEN for gated models, "
            "or give a local folder."
        ) from error
