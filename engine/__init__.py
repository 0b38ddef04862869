"""poolscore: find the part of an instruction-tuning pool that is worth training on.

::

    pool in → 1 pool → 2 embed → 3 cluster                          what the pool is
            → 4 tokens → 5 perplexity ⇄ 6 finetune, epoch by epoch  what a small proxy makes of it
            → 7 score → 8 select → 9 report                         the verdict

From Python::

    import engine
    engine.run(engine.Config(pool={"paths": ["pool.jsonl"]}), "runs/mine")
    scores = engine.open_run("runs/mine").scores()   # an Arrow table
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Config", "Run", "open_run", "run"]

if TYPE_CHECKING:
    from engine.config import Config
    from engine.pipeline import run
    from engine.results import Run, open_run

_HOMES = {
    "Config": "engine.config",
    "run": "engine.pipeline",
    "Run": "engine.results",
    "open_run": "engine.results",
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``import engine`` alone stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What a user imports, and none of the modules that happen to be loaded."""
    return [*__all__, "__version__"]
