"""Who may use the cluster: Ray's token file, and job APIs that answer anybody."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from engine import access, nodes
from engine.access import keep_token_private, refuse_open_jobs
from engine.config import ResourcesConfig
from engine.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_token_is_the_owners_alone(home: Path) -> None:
    keep_token_private()
    token = home / ".ray" / "auth_token"
    assert mode(token) == 0o600
    assert len(token.read_text()) == 64
    before = token.read_text()
    keep_token_private()
    assert token.read_text() == before


def test_a_token_that_others_may_read_is_taken_from_them(home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("ray wrote this")
    token.chmod(0o644)
    keep_token_private()
    assert mode(token) == 0o600
    assert token.read_text() == "ray wrote this"


def test_a_token_that_is_given_otherwise_is_left_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    keep_token_private()
    assert not (home / ".ray").exists()


@pytest.fixture
def job_api(request: pytest.FixtureRequest) -> Iterator[int]:
    """A server that answers `/api/jobs/` with the status asked for; its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param if self.path == "/api/jobs/" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def be_on(monkeypatch: pytest.MonkeyPatch, resources: dict[str, float]) -> None:
    """Be on a node with these resources."""
    monkeypatch.setattr(access, "_own_node", lambda: {"Resources": resources})


HEAD = {access.HEAD_RESOURCE: 1.0}


@pytest.mark.parametrize("job_api", [200, 500], indirect=True)
def test_an_open_job_api_is_refused(job_api: int, monkeypatch: pytest.MonkeyPatch) -> None:
    be_on(monkeypatch, HEAD)
    with pytest.raises(ConfigError, match=r"answers without a token(.|\n)*RAY_AUTH_MODE=token"):
        refuse_open_jobs("head:6379", f"127.0.0.1:{job_api}", insecure_local=False)
    refuse_open_jobs("head:6379", f"127.0.0.1:{job_api}", insecure_local=True)
    with pytest.raises(ConfigError) as caught:  # not loopback: nothing makes it acceptable
        refuse_open_jobs("head:6379", f"0.0.0.0:{job_api}", insecure_local=True)
    assert "--insecure-local" not in str(caught.value)


@pytest.mark.parametrize("job_api", [401, 403], indirect=True)
def test_a_job_api_that_wants_a_token_is_accepted(
    job_api: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_on(monkeypatch, HEAD)
    refuse_open_jobs("head:6379", f"127.0.0.1:{job_api}", insecure_local=False)


@pytest.mark.parametrize("dashboard", ["", "127.0.0.1:1"])  # nobody listens on port 1
def test_no_job_api_at_all_is_accepted(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    be_on(monkeypatch, HEAD)
    refuse_open_jobs("local", dashboard, insecure_local=False)


def test_a_job_api_that_says_nothing_is_not_taken_for_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too busy to answer, it may be open all the same."""
    be_on(monkeypatch, HEAD)
    monkeypatch.setattr(access, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConfigError, match="cannot be told whether"):
            refuse_open_jobs("head:6379", address, insecure_local=True)


@pytest.mark.parametrize("job_api", [401], indirect=True)
def test_a_worker_node_asks_the_head(job_api: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What listens on its own loopback, here a Ray that wants tokens, is another matter."""
    be_on(monkeypatch, {})
    monkeypatch.setattr(access, "_asked_on_the_head", lambda dashboard: True)
    with pytest.raises(ConfigError, match="answers without a token"):
        refuse_open_jobs("head:6379", f"127.0.0.1:{job_api}", insecure_local=False)


@pytest.mark.parametrize("job_api", [200], indirect=True)
def test_the_head_answers_for_its_own_loopback(ray_session: None, job_api: int) -> None:
    """Run on the head node as a task: here that is this machine."""
    assert access._asked_on_the_head(f"127.0.0.1:{job_api}")
    assert not access._asked_on_the_head("127.0.0.1:1")
    assert access._is_head(access._own_node())


@pytest.mark.parametrize("job_api", [200], indirect=True)
def test_a_ray_that_was_started_before_is_looked_at_too(
    ray_session: None, job_api: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = SimpleNamespace(dashboard_url=f"127.0.0.1:{job_api}")
    monkeypatch.setattr(ray, "init", lambda **_: joined)
    with (
        pytest.raises(ConfigError, match="answers without a token"),
        nodes.session(ResourcesConfig()),
    ):
        pass
    with nodes.session(ResourcesConfig(insecure_local=True)) as cluster:
        assert cluster.num_cpus
    assert ray.is_initialized(), "it is not ours to shut down"
