"""Ranks, quotas and selections: exact sizes, exact ties, and no dependence on the rows' order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.maths import ranking
from engine.maths.ranking import Keys


def keys_of(rows: list[tuple[int, float, str, int]]) -> Keys:
    """Candidates from (cluster, score, id, row); an id is up to 16 characters."""
    cluster, score, ids, row = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Keys(
        np.array(cluster, dtype=np.int64),
        np.array(score, dtype=np.float64),
        bits_of(ids),
        np.array(row, dtype=np.int64),
    )


def bits_of(ids: Sequence[str]) -> np.ndarray:
    """uint64[n, 2] that is ordered as the strings are: their bytes, filled up with zeros."""
    numbers = [int.from_bytes(name.encode("latin-1").ljust(16, b"\0"), "big") for name in ids]
    halves = [divmod(number, 2**64) for number in numbers]
    return np.array(halves, dtype=np.uint64).reshape(-1, 2)


def in_clusters(*sizes: int, first_score: tuple[float, ...] = ()) -> Keys:
    """Clusters 0, 1 … of these sizes; scores rise within a cluster by 1 from its first."""
    rows: list[tuple[int, float, str, int]] = []
    for cluster, size in enumerate(sizes):
        start = first_score[cluster] if first_score else 0.0
        rows += [(cluster, start + i, f"{cluster}-{i:03}", len(rows) + i) for i in range(size)]
    return keys_of(rows)


def taken_per_cluster(keys: Keys, taken: np.ndarray) -> dict[int, int]:
    return dict(Counter(keys.cluster[taken].tolist()))


def round_half_up(value: Fraction) -> int:
    """By another road than the code: whole part, then look at the rest."""
    whole = value.numerator // value.denominator
    return whole + (value - whole >= Fraction(1, 2))


# Few clusters and few distinct scores and ids, so that ties are the rule.
ROWS = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.sampled_from([-1.5, 0.0, 0.25, 0.5, 2.0]),
        st.sampled_from(["a", "aaaaaaaab", "aaaaaaaa\xff", "\xff"]),  # apart in either half
    ),
    max_size=50,
).map(lambda rows: [(*row, index) for index, row in enumerate(rows)])
PERCENTS = st.one_of(
    st.sampled_from(["0.1", "2.5", "5", "10", "33.3", "50", "66.67", "99.9", "100"]).map(Fraction),
    st.decimals("0.01", "100", places=2).map(Fraction),
)
ORDERS = st.sampled_from(["low", "mid", "high"])


# ── ranks ────────────────────────────────────────────────────────────────────────────────────────


def test_ranks_break_ties_by_id_then_row() -> None:
    keys = keys_of(
        [
            (7, 0.5, "b", 0),
            (3, 0.5, "z", 1),
            (7, 0.5, "a", 2),
            (7, -1.0, "c", 3),
            (3, 0.4, "z", 4),
            (7, 0.5, "a", 1),
        ]
    )
    assert ranking.rank_in_cluster(keys).tolist() == [3, 1, 2, 0, 0, 1]


@settings(deadline=None)
@given(rows=ROWS, data=st.data())
def test_ranks_number_each_cluster_from_0_whatever_the_order_of_rows(
    rows: list[tuple[int, float, str, int]], data: st.DataObject
) -> None:
    ranks = ranking.rank_in_cluster(keys_of(rows)).tolist()
    by_row = {row[3]: rank for row, rank in zip(rows, ranks, strict=True)}
    for cluster in {row[0] for row in rows}:
        members = sorted((row for row in rows if row[0] == cluster), key=lambda r: r[1:])
        assert [by_row[member[3]] for member in members] == list(range(len(members)))
    shuffled = data.draw(st.permutations(rows))
    again = ranking.rank_in_cluster(keys_of(shuffled)).tolist()
    assert {row[3]: rank for row, rank in zip(shuffled, again, strict=True)} == by_row


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from([-1.5, -0.0, 0.0, 0.25, 1e300]),
            st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64, 2**127, 2**128 - 1]),
        ),
        max_size=60,
    )
)
def test_the_order_is_that_of_plain_tuples_with_ids_as_hex_digits(
    rows: list[tuple[int, float, int]],
) -> None:
    table = [(c, score, f"{number:032x}", i) for i, (c, score, number) in enumerate(rows)]
    halves = [divmod(number, 2**64) for _, _, number in rows]
    keys = Keys(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.float64),
        np.array(halves, dtype=np.uint64).reshape(-1, 2),
        np.arange(len(rows)),
    )
    by_cluster = [row[3] for row in sorted(table)]
    by_score = [row[3] for row in sorted(table, key=lambda row: row[1:])]
    assert keys.order(keys.cluster).tolist() == by_cluster
    assert keys.order(keys.score).tolist() == by_score


def test_thousands_of_rows_are_in_the_order_of_plain_tuples() -> None:
    """Past the sizes at which NumPy sorts a few numbers by other means than many."""
    random = np.random.default_rng(3)
    n = 20_000
    cluster, score = random.integers(0, 40, n), random.integers(-50, 50, n) / 8
    halves = random.integers(0, 2**64, (n, 2), dtype=np.uint64) >> np.uint64(61)
    row = random.permutation(n)
    keys = Keys(cluster, score, halves, row)
    tuples = list(zip(cluster, score, *halves.T, row, strict=True))
    assert keys.order(cluster).tolist() == sorted(range(n), key=tuples.__getitem__)


# ── sizes and quotas ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("percent", "num_rows", "expected"),
    [
        ("10", 100, 10),
        ("10", 15, 2),  # 1.5: halves go up
        ("10", 14, 1),
        ("2.5", 20, 1),  # 0.5
        ("2.5", 19, 0),
        ("2.5", 60, 2),  # 1.5; to even it would be 2 as well
        ("2.5", 100, 3),  # 2.5; to even it would be 2
        ("33.3", 1000, 333),
        ("33.3", 5, 2),  # 1.665
        ("0.1", 14511, 15),  # 14.511
        ("100", 7, 7),
        ("10", 0, 0),
    ],
)
def test_a_percentage_is_rounded_half_up(percent: str, num_rows: int, expected: int) -> None:
    assert ranking.share_of_percent(Fraction(percent), num_rows) == expected


def test_quotas_go_to_the_largest_remainders() -> None:
    # 30% of 10, 11, 12, 13 = 3.0, 3.3, 3.6, 3.9: 13.8 → 14 rows; the two largest rests round up.
    sizes, next_best = np.array([10, 11, 12, 13]), np.arange(4)
    assert ranking.quotas(sizes, Fraction(3, 10), 14, next_best).tolist() == [3, 3, 4, 4]


def test_equal_remainders_are_served_in_the_given_order() -> None:
    # Half of 3, 3, 3, 2 = 1.5, 1.5, 1.5, 1: two of the three halves are given out.
    sizes, next_best = np.array([3, 3, 3, 2]), np.array([2, 3, 0, 1])
    assert ranking.quotas(sizes, Fraction(1, 2), 6, next_best).tolist() == [2, 1, 2, 1]


def test_a_share_with_more_digits_than_an_integer_has_bits_is_exact() -> None:
    # A half, and a hair less: 10 of 20 against 9 and the largest remainder of all.
    half, hair = Fraction(1, 2), Fraction(1, 10**40)
    sizes, next_best = np.array([20, 20, 20]), np.array([1, 2, 0])
    assert ranking.quotas(sizes, half, 30, next_best).tolist() == [10, 10, 10]
    assert ranking.quotas(sizes, half - hair, 29, next_best).tolist() == [9, 10, 10]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    share=st.fractions(0, 1, max_denominator=60),
    data=st.data(),
)
def test_quotas_are_those_of_plain_fractions(
    sizes: list[int], share: Fraction, data: st.DataObject
) -> None:
    next_best = data.draw(st.permutations(range(len(sizes))))
    exact = [share * size for size in sizes]
    expected = [value.__floor__() for value in exact]
    total = round_half_up(sum(exact, Fraction(0)))
    served = sorted(range(len(sizes)), key=lambda c: (expected[c] - exact[c], next_best.index(c)))
    for cluster in served[: total - sum(expected)]:
        expected[cluster] += 1
    assert ranking.quotas(np.array(sizes), share, total, np.array(next_best)).tolist() == expected


def test_equal_remainders_go_to_the_cluster_whose_next_row_has_the_lower_score() -> None:
    # 10% of 3 × 5: 0.5 each, 1.5 → 2 rows. Next rows score 0.3, 0.1 and 0.2.
    keys = in_clusters(5, 5, 5, first_score=(0.3, 0.1, 0.2))
    taken = ranking.select_share(keys, Fraction(1, 10), 2, "low")
    assert taken.tolist() == [5, 10]


def test_the_next_row_is_the_first_that_the_whole_part_leaves_out() -> None:
    # 50% of 3 and 3: 1.5 each. Cluster 0 has the lowest row, but the *second* rows decide.
    first = [(0, 0.0, "a", 0), (0, 5.0, "b", 1), (0, 6.0, "c", 2)]
    second = [(1, 1.0, "d", 3), (1, 2.0, "e", 4), (1, 3.0, "f", 5)]
    keys = keys_of(first + second)
    assert ranking.select_share(keys, Fraction(1, 2), 3, "low").tolist() == [0, 3, 4]


def test_equal_remainders_and_scores_go_to_the_smaller_id() -> None:
    keys = keys_of([(0, 1.0, "z", 0), (1, 1.0, "k", 1), (2, 1.0, "m", 2)])
    assert ranking.select_share(keys, Fraction(1, 3), 1, "low").tolist() == [1]
    assert ranking.select_share(keys, Fraction(2, 3), 2, "low").tolist() == [1, 2]


def test_a_clusters_number_decides_nothing() -> None:
    rows = [(0, 1.0, "z", 0), (1, 1.0, "k", 1), (2, 1.0, "m", 2)]
    renamed = keys_of([(9 - cluster, *rest) for cluster, *rest in rows])
    assert ranking.select_share(renamed, Fraction(2, 3), 2, "low").tolist() == [1, 2]


# ── low, mid, high ───────────────────────────────────────────────────────────────────────────────


def test_low_mid_and_high_of_two_clusters_worked_out_by_hand() -> None:
    keys = in_clusters(10, 5)
    share = Fraction(2, 5)  # 4 of 10, 2 of 5
    low = ranking.select_share(keys, share, 6, "low")
    mid = ranking.select_share(keys, share, 6, "mid")
    high = ranking.select_share(keys, share, 6, "high")
    assert low.tolist() == [0, 1, 2, 3, 10, 11]
    assert mid.tolist() == [3, 4, 5, 6, 11, 12]
    assert high.tolist() == [6, 7, 8, 9, 13, 14]


def test_high_breaks_ties_by_the_smaller_id_too() -> None:
    keys = keys_of([(0, 1.0, "b", 0), (0, 1.0, "a", 1), (0, 0.0, "c", 2), (0, 0.0, "d", 3)])
    assert ranking.select_share(keys, Fraction(1, 4), 1, "high").tolist() == [1]


@settings(deadline=None)
@given(rows=ROWS, percent=PERCENTS, order=ORDERS, data=st.data())
def test_a_percentage_is_exact_everywhere(
    rows: list[tuple[int, float, str, int]], percent: Fraction, order: str, data: st.DataObject
) -> None:
    keys = keys_of(rows)
    total = ranking.share_of_percent(percent, len(rows))
    assert total == round_half_up(percent * len(rows) / 100)
    taken = ranking.select_share(keys, percent / 100, total, order)
    assert len(taken) == total
    assert taken.tolist() == sorted(set(taken.tolist()))
    counts = taken_per_cluster(keys, taken)
    for cluster, size in Counter(keys.cluster.tolist()).items():
        exact = percent / 100 * size
        assert exact.__floor__() <= counts.get(cluster, 0) <= exact.__ceil__()
    _check_place_in_cluster(keys, taken, order)
    shuffled = keys_of(data.draw(st.permutations(rows)))
    again = ranking.select_share(shuffled, percent / 100, total, order)
    assert sorted(shuffled.row[again].tolist()) == sorted(keys.row[taken].tolist())


@settings(deadline=None)
@given(rows=ROWS.filter(bool), order=ORDERS, data=st.data())
def test_a_number_of_rows_is_exact_and_shared_fairly(
    rows: list[tuple[int, float, str, int]], order: str, data: st.DataObject
) -> None:
    keys = keys_of(rows)
    total = data.draw(st.integers(1, len(rows)))
    share = Fraction(total, len(rows))
    taken = ranking.select_share(keys, share, total, order)
    assert len(set(taken.tolist())) == len(taken) == total
    counts = taken_per_cluster(keys, taken)
    for cluster, size in Counter(keys.cluster.tolist()).items():
        assert (share * size).__floor__() <= counts.get(cluster, 0) <= (share * size).__ceil__()


def _check_place_in_cluster(keys: Keys, taken: np.ndarray, order: str) -> None:
    """What is taken of a cluster is one run of its sorted rows, at the end that is asked for."""
    chosen = set(taken.tolist())
    for cluster in set(keys.cluster.tolist()):
        sign = -1.0 if order == "high" else 1.0
        members = sorted(
            np.flatnonzero(keys.cluster == cluster).tolist(),
            key=lambda i: (sign * keys.score[i], *keys.id[i], keys.row[i]),
        )
        places = [place for place, member in enumerate(members) if member in chosen]
        first = (len(members) - len(places)) // 2 if order == "mid" else 0
        assert places == list(range(first, first + len(places)))


# ── the published rule ───────────────────────────────────────────────────────────────────────────


def test_the_published_rule_rounds_up_per_cluster() -> None:
    keys = in_clusters(11, 4)  # "10%" gives 2 of 11 and 1 of 4: 20% of all
    assert ranking.select_reference(keys, Fraction(10), "low").tolist() == [0, 1, 11]


@pytest.mark.parametrize("percent", ["1", "5", "10", "25", "30", "33.3", "40", "50", "60", "100"])
@pytest.mark.parametrize("order", ["low", "mid", "high"])
def test_the_published_rule_is_numpys_array_split(percent: str, order: str) -> None:
    rng = np.random.default_rng(5)
    num_rows = 400
    keys = Keys(
        rng.integers(0, 9, num_rows),
        rng.normal(size=num_rows),
        rng.integers(0, 2**64, (num_rows, 2), dtype=np.uint64),
        np.arange(num_rows),
    )
    parts = int(100 // float(percent))
    which = {"low": 0, "mid": parts // 2, "high": parts - 1}[order]
    expected = []
    for cluster in range(9):
        members = np.flatnonzero(keys.cluster == cluster)
        members = members[np.argsort(keys.score[members])]
        expected += np.array_split(members, parts)[which].tolist()
    assert ranking.select_reference(keys, Fraction(percent), order).tolist() == sorted(expected)


# ── token budgets ────────────────────────────────────────────────────────────────────────────────


def test_a_token_budget_goes_equally_deep_into_every_cluster() -> None:
    keys = in_clusters(4, 2)
    num_tokens = np.array([10, 10, 10, 10, 10, 10])
    # Relative ranks: 1/8 3/8 5/8 7/8 and 1/4 3/4, so the queue is 0, 4, 1, 2, 5, 3.
    for budget, expected in ((9, []), (10, [0]), (20, [0, 4]), (39, [0, 1, 4]), (60, [*range(6)])):
        assert ranking.select_tokens(keys, num_tokens, budget, "low").tolist() == expected


def test_a_token_budget_from_the_middle_breaks_ties_by_score() -> None:
    keys = in_clusters(5)
    num_tokens = np.ones(5, dtype=np.int64)
    # Places 1 and 3 lie equally far from the middle: the lower score comes first.
    assert ranking.select_tokens(keys, num_tokens, 1, "mid").tolist() == [2]
    assert ranking.select_tokens(keys, num_tokens, 2, "mid").tolist() == [1, 2]
    assert ranking.select_tokens(keys, num_tokens, 3, "mid").tolist() == [1, 2, 3]


@settings(deadline=None)
@given(rows=ROWS, order=ORDERS, budget=st.integers(0, 400), data=st.data())
def test_a_token_budget_is_kept_and_used_up(
    rows: list[tuple[int, float, str, int]], order: str, budget: int, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 30), min_size=len(rows), max_size=len(rows)))
    keys = keys_of(rows)
    taken = ranking.select_tokens(keys, np.array(lengths, dtype=np.int64), budget, order)
    queue = _queue(rows, order)
    # The selection is the longest prefix of the queue that fits: the next row would not.
    assert set(taken.tolist()) == set(queue[: len(taken)])
    used = sum(lengths[i] for i in taken)
    assert used <= budget
    if len(taken) < len(queue):
        assert used + lengths[queue[len(taken)]] > budget
    mixed = data.draw(st.permutations(range(len(rows))))
    again = ranking.select_tokens(
        keys_of([rows[i] for i in mixed]),
        np.array([lengths[i] for i in mixed], dtype=np.int64),
        budget,
        order,
    )
    assert sorted(mixed[i] for i in again) == taken.tolist()


def _queue(rows: list[tuple[int, float, str, int]], order: str) -> list[int]:
    """Indices by exact relative rank, then score, id and row."""
    sign = -1.0 if order == "high" else 1.0
    sort_key = [(sign * score, name, row) for _, score, name, row in rows]
    depth: dict[int, Fraction] = {}
    for cluster in {row[0] for row in rows}:
        members = sorted(
            (i for i, row in enumerate(rows) if row[0] == cluster), key=sort_key.__getitem__
        )
        for place, member in enumerate(members):
            relative = Fraction(2 * place + 1, 2 * len(members))
            depth[member] = abs(relative - Fraction(1, 2)) if order == "mid" else relative
    return sorted(range(len(rows)), key=lambda i: (depth[i], sort_key[i]))
