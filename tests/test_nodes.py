"""How the configuration shares a cluster out."""

from __future__ import annotations

import pytest

from engine.config import ResourcesConfig
from engine.nodes import Nodes


@pytest.mark.parametrize(
    ("num_workers", "cpus_per_worker", "actors"),
    [(None, 2, 8), (None, 3, 8), (1, 3, 3), (2, 2, 4), (1, 16, 8)],
)
def test_one_core_each_takes_as_many_cores_as_the_setting_allows(
    num_workers: int | None, cpus_per_worker: int, actors: int
) -> None:
    resources = ResourcesConfig(num_workers=num_workers, cpus_per_worker=cpus_per_worker)
    nodes = Nodes(num_cpus=8, num_gpus=1, resources=resources).one_core_each()
    assert (nodes.cpus_per_worker, nodes.gpus_per_worker) == (1, 0)
    assert nodes.num_workers(num_shards=100) == actors
    assert nodes.num_workers(num_shards=2) == 2
