"""Which rows are given up: laws over shards with bad rows, and the story that outlives a worker."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from engine.actor import _is_lost
from engine.errors import WorkerError
from engine.isolation import (
    DIED,
    MAX_FAILED_ROWS,
    MAX_FAILURES,
    MAX_LOST_NODES,
    MAX_READS,
    Attempts,
    Story,
)

RAISED = "ValueError at model.py:7"


def play(story: Story, bad: dict[int, list[str]]) -> tuple[Story, list[int]]:
    """Try until the shard gets through; the last story, and the trials that each bad row broke."""
    breaks = dict.fromkeys(bad, 0)
    for _ in range(10_000):
        inside = [row for row in sorted(bad) if not story.skip()[row]]
        if inside:
            ways = bad[inside[0]]
            story = story.after_failure(ways[breaks[inside[0]] % len(ways)])
            breaks[inside[0]] += 1
        elif story.is_whole:
            return story, list(breaks.values())
        else:
            story = story.after_success()
    raise AssertionError("no end")


@given(
    num_rows=st.integers(1, 5000),
    places=st.sets(st.floats(0, 1, exclude_max=True), max_size=MAX_FAILED_ROWS),
    ways=st.lists(st.sampled_from([DIED, RAISED]), min_size=1, max_size=4),
)
def test_exactly_the_bad_rows_are_given_up(
    num_rows: int, places: set[float], ways: list[str]
) -> None:
    """Whichever way they break their worker, and one time another than the next."""
    bad = {int(place * num_rows): ways for place in places}
    story, breaks = play(Story(num_rows), bad)
    assert story.failed.keys() == bad.keys()
    assert max(breaks, default=0) <= (4 if DIED in ways else 3)


def test_one_bad_row_of_a_hundred_by_hand() -> None:
    story = Story(100)
    assert story.is_whole
    story = story.after_failure(DIED)  # pieces of 9
    assert story.suspects[0] == (0, 9)
    assert len(story.suspects) == 12
    story = story.after_success().after_failure(DIED)  # rows 9 to 17, one by one
    assert story.suspects[:2] == ((9, 10), (10, 11))
    assert len(story.suspects) == 9 + 10


def test_a_worker_may_die_once_while_an_innocent_row_is_tried() -> None:
    story = Story(2, suspects=((1, 2),)).after_failure(DIED)
    assert not story.failed
    assert story.after_success() == Story(2)


def test_a_shard_that_fails_only_as_a_whole_stops_the_run() -> None:
    story = Story(4)
    for _ in range(MAX_FAILURES):
        story = story.after_failure(DIED)
        while not story.is_whole:
            story = story.after_success()
    with pytest.raises(WorkerError, match=r"gets through alone(.|\n)*lower"):
        story.after_failure(DIED)


def test_the_story_outlives_its_worker(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet.json"
    first = Attempts(path, 9)
    first.begin(computing=True)  # and here it dies
    second = Attempts(path, 9)
    assert second.story == Story(9).after_failure(DIED)
    second.begin(computing=False)  # dies while another shard is computed
    third = Attempts(path, 9)
    assert third.story == second.story
    third.succeeded()
    third.failed(RAISED)
    third.begin(computing=False)
    assert Attempts(path, 9).story == third.story
    third.end()
    assert Attempts(path, 9).story == Story(9)


def test_ten_rows_of_a_thousand_may_kill_their_workers(tmp_path: Path) -> None:
    """Deaths while computing are no deaths before it."""
    path = tmp_path / "part-00000.parquet.json"
    bad = set(range(0, 1000, 100))
    for _ in range(50):
        attempts = Attempts(path, 1000)
        while not bad.difference(attempts.story.failed).intersection(
            (~attempts.story.skip()).nonzero()[0].tolist()
        ):
            if attempts.story.is_whole:
                assert set(attempts.story.failed) == bad
                return
            attempts.succeeded()
        attempts.begin(computing=True)  # and here it dies
    raise AssertionError("no end")


def test_deaths_before_any_computing_have_an_end(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet.json"
    for _ in range(MAX_READS):
        Attempts(path, 9).begin(computing=False)
    with pytest.raises(WorkerError, match="before it began to compute"):
        Attempts(path, 9)


def test_a_death_that_came_with_its_nodes_is_no_rows_fault(tmp_path: Path) -> None:
    """Machines may be taken away; but a row whose memory takes its container along is found too."""
    path = tmp_path / "part-00000.parquet.json"
    for number in range(MAX_LOST_NODES + 1):
        attempts = Attempts(path, 9, f"node {number}", lambda node: True)
        assert attempts.story == Story(9)
        attempts.begin(computing=True)
    assert Attempts(path, 9, "another", lambda node: True).story == Story(9).after_failure(DIED)


def test_a_death_on_a_node_that_lives_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet.json"
    Attempts(path, 9, "here", lambda node: False).begin(computing=True)
    assert Attempts(path, 9, "here", lambda node: False).story == Story(9).after_failure(DIED)


def test_a_node_is_lost_once_the_cluster_has_no_such_node(ray_session: None) -> None:
    assert not _is_lost(ray.get_runtime_context().get_node_id())
    assert _is_lost("0" * 56)
