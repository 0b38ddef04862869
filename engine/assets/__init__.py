"""Files shipped with the package: the bundled proxy, and a sample pool to try it on.

``bundled.yaml`` names the proxy, the learning rate that suits it and what to say of it, so a better
model replaces the present one without a change of code.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

FOLDER = Path(__file__).parent
SAMPLE_POOL = FOLDER / "sample" / "pool.jsonl"


class BundledProxy(NamedTuple):
    """The language model shipped with the package."""

    folder: Path
    learning_rate: float
    note: str
    """What people should know before they trust scores made with it."""


@cache
def bundled_proxy() -> BundledProxy:
    """Where the bundled proxy lies and the peak learning rate it wants."""
    entry = yaml.safe_load((FOLDER / "bundled.yaml").read_text())["proxy"]
    return BundledProxy(FOLDER / entry["folder"], float(entry["learning_rate"]), entry["note"])
