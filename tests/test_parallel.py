"""One function over many arguments: order, failures and retries, here and on Ray."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray.cloudpickle
from handmade import make_step
from ray.exceptions import RayError

from engine.config import ResourcesConfig
from engine.errors import PoolError
from engine.failures import for_people
from engine.nodes import Nodes
from engine.parallel import IN_FLIGHT_PER_CPU, MAX_RETRIES, run_all

# Workers cannot import the tests, so the functions below travel whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
NODES = Nodes(num_cpus=1, num_gpus=0, resources=ResourcesConfig())


def minus(a: int, b: int) -> int:
    return a - b


def refuse_two(number: int) -> int:
    if number == 2:
        raise PoolError("two", "there", "take three")
    return number


def die(folder: Path, times: int, number: int) -> int:
    """Kill this process the first `times` that the number comes by."""
    tried = folder / f"{number}-{len(list(folder.glob(f'{number}-*')))}"
    if not tried.name.endswith(f"-{times}"):
        tried.touch()
        os._exit(1)
    return number


@pytest.mark.parametrize("nodes", [None, NODES])
def test_results_come_in_order(ray_session: None, nodes: Nodes | None, tmp_path: Path) -> None:
    assert list(run_all(partial(minus, 10), range(50), nodes, tmp_path)) == list(range(10, -40, -1))
    assert list(run_all(partial(minus, 10), [], nodes, tmp_path)) == []


def test_few_tasks_are_ahead(ray_session: None, tmp_path: Path) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = run_all(partial(minus, 10), numbers(), NODES, tmp_path)
    assert next(results) == 10
    results.close()
    assert len(taken) == IN_FLIGHT_PER_CPU + 1


@pytest.mark.parametrize("nodes", [None, NODES])
def test_an_error_for_people_comes_through(
    tmp_path: Path, ray_session: None, nodes: Nodes | None
) -> None:
    results: list[int] = []
    with (
        pytest.raises(PoolError, match=r"^two\n  where: there\n  fix:   take three$") as caught,
        for_people(make_step(tmp_path, "pool", "1-pool")),
    ):
        results.extend(run_all(refuse_two, range(5), nodes, tmp_path))
    assert type(caught.value) is PoolError


def test_a_task_whose_process_dies_is_tried_again(tmp_path: Path, ray_session: None) -> None:
    assert list(run_all(partial(die, tmp_path, MAX_RETRIES), [7], NODES, tmp_path / "beats")) == [7]
    with pytest.raises(RayError):
        list(run_all(partial(die, tmp_path, MAX_RETRIES + 1), [8], NODES, tmp_path / "beats"))
    assert len(list(tmp_path.glob("8-*"))) == MAX_RETRIES + 1
