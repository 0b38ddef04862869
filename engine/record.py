"""What a finished stage says of itself, and the digest of all that its results depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from engine import schema

FORMAT = 1
"""Of records. A poolscore reads those of its own format alone."""


STATE_FOLDER = "state"
"""In the folder of an epoch of the training: what the next one starts from. The one folder whose
files a record lists, by ``state/…``. It may be removed: the next epoch then trains from the start.
"""


class FileEntry(BaseModel):
    """One file of a stage, as it was when the stage was finished."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str
    rows: int | None = None
    """Of a Parquet file."""


class Record(BaseModel):
    """What a finished stage says of itself; ``_stage.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    stage: str
    fingerprint: str
    """Digest of `settings`, `inputs` and the stage's version: what the results depend on."""
    settings: dict[str, Any]
    inputs: dict[str, str]
    """Fingerprints of the folders this stage read, by folder."""
    rows_in: int
    rows_out: int
    flags: dict[str, int]
    """Rows per flag among `rows_out`."""
    rejected: int = 0
    """Lines that never became a row (1-pool only)."""
    tokens: int = 0
    """Tokens processed, where the stage processes tokens."""
    seconds: float
    peak_memory_bytes: int
    """Largest resident memory of any one process of the stage."""
    workers: int
    files: dict[str, FileEntry]
    """Every file it wrote, by name. Readers go by this list, whatever the folder holds."""
    details: dict[str, Any]
    """Whatever else a reader of this stage wants to know."""
    notes: list[str] = []
    """What a person may want to know; said once, when the stage is done."""
    warnings: list[str] = []
    """What a person should know before trusting the results; shown wherever the stage is."""
    versions: dict[str, str]
    commit: str | None
    finished: str
    """UTC, ISO 8601."""

    @field_validator("files")
    @classmethod
    def _plain_names(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            first, *below = name.split("/")
            parts = below if below and first == STATE_FOLDER else [name]
            if any(not part or "/" in part or "\0" in part or is_hidden(part) for part in parts):
                raise ValueError(f"{name!r} is no file of a stage")
        return files

    @property
    def num_flagged(self) -> int:
        """Rows with a reason not to be scored."""
        return sum(num for flag, num in self.flags.items() if flag != schema.OK)

    @property
    def shards(self) -> list[str]:
        """Names of its shards, in order."""
        return sorted(filter(is_shard, self.files))


class OtherFormatError(ValueError):
    """A record of another version of poolscore."""


def parse(data: bytes) -> Record:
    """A record from its bytes.

    Raises:
        OtherFormatError: another version of poolscore wrote it.
        ValueError: it is damaged; the first fault, on one line.
    """
    try:
        tree: object = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(tree, dict):
        raise ValueError("it is no JSON object")
    told = cast("dict[str, Any]", tree)
    found = told.get("format", 0 if "fingerprint" in told else FORMAT)
    if isinstance(found, int) and found != FORMAT:
        when = "a later" if found > FORMAT else "an earlier"
        raise OtherFormatError(
            f"was written by {when} version of poolscore (records of format {found}; this version "
            f"reads format {FORMAT})"
        )
    try:
        return Record.model_validate(told)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_input=False)
        where = ".".join(map(str, first["loc"]))[:80]
        more = f", and {len(others)} more faults" if others else ""
        raise ValueError(f"{where}: {first['msg'][:120]}{more}") from None


def is_shard(name: str) -> bool:
    """Whether a file's name is one of a stage's shards."""
    return fnmatch(name, "part-*.parquet")


def is_state(name: str) -> bool:
    """Whether a recorded name is that of a file in `STATE_FOLDER`."""
    return name.startswith(f"{STATE_FOLDER}/")


def is_hidden(name: str) -> bool:
    """Whether a name counts for nothing in a stage's folder, or is the record's own."""
    return name.startswith((".", "_"))


def fingerprint(
    stage: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """Digest of everything a stage's results depend on: 32 hex digits of SHA-256.

    Resources are in `settings` of no stage, so they never change it.
    """
    content = {"stage": stage, "version": version, "settings": settings, "inputs": inputs}
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
