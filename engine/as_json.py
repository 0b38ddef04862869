"""What ``poolscore status`` and ``poolscore plan`` know, for programs: ``--json``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engine.results import Run, StageStatus, Status

if TYPE_CHECKING:
    from engine.estimate import Estimate


def status_json(run: Run, status: Status) -> str:
    """A run's stages in order; `record` is a stage's ``_stage.json``, its list of files aside."""
    told = {
        "run_dir": str(run.dir.path),
        "proxy": run.config.proxy_name,
        "running": status.holder or None,
        "problem": status.problem,
        "stages": [_stage(entry) for entry in status.stages],
    }
    return json.dumps(told, indent=2)


def _stage(entry: StageStatus) -> dict[str, Any]:
    return {
        "stage": entry.step.stage,
        "label": entry.step.label,
        "epoch": entry.step.epoch,
        "folder": entry.step.folder,
        "state": entry.state,
        "shards_done": entry.shards_done,
        "shards_total": entry.shards_total,
        "faults": list(entry.faults),
        "record": entry.record.model_dump(mode="json", exclude={"files"}) if entry.record else None,
    }


def plan_json(found: Estimate) -> str:
    """What a run will take, stage by stage: seconds, bytes, floating-point operations."""
    told = {
        "config": found.config.model_dump(mode="json"),
        "device": found.nodes.device,
        "nodes": found.nodes.num_nodes,
        "num_lines": found.measured.num_lines,
        "num_lines_sampled": found.measured.num_sampled,
        "stages": [asdict(stage) for stage in found.stages],
        "start_seconds": found.start_seconds,
        "seconds": found.seconds,
        "probe_seconds": found.probe_seconds,
        "cost": found.cost(found.seconds),
    }
    return json.dumps(told, indent=2)
