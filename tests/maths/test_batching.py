"""Batches, epoch order, steps, micro-batches: nothing lost, nothing twice, no chance involved."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.maths import batching
from engine.maths.batching import LengthRule

LENGTHS = st.lists(st.integers(0, 40), max_size=60).map(lambda x: np.array(x, dtype=np.int64))


def lists(batches: list[np.ndarray]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


# ── batches for scoring ──────────────────────────────────────────────────────────────────────────


def test_batches_of_a_small_pool_worked_out_by_hand() -> None:
    lengths = np.array([3, 9, 4, 9, 1, 20])
    # 20 alone is over the budget of 18; 9 + 9 fill it; then 18 // 4 = 4 rows at once.
    assert lists(batching.length_sorted_batches(lengths, 18)) == [[5], [1, 3], [2, 0, 4]]


@settings(deadline=None)
@given(lengths=LENGTHS, max_tokens=st.integers(1, 100))
def test_batches_hold_every_row_once_within_the_budget_longest_first(
    lengths: np.ndarray, max_tokens: int
) -> None:
    batches = batching.length_sorted_batches(lengths, max_tokens)
    order = [index for batch in batches for index in batch.tolist()]
    # Sorted by length, longest first, rows of one length in their own order: one order only.
    assert order == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for batch in batches:
        assert len(batch) > 0
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= max_tokens
    for batch in batches[:-1]:
        # Cut no earlier than need be: the next row would not have fitted.
        assert (len(batch) + 1) * max(int(lengths[batch].max()), 1) > max_tokens


def test_no_rows_no_batches() -> None:
    assert batching.length_sorted_batches(np.array([], dtype=np.int64), 10) == []


# ── the order of an epoch ────────────────────────────────────────────────────────────────────────


def test_epoch_order_is_sha256_of_seed_epoch_and_id() -> None:
    ids = ["aa", "bb", "cc", "dd", "ee"]
    digests = [hashlib.sha256(f"42:1:{name}".encode()).hexdigest() for name in ids]
    golden = [ids.index(name) for _, name in sorted(zip(digests, ids, strict=True))]
    assert golden == [0, 1, 4, 2, 3]  # the order that is promised, once and for all
    assert batching.epoch_order(ids, seed=42, epoch=1).tolist() == golden


def test_seed_and_epoch_each_give_another_order() -> None:
    ids = [f"{i:032x}" for i in range(50)]
    orders = {
        (seed, epoch): tuple(batching.epoch_order(ids, seed, epoch).tolist())
        for seed in (1, 2, 11)
        for epoch in (1, 2)
    }
    assert len(set(orders.values())) == 6


@settings(deadline=None)
@given(
    ids=st.lists(st.text(st.characters(codec="utf-8"), max_size=6), unique=True, max_size=30),
    seed=st.integers(0, 2**32),
    epoch=st.integers(1, 5),
    data=st.data(),
)
def test_epoch_order_does_not_depend_on_where_the_rows_lie(
    ids: list[str], seed: int, epoch: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(ids))
    visited = [ids[i] for i in batching.epoch_order(ids, seed, epoch)]
    assert [shuffled[i] for i in batching.epoch_order(shuffled, seed, epoch)] == visited
    assert sorted(visited) == sorted(ids)


def test_equal_ids_keep_their_order() -> None:
    assert batching.epoch_order(["x", "x", "x"], 0, 1).tolist() == [0, 1, 2]


# ── steps and micro-batches ──────────────────────────────────────────────────────────────────────


def test_the_short_last_step_is_kept() -> None:
    order = np.array([4, 2, 0, 1, 3, 6, 5])
    assert lists(batching.steps(order, 3)) == [[4, 2, 0], [1, 3, 6], [5]]
    assert lists(batching.steps(order[:6], 3)) == [[4, 2, 0], [1, 3, 6]]
    assert batching.steps(order[:0], 3) == []


def test_micro_batches_of_two_ranks_worked_out_by_hand() -> None:
    lengths = np.array([5, 1, 9, 7, 3, 2, 8])
    rows = np.array([6, 0, 2, 4, 1])  # lengths 8 5 9 3 1: dealt out as 9 5 1 and 8 3
    first = batching.micro_batches(rows, lengths, max_tokens=10, rank=0, world_size=2)
    second = batching.micro_batches(rows, lengths, max_tokens=10, rank=1, world_size=2)
    assert lists(first) == [[2], [0, 1]]
    assert lists(second) == [[6], [4]]
    short = batching.micro_batches(rows[:1], lengths, max_tokens=10, rank=1, world_size=2)
    assert lists(short) == [[]]  # the empty one keeps rank 1 in step with rank 0


@settings(deadline=None)
@given(
    lengths=LENGTHS,
    max_tokens=st.integers(1, 300),
    world_size=st.integers(1, 6),
    data=st.data(),
)
def test_ranks_share_a_step_exactly_and_stay_in_step(
    lengths: np.ndarray, max_tokens: int, world_size: int, data: st.DataObject
) -> None:
    members = data.draw(st.permutations(range(len(lengths))))
    rows = np.array(members[: len(members) // 2 + 1], dtype=np.int64)
    shares = [
        batching.micro_batches(rows, lengths, max_tokens, rank, world_size)
        for rank in range(world_size)
    ]
    assert len({len(share) for share in shares}) == 1
    together = [index for share in shares for micro in share for index in micro.tolist()]
    assert sorted(together) == sorted(rows.tolist())
    for micro in (micro for share in shares for micro in share):
        assert len(micro) <= 1 or len(micro) * lengths[micro].max() <= max_tokens
    # Dealt out by length: no rank has a row more than another.
    sizes = [sum(map(len, share)) for share in shares]
    assert max(sizes) - min(sizes) <= 1


# ── rows that may not share a batch ──────────────────────────────────────────────────────────────


def test_kinds_by_hand() -> None:
    lengths = np.array([3, 8, 9, 20, 21, 22, 22])
    assert LengthRule().kinds(lengths).tolist() == [0] * 7
    assert LengthRule(borders=(8, 20)).kinds(lengths).tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert LengthRule(equal_above=8).kinds(lengths).tolist() == [0, 0, 9, 20, 21, 22, 22]
    assert LengthRule((8,), equal_above=20).kinds(lengths).tolist() == [0, 0, 1, 1, 22, 23, 23]
    assert LengthRule(equal_above=0).kinds(np.array([2, 1, 2])).tolist() == [2, 1, 2]


def test_a_batch_ends_at_a_border() -> None:
    lengths = np.array([5, 9, 4, 10, 3])
    assert lists(batching.length_sorted_batches(lengths, 100)) == [[3, 1, 0, 2, 4]]
    by_border = batching.length_sorted_batches(lengths, 100, LengthRule(borders=(4, 9)))
    assert lists(by_border) == [[3], [1, 0], [2, 4]]
    assert lists(batching.length_sorted_batches(lengths, 12, LengthRule(borders=(4,)))) == [
        [3],
        [1],
        [0],
        [2, 4],
    ]


def test_rows_of_one_length_share_a_batch() -> None:
    lengths = np.array([7, 5, 7, 5, 7])
    equal = LengthRule(equal_above=0)
    assert lists(batching.length_sorted_batches(lengths, 14, equal)) == [[0, 2], [4], [1, 3]]


def test_micro_batches_keep_to_the_rule_and_workers_in_step() -> None:
    lengths, rows = np.array([9, 8, 3, 9, 2, 8]), np.arange(6)
    rule = LengthRule(borders=(8,))
    ranks = [batching.micro_batches(rows, lengths, 100, rank, 2, rule) for rank in (0, 1)]
    assert [lists(rank) for rank in ranks] == [[[0], [1, 2]], [[3], [5, 4]]]
    uneven = [batching.micro_batches(rows[:3], lengths, 100, rank, 2, rule) for rank in (0, 1)]
    assert [lists(rank) for rank in uneven] == [[[0], [2]], [[1], []]]
