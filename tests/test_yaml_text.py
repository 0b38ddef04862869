"""YAML that is made to break what reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import yaml_text
from engine.config import Config
from engine.errors import ConfigError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 1000 + "]" * 1000, "more than 40 levels deep"),
        ("a:\n" + "".join(" " * i + "b:\n" for i in range(1, 400)), "more than 40 levels deep"),
        (BOMB, "unfolds to more than 200,000 values"),
        ("a: &a [*a]", "stands inside of what it is an alias for"),
        ("a: 2024-99-99", "month must be in 1..12"),
        ("a: [1", "expected"),
        ("a: *nobody", "undefined alias"),
        ("? [a]\n: b", "unhashable key"),
        ("a: !!bool x", "not of the kind that its !! tag names"),
        ("a: !!timestamp x", "not of the kind that its !! tag names"),
        ("a: !!int ''", "not of the kind that its !! tag names"),
        ("a: !!float x", "could not convert"),
        ("a: !!binary \u00e9", "convert base64 data into ascii"),
        ("x" * (5 * 2**20), "letters long"),
    ],
)
def test_what_cannot_be_read_is_told_in_few_words(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        yaml_text.load(text)
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml is not valid YAML") as caught:
        Config.load(file)
    assert len(str(caught.value)) < 2000


def test_aliases_that_people_use_are_read() -> None:
    text = "common: &c {seed: 3}\nclusters: *c\nfinetune:\n  <<: *c\n  num_epochs: 2\n"
    assert yaml_text.load(text) == {
        "common": {"seed": 3},
        "clusters": {"seed": 3},
        "finetune": {"seed": 3, "num_epochs": 2},
    }


def test_a_deep_value_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        Config.load(None, ["proxy.name=" + "[" * 5000])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", ["!!bool x", "!!timestamp x", "!!int ''", "!!null [a]"])
def test_a_value_that_is_not_what_its_tag_says(value: str) -> None:
    with pytest.raises(ConfigError, match=r"finetune\.seed"):
        Config.load(None, [f"finetune.seed={value}"])


def test_many_and_long_mistakes_are_told_on_one_screen() -> None:
    tree = {f"nonsense{i}": "x" * 10_000 for i in range(500)}
    with pytest.raises(ConfigError, match="and 490 more") as caught:
        Config.from_tree({**tree, "select": {"percent": "y" * 100_000}})
    assert len(str(caught.value)) < 5000
    assert len(str(caught.value).splitlines()) <= 24


@pytest.mark.parametrize("text", ["a\0b", "caf\udce9.jsonl"])
@pytest.mark.parametrize("key", ["paths", "source_field"])
def test_what_no_file_can_hold_is_refused_by_name(text: str, key: str) -> None:
    value = [text] if key == "paths" else text
    with pytest.raises(ConfigError, match=f"pool.{key} = .*not UTF-8") as caught:
        Config.from_tree({"pool": {key: value}})
    str(caught.value).encode()


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 10**30])
@pytest.mark.parametrize("section", ["clusters", "finetune"])
def test_a_seed_that_some_library_cannot_take_is_refused(section: str, seed: int) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.seed"):
        Config.from_tree({section: {"seed": seed}})


def test_the_largest_seeds_are_taken_by_those_who_use_them() -> None:
    import numpy as np

    from engine.maths.batching import epoch_order
    from engine.maths.kmeans import kmeans, two_level_kmeans

    config = Config.from_tree({"clusters": {"seed": 2**31 - 1}, "finetune": {"seed": 2**63 - 1}})
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for cluster in (kmeans, two_level_kmeans):
        found = cluster(vectors, 4, 2, config.clusters.seed, 1)
        assert sorted(set(found.cluster.tolist())) == [0, 1, 2, 3]
    assert sorted(epoch_order(["a", "b", "c"], config.finetune.seed, 1).tolist()) == [0, 1, 2]
    np.random.SeedSequence((config.finetune.seed, 1, 0, 0))  # what `training` makes of it
    with pytest.raises(ConfigError, match=r"clusters\.seed"):
        Config.from_tree({"clusters": {"seed": 2**31}})
