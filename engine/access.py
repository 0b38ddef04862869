"""Who may use the cluster: whoever can submit a job to it runs code as its owner.

Ray's job API answers anybody unless token authentication is on, which `ray start` leaves off. A
private Ray has no job API at all; one that others started is looked at before anything runs on it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import stat
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from engine.errors import ConfigError

JOBS_PATH = "/api/jobs/"
ANSWER_SECONDS = 5.0
HEAD_RESOURCE = "node:__internal_head__"
"""What Ray's head node alone has."""
HEAD_SECONDS = 60.0
"""For a task on the head to start and to answer."""
_TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def keep_token_private() -> None:
    """Make Ray's default token file readable by its owner alone; Ray itself would write it 0644."""
    if any(name in os.environ for name in _TOKEN_VARIABLES):
        return
    path = Path.home() / ".ray" / "auth_token"
    with contextlib.suppress(OSError):  # no home to write to: Ray says so itself
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(0o600)
            return
        with os.fdopen(file, "w") as token:
            token.write(secrets.token_hex(32))


TOKEN_ADVICE = (
    "Give it the one that the head was started with: set RAY_AUTH_MODE=token, and put the token\n"
    "into ~/.ray/auth_token (chmod 600), or into RAY_AUTH_TOKEN, or name its file in "
    "RAY_AUTH_TOKEN_PATH.\nSee docs/cluster.md."
)


def cannot_be_used(address: str, error: BaseException) -> ConfigError:
    """Why no Ray could be joined or started, and what helps: another one, or a token."""
    text = str(error).strip()
    if isinstance(error, AuthenticationError) or "authentication token" in text.lower():
        given = any(os.environ.get(name) for name in _TOKEN_VARIABLES)
        given = given or (Path.home() / ".ray" / "auth_token").exists()
        what = "takes another token than the one it is given" if given else "wants a token"
        return ConfigError(f"the Ray cluster at {address} {what}.\n{TOKEN_ADVICE}")
    if address == "local":
        return ConfigError(
            f"no private Ray can be started on this machine: {_cut(text)}\n"
            "Its files go to RAY_TMPDIR, else to TMPDIR, else to /tmp: is that a folder with room "
            "that you can write to?"
        )
    return ConfigError(
        f"Ray at {address!r} (resources.address or RAY_ADDRESS) cannot be used: {_cut(text)}\n"
        "Start a cluster with `ray start --head`, or leave the address out to run on this machine "
        "alone.\nOne that is there, but wants a token or another one, may answer like this too. "
        f"{TOKEN_ADVICE}"
    )


def _cut(text: str, num_lines: int = 8, width: int = 300) -> str:
    """The first lines of what a library says."""
    return "\n".join(line[:width] for line in text.splitlines()[:num_lines])


def answers_anybody(dashboard: str) -> bool:
    """Whether a job API, ``host:port``, answers without a token.

    Raises:
        ConfigError: something is there, but it cannot be told.
    """
    # No proxy in between, and no header that Ray's own client would add.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{dashboard}{JOBS_PATH}", timeout=ANSWER_SECONDS) as answer:
            return answer.status < 400
    except urllib.error.HTTPError as error:
        return error.code not in (401, 403, 404)  # no token, a wrong one, no such API
    except HTTPException:
        return True
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ConnectionRefusedError):
            return False  # nobody listens
        raise _untold(dashboard, str(reason)) from None


def _untold(dashboard: str, reason: str) -> ConfigError:
    return ConfigError(
        f"it cannot be told whether the Ray cluster's job API on {dashboard} wants a token: "
        f"{reason}.\nIs the head alive and well (`ray status`), with the same version of poolscore?"
    )


def refuse_open_jobs(address: str, dashboard: str | None, insecure_local: bool) -> None:
    """Refuse the cluster that this process has joined where it runs whatever anybody sends it.

    Args:
        address: of the cluster, for the message.
        dashboard: ``host:port`` of its job API, as the head sees it; none where it has none.
        insecure_local: accept that where the job API is on loopback.

    Raises:
        ConfigError: the job API answers without a token, or it cannot be told.
    """
    if not dashboard:
        return
    # Elsewhere a loopback address would be another machine's, and a firewall may be between.
    ask = answers_anybody if _is_head(_own_node()) else _asked_on_the_head
    if not ask(dashboard):
        return
    local = _is_loopback(dashboard)
    if local and insecure_local:
        return
    advice = "\nOn a machine that is yours alone, --insecure-local accepts it." if local else ""
    raise ConfigError(
        f"the Ray cluster at {address} runs code for anybody who reaches {dashboard}: its job API "
        "answers without a token.\nStart it with token authentication: put a token into "
        "~/.ray/auth_token on every node (chmod 600)\nand set RAY_AUTH_MODE=token for `ray start`; "
        f"see docs/cluster.md.{advice}"
    )


def _own_node() -> dict[str, Any]:
    own = ray.get_runtime_context().get_node_id()
    return next(node for node in ray.nodes() if node["NodeID"] == own)


def _is_head(node: dict[str, Any]) -> bool:
    return HEAD_RESOURCE in node["Resources"]


def _asked_on_the_head(dashboard: str) -> bool:
    head = next((node["NodeID"] for node in ray.nodes() if node["Alive"] and _is_head(node)), None)
    if head is None:
        raise _untold(dashboard, "no head node is alive")
    there = NodeAffinitySchedulingStrategy(head, soft=False)
    ask = ray.remote(answers_anybody).options(num_cpus=0, scheduling_strategy=there)
    try:
        return ray.get(ask.remote(dashboard), timeout=HEAD_SECONDS)
    except RayError as error:
        raise _untold(dashboard, f"asking it there failed with {type(error).__name__}") from None


def _is_loopback(dashboard: str) -> bool:
    """Whether ``host:port`` can be reached from its own machine only."""
    host = dashboard.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
