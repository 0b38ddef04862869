"""cluster.yaml passes Ray's own checks and keeps the promises its comments make."""

import re
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
# Each kind of node, with the commands that `ray up` runs on it.
KINDS = ("head", "worker")


@pytest.fixture
def cluster() -> dict[str, Any]:
    """The file as the launcher sees it: with Ray's defaults for AWS, commands per kind of node."""
    return prepare_config(yaml.safe_load(TEXT))


def start_command(cluster: dict[str, Any], kind: str) -> str:
    (command,) = (c for c in cluster[f"{kind}_start_ray_commands"] if "ray start" in c)
    return command


def test_passes_rays_own_validation(cluster: dict[str, Any]) -> None:
    validate_config(cluster)


def test_rays_validation_would_catch_a_misspelt_key(cluster: dict[str, Any]) -> None:
    broken = deepcopy(cluster)
    broken["idle_timeout_minuets"] = broken.pop("idle_timeout_minutes")
    with pytest.raises(Exception, match="idle_timeout_minuets"):
        validate_config(broken)


def test_head_offers_no_gpu_and_no_cpu_and_is_never_multiplied(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    # The families g and p are the GPU machines; a head of that kind would pay for an idle GPU.
    assert head["node_config"]["InstanceType"][0] not in "gp"
    assert head["max_workers"] == 0


def test_gpu_nodes_come_and_go_between_none_and_eight(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    (worker,) = (types[name] for name in types if name != cluster["head_node_type"])
    assert (worker["min_workers"], worker["max_workers"]) == (0, 8)
    assert cluster["max_workers"] == 8
    assert worker["resources"]["GPU"] == 1
    assert 0 < cluster["idle_timeout_minutes"] <= 30


def test_shared_disk_is_mounted_on_every_node_and_required_at_start(
    cluster: dict[str, Any],
) -> None:
    # initialization_commands run on head and workers alike, unless a node type brings its own.
    assert not any("initialization_commands" in t for t in cluster["available_node_types"].values())
    commands = "\n".join(cluster["initialization_commands"])
    assert re.search(r"fs-\w+\.efs\.\S+:/ /mnt/poolscore nfs4 .*_netdev.*/etc/fstab", commands)
    assert "sudo mount /mnt/poolscore" in commands
    for kind in KINDS:
        assert start_command(cluster, kind).startswith("mountpoint -q /mnt/poolscore && ")


def test_packages_are_installed_alike_and_pinned_on_every_node(cluster: dict[str, Any]) -> None:
    for kind in KINDS:
        commands = "\n".join(cluster[f"{kind}_setup_commands"])
        assert "-c constraints.txt -e '.[gpu,cluster]'" in commands
    assert cluster["head_setup_commands"] == cluster["worker_setup_commands"]


def test_token_authentication_is_on_wherever_ray_starts(cluster: dict[str, Any]) -> None:
    for kind in KINDS:
        assert "RAY_AUTH_MODE=token ray start " in start_command(cluster, kind)
        assert "chmod 600 ~/.ray/auth_token" in "\n".join(cluster[f"{kind}_setup_commands"])
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_dashboard_listens_on_the_heads_loopback_alone(cluster: dict[str, Any]) -> None:
    assert "--dashboard-host=127.0.0.1" in start_command(cluster, "head")


def test_workers_get_the_threads_they_ask_for_and_enough_files(cluster: dict[str, Any]) -> None:
    # The launcher exports OMP_NUM_THREADS=1, and Ray leaves a value that is set as it is.
    for kind in KINDS:
        before, _, _ = start_command(cluster, kind).partition("ray start")
        assert "unset OMP_NUM_THREADS" in before
        assert "ulimit -n 65536" in before


def test_mounted_paths_exist_in_the_checkout(cluster: dict[str, Any]) -> None:
    # `ray up` stops at the first one that doesn't.
    local = [path for path in cluster["file_mounts"].values() if not path.startswith("~")]
    assert [path for path in local if not (ROOT / path).exists()] == []


def test_every_command_is_one_the_shell_can_read(cluster: dict[str, Any]) -> None:
    keys = [key for key in cluster if key.endswith("_commands")]
    assert len(keys) == 6
    for command in (c for key in keys for c in cluster[key]):
        parsed = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert parsed.stderr == "", command


@pytest.mark.parametrize(
    "secret",
    [
        r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",  # an AWS access key
        r"(?i)aws_(secret|access|session)\w*\s*[:=]",
        r"-----BEGIN",
        r"RAY_AUTH_TOKEN\s*[:=]",  # the token itself, as a variable
        r"\b[0-9a-f]{32,}\b",  # a Ray token, or any long key in hex
        r"\bhf_\w{20,}",
        r"\b(ami|sg|fs|subnet|vpc)-[0-9a-f]{8,}\b",  # somebody's account, not a placeholder
    ],
)
def test_no_secret_and_no_account_is_in_the_file(secret: str) -> None:
    assert re.search(secret, TEXT) is None
