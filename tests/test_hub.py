"""A hub name without a commit is looked up once, written down and kept; offline it is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from engine import hub, rundir
from engine.config import Config
from engine.errors import ModelError
from engine.model_source import ModelSource
from engine.resolve import commits_told, is_of_the_hub, settle
from engine.rundir import RunDir

OLD, NEW, TAGGED = "a" * 40, "b" * 40, "c" * 40


@dataclass
class Hub:
    """What the hub on loopback answers, and what it was asked."""

    commits: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/api/models/"):  # the library asks for things of its own
                state.asked.append(self.path)
            commit = state.commits.get(self.path)
            self.send_response(200 if commit else 404)
            body = json.dumps({"id": "x/y", "sha": commit, "siblings": []}).encode()
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield state
    server.shutdown()
    server.server_close()


def config(revision: str | None = None, **embed: str) -> Config:
    tree = {"proxy": {"model": "some/model", "revision": revision}, "embed": embed}
    return Config.from_tree(tree)


def begin(run: RunDir, settled: Config) -> None:
    """Write the settings down as a run does."""
    for folder in (".", f"proxies/{settled.proxy_name}"):
        run.commit(f"{folder}/{rundir.SETTINGS}", settled.to_yaml().encode())


def test_the_commit_is_looked_up_and_told(here: Hub) -> None:
    here.commits["/api/models/some/model"] = OLD
    given = config()
    settled = settle(given, "cpu", None)
    assert settled.proxy.revision == OLD
    assert settled.embed.revision is None  # bundled
    assert here.asked == ["/api/models/some/model"]
    (line,) = commits_told(given, settled)
    assert f"some/model is taken at commit {OLD}" in line
    assert f"proxy.revision={OLD}" in line


def test_a_resumed_run_keeps_its_commit_when_the_branch_moves(here: Hub, tmp_path: Path) -> None:
    here.commits["/api/models/some/model"] = OLD
    here.commits["/api/models/some/embedder"] = OLD
    run = RunDir(tmp_path)
    given = config(model="some/embedder")
    begin(run, settle(given, "cpu", run))
    here.commits.update(dict.fromkeys(here.commits, NEW))
    here.asked.clear()
    again = settle(given, "cpu", run)
    assert (again.proxy.revision, again.embed.revision) == (OLD, OLD)
    assert here.asked == []
    assert settle(given, "cpu", RunDir(tmp_path / "other")).proxy.revision == NEW
    assert settle(config(NEW, model="some/embedder"), "cpu", run).proxy.revision == NEW


def test_offline_a_begun_run_goes_on(
    here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.commits["/api/models/some/model"] = OLD
    run = RunDir(tmp_path)
    begin(run, settle(config(), "cpu", run))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert settle(config(), "cpu", run).proxy.revision == OLD


def test_a_tag_is_looked_up_a_commit_is_not(here: Hub) -> None:
    here.commits["/api/models/some/model/revision/v1.0"] = TAGGED
    assert settle(config("v1.0"), "cpu", None).proxy.revision == TAGGED
    here.asked.clear()
    assert settle(config(OLD), "cpu", None).proxy.revision == OLD
    assert here.asked == []


def test_a_model_that_is_not_there(here: Hub) -> None:
    with pytest.raises(ModelError, match=r"no such model for you \(it answers 404\)"):
        settle(config(), "cpu", None)
    with pytest.raises(ModelError, match="no such model at 'v2'"):
        settle(config("v2"), "cpu", None)


def test_offline_says_how_to_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as told:
        settle(config(), "cpu", None)
    assert "HF_HUB_OFFLINE is set" in str(told.value)
    assert "proxy.revision to its commit" in str(told.value)


def test_no_network_says_how_to_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ModelError, match=r"the hub does not answer(.|\n)*proxy\.revision"):
        settle(config(), "cpu", None)


def test_what_is_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("bundled", "smollm2", "mine", "./gone", "/gone", "a/b/c", "x.gguf", "a b"):
        assert not is_of_the_hub(name), name
    for name in ("gpt2", "facebook/opt-350m"):
        assert is_of_the_hub(name), name
    assert hub.is_commit(OLD)
    assert not hub.is_commit("main")


# ── what of a model the hub's cache holds ────────────────────────────────────────────────────────


def cached(cache: Path, *names: str) -> ModelSource:
    """A hub model of which some files were fetched once."""
    folder = cache / "models--some--model" / "snapshots" / OLD
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text("{}")
    return ModelSource("proxy.model", "some/model", OLD)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["config.json", "tokenizer.json"], "its weights are not in the hub's cache"),
        (["tokenizer.json"], "holds no config.json"),
    ],
)
def test_weights_that_were_never_fetched_and_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], told: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        cached(tmp_path, *names).folder()
    assert told in str(caught.value)
    assert "was never fetched, and cannot be now: HF_HUB_OFFLINE is set" in str(caught.value)
    assert "convert" not in str(caught.value)


def test_a_hub_that_does_not_answer(
    here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be now: the hub does not answer \(\w*Error\)"):
        cached(tmp_path, "config.json").folder()


def test_a_hub_model_without_safetensors_is_converted(
    here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.commits[f"/api/models/some/model/revision/{OLD}"] = OLD
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=f"convert some/model --revision {OLD}"):
        cached(tmp_path, "config.json").folder()
