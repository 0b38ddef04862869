"""The private Ray: who can reach it, where its files lie, and clusters that want a token."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import ray
from ray.exceptions import AuthenticationError

from engine import private_ray
from engine.access import cannot_be_used
from engine.errors import ConfigError

LONG = "/tmp/" + "x" * 60


@pytest.mark.usefixtures("ray_session")
def test_nothing_of_it_listens_beyond_this_machine() -> None:
    """The driver, Ray's own processes and workers, once one of them has worked."""
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    me = psutil.Process()
    found = {
        (process.name(), each.laddr.ip)
        for process in (me, *me.children(recursive=True))
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert len(found) >= 4  # the store, the head, the node and its agents do listen
    ips = {name: ipaddress.ip_address(ip.removeprefix("::ffff:")) for name, ip in found}
    assert {name for name, ip in ips.items() if not ip.is_loopback} == set()


JOIN = """
import sys
from engine.config import ResourcesConfig
from engine.errors import ConfigError
from engine.nodes import session
try:
    with session(ResourcesConfig(address=sys.argv[1])):
        pass
except ConfigError as error:
    print(error)
"""


@pytest.mark.usefixtures("ray_session")
def test_a_missing_token_is_told_as_that(tmp_path: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    without = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env={**without, "HOME": str(tmp_path), "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"the Ray cluster at {address} wants a token"), done.stdout
    assert "RAY_AUTH_MODE=token" in done.stdout
    assert "ray start --head" not in done.stdout
    assert len(done.stdout.splitlines()) <= 6


def test_a_wrong_token_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    told = str(cannot_be_used("10.0.0.1:6379", AuthenticationError("who is there?")))
    assert told.startswith("the Ray cluster at 10.0.0.1:6379 takes another token than the one")


def test_an_address_that_nobody_answers_is_told_as_before() -> None:
    told = str(cannot_be_used("10.0.0.1:6379", ConnectionError("x\n" * 1000)))
    assert "Start a cluster with `ray start --head`" in told
    assert "RAY_AUTH_TOKEN" in told
    assert len(told.splitlines()) <= 15


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("/tmp", None),
        ("/tmp/abcd", "is no folder"),
        (LONG, "bytes too long for its sockets"),
        ("/proc", "cannot be written to"),
    ],
)
def test_what_is_wrong_with_a_folder_for_sockets(where: str, told: str | None) -> None:
    found = private_ray.unusable(where)
    assert found is None if told is None else found is not None and told in found


@pytest.mark.parametrize("where", [LONG, "/no/such/folder", "/proc"])
@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_that_is_of_no_use_is_replaced_by_a_short_one(
    where: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, where)
    with private_ray.folder(wanted=True) as made:
        assert made is not None
        assert len(made + private_ray.SOCKET_BELOW) <= private_ray.SOCKET_BYTES
        assert Path(made).stat().st_mode & 0o777 == 0o700
    assert not Path(made).exists()
    with private_ray.folder(wanted=False) as made:
        assert made is None


def test_without_any_folder_the_fix_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", LONG)
    monkeypatch.setattr(private_ray, "SHORT_FOLDERS", ("/proc",))
    with (
        pytest.raises(ConfigError, match="Set RAY_TMPDIR to a folder with a short name"),
        private_ray.folder(wanted=True),
    ):
        pytest.fail("a folder was found")


def test_a_run_starts_where_tmpdir_is_far_too_long(tmp_path: Path) -> None:
    far = tmp_path / ("x" * 80)
    far.mkdir()
    code = (
        "from engine.config import ResourcesConfig\nfrom engine.nodes import session\n"
        "import ray\nwith session(ResourcesConfig()): print(ray.get(ray.put(7)))"
    )
    known = {n: v for n, v in os.environ.items() if n not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**known, "TMPDIR": str(far)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "7\n"
