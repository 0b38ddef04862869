"""How the configuration shares a cluster out."""

from __future__ import annotations

import pytest

from engine.config import ResourcesConfig
from engine.nodes import Nodes, NodeSize


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


@pytest.mark.parametrize(
    ("num_shards", "gigabytes", "model_gigabytes", "actors", "cores"),
    [
        (100, 64, 0, 8, 1),  # room for all
        (9, 64, 0, 2, 4),  # not eight at once and then one alone
        (2, 64, 0, 2, 4),  # too few shards for all cores
        (100, 8, 0, 4, 2),  # 8 actors of 1.5 GB don't fit
        (100, 8, 20, 1, 8),  # not even one does: it gets everything
    ],
)
def test_an_actor_gets_one_core_where_shards_and_memory_allow(
    num_shards: int, gigabytes: int, model_gigabytes: int, actors: int, cores: int
) -> None:
    nodes = Nodes(
        num_cpus=8,
        num_gpus=0,
        resources=ResourcesConfig(),
        sizes=(NodeSize(8, 0, gigabytes * 2.0**30),),
    ).for_shards(num_shards, model_gigabytes * 2**30)
    assert (nodes.num_workers(num_shards), nodes.cpus_per_worker) == (actors, cores)


def several(*cores: int, **settings: int) -> Nodes:
    sizes = tuple(NodeSize(num, 0) for num in cores)
    return Nodes(sum(cores), 0, ResourcesConfig(**settings), sizes)


@pytest.mark.parametrize(
    ("nodes", "num_shards", "actors", "cores"),
    [
        (several(8, 8), 3, 3, 4),  # two on one node, one on the other: at once
        (several(8, 8), 2, 2, 8),
        (several(8, 8), 1000, 16, 1),
        (several(8, num_workers=1), 1000, 1, 8),  # few actors wanted: each gets more
        (several(8, num_workers=4), 1000, 4, 2),
        (several(0, 4), 1000, 4, 1),  # a head that lends nothing
    ],
)
def test_actors_are_laid_out_node_by_node(
    nodes: Nodes, num_shards: int, actors: int, cores: int
) -> None:
    found = nodes.for_shards(num_shards)
    assert (found.num_workers(num_shards), found.cpus_per_worker) == (actors, cores)


@pytest.mark.parametrize(
    ("nodes", "cores"),
    [
        (several(16, 16, 16, 16, train_workers=5), 8),  # not 64 // 5 = 12: one would find no room
        (several(16, 16, 4, train_workers=3), 8),
        (several(16, 16, train_workers=2), 16),
        (several(2, train_workers=4), 1),  # refused later, with words
        (several(0), 1),  # a cluster that has yet to grow
    ],
)
def test_all_training_workers_find_room(nodes: Nodes, cores: int) -> None:
    assert nodes.cpus_per_train_worker == cores


def test_the_setting_stands_whatever_the_shards() -> None:
    nodes = Nodes(num_cpus=8, num_gpus=0, resources=ResourcesConfig(cpus_per_worker=3))
    assert nodes.for_shards(1).cpus_per_worker == 3


@pytest.mark.parametrize(
    ("num_gpus", "setting", "workers", "cores"),
    [(0, None, None, 8), (0, None, 4, 2), (0, 3, 1, 3), (2, None, None, 2), (0, 6, 2, 4)],
)
def test_training_workers_share_the_machine(
    num_gpus: int, setting: int | None, workers: int | None, cores: int
) -> None:
    resources = ResourcesConfig(cpus_per_worker=setting, train_workers=workers)
    nodes = Nodes(num_cpus=8, num_gpus=num_gpus, resources=resources)
    assert nodes.cpus_per_train_worker == cores


def test_what_there_is_in_words() -> None:
    nodes = Nodes(num_cpus=8, num_gpus=1, resources=ResourcesConfig())
    assert nodes.in_words() == "cuda (1 node, 8 cores, 1 GPU)"
