"""Errors that a person can mend: each says what, where and how to mend it, on one screen."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

CAUSAL_ONLY = (
    "The proxy must be a causal (left-to-right) language model, such as GPT, OPT, Llama or Qwen."
)
"""How to mend a proxy that sees the answer, whoever finds that out."""
DEVICE_LOST = "CUDA error"
"""In the text of errors after which the process cannot use its GPU any more."""
REASON_CHARACTERS = 300
MAX_LINES = 12
"""Of an error's text that is told within another one."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'percent'?`` for a word that is close to a known one, else nothing."""
    names = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def how_to_install(extra: str) -> str:
    """The command that installs what an extra brings (`cpu`, `gguf` …)."""
    return f"In poolscore's source folder: pip install -c constraints.txt '.[{extra}]'"


def in_short(error: object) -> str:
    """What a library says, on one line: its advice may fill pages."""
    return " ".join(str(error).split())[:REASON_CHARACTERS]


class PoolscoreError(Exception):
    """Base of the errors below; the command line prints its text and exits with 1."""


class ConfigError(PoolscoreError):
    """A setting is wrong."""


class PoolError(PoolscoreError):
    """A pool cannot be read as a whole."""

    def __init__(self, what: str, where: str, fix: str) -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  fix:   {self.fix}"


class BrokenFileError(PoolError):
    """A file of a pool that cannot be trusted from some line on, or not at all.

    Args:
        what: what is wrong with it.
        where: the file and the place.
        fix: how to mend it.
        reason: one of `schema.FILE_REASONS`.
        line: the line at which it breaks; rows before it are whole.
    """

    def __init__(self, what: str, where: str, fix: str, reason: str, line: int) -> None:
        super().__init__(what, where, fix)
        self.args = what, where, fix, reason, line  # what pickling hands on
        self.reason, self.line = reason, line


class ModelError(PoolscoreError):
    """A model cannot be used."""


class WorkerError(PoolscoreError):
    """A worker failed or died."""


class NothingLearntError(PoolscoreError):
    """An epoch left every score as it was, or none: there is nothing to tell hard rows by."""


class RunDirError(PoolscoreError):
    """The run directory cannot serve this run."""


class DamagedError(WorkerError):
    """A checkpoint's bytes are not what was written; it is of no use to anybody."""


def beginning(text: str) -> str:
    """As much of an error's text as leaves room for what is said around it."""
    lines = text.splitlines()
    return "\n".join([*lines[:MAX_LINES], *(["…"] if len(lines) > MAX_LINES else [])])
