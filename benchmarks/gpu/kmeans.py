"""k-means: seconds of a large clustering, in a process without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks import harness
from benchmarks.gpu.ground import Ground
from benchmarks.harness import Row

SIZES = {"rows": 1_000_000, "dimension": 384, "clusters": 10_000, "iterations": 20}
TINY_SIZES = {"rows": 2_000, "dimension": 16, "clusters": 20, "iterations": 3}
AIM_SECONDS = 30.0


def measure(ground: Ground) -> list[Row]:
    """One row; where faiss cannot use a GPU, it says why."""
    sizes = TINY_SIZES if ground.tiny else SIZES
    given = [f"--{name}={size}" for name, size in sizes.items()] + ["--cpu"] * ground.tiny
    command = [sys.executable, "-m", "benchmarks.gpu.kmeans_process", *given]
    told = subprocess.run(command, cwd=harness.REPOSITORY, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(told.stdout)
    what = (
        f"k-means, {sizes['rows']:,} × {sizes['dimension']}, k = {sizes['clusters']:,}, "
        f"{sizes['iterations']} iterations"
    )
    if "skipped" in found:
        return [harness.limit(what, "", f"not measured: {found['skipped']}", None)]
    seconds, aim = found["seconds"], f"≤ {AIM_SECONDS:g} s"
    return [harness.limit(what, aim, f"{seconds:.1f} s", seconds <= AIM_SECONDS, **found)]
