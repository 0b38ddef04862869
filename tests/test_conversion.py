"""`.bin` checkpoints become safetensors of the same model; what is more than tensors is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine import conversion, models
from engine.cli import main
from engine.conversion import convert
from engine.errors import ModelError
from engine.models import ModelSource
from engine.rundir import RunDir


class Canary:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert in this process: to start another costs seconds."""

    def run(module: str, source: Path, folder: Path, what: str) -> str:
        assert module == conversion.__name__
        return conversion._convert(str(source), str(folder))

    monkeypatch.setattr(conversion.own_process, "run", run)


def checkpoint(tiny_opt: Path, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The tiny OPT as it was published once: a pickle, the tied output matrix left out."""
    shutil.copytree(tiny_opt, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    kept = {key: value.to(dtype) for key, value in tensors.items() if key != "lm_head.weight"}
    torch.save(kept, folder / "pytorch_model.bin")
    return folder


def test_a_folder_becomes_the_same_model(here: None, tiny_opt: Path, tmp_path: Path) -> None:
    source = checkpoint(tiny_opt, tmp_path / "opt")
    (source / "modeling.py").write_text("raise SystemExit")
    (source / "training_args.bin").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    made = convert(str(source))
    assert made == tmp_path / "opt-safetensors"
    assert {path.name for path in made.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    named = ModelSource("proxy.model", str(made))
    named.identity(RunDir(tmp_path / "run"))
    models.load_tokenizer(named)
    whole = models.load_language_model(tiny_opt, "float32", "cpu").state_dict()
    loaded = models.load_language_model(made, "float32", "cpu").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in whole.items())
    assert not (tmp_path / "canary").exists()


def test_shards_keep_their_precision(here: None, tiny_opt: Path, tmp_path: Path) -> None:
    source = checkpoint(tiny_opt, tmp_path / "opt", torch.float16)
    tensors = torch.load(source / "pytorch_model.bin", weights_only=True)
    (source / "pytorch_model.bin").unlink()
    map_ = {key: f"pytorch_model-{i % 2}.bin" for i, key in enumerate(sorted(tensors))}
    for name in set(map_.values()):
        torch.save({key: tensors[key] for key in map_ if map_[key] == name}, source / name)
    index = {"metadata": {"total_size": 1}, "weight_map": map_}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    made = convert(str(source), to=str(tmp_path / "models" / "opt"))
    assert made == tmp_path / "models" / "opt"
    saved = load_file(made / "model.safetensors")
    assert all(torch.equal(saved[key], value) for key, value in tensors.items())
    assert {value.dtype for value in saved.values()} == {torch.float16}
    (source / "pytorch_model-1.bin").unlink()
    with pytest.raises(ModelError, match=r"lacks pytorch_model-1\.bin"):
        convert(str(source))


def test_a_checkpoint_without_a_matrix(here: None, tiny_opt: Path, tmp_path: Path) -> None:
    source = checkpoint(tiny_opt, tmp_path / "opt")
    tensors = torch.load(source / "pytorch_model.bin", weights_only=True)
    tensors.pop("model.decoder.layers.0.fc1.weight")
    torch.save(tensors, source / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"missing keys(.|\n)*layers\.0\.fc1\.weight"):
        convert(str(source))
    assert [path.name for path in tmp_path.iterdir() if path.name != "opt"] == []


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    tiny_opt: Path, tmp_path: Path, zipped: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command, and the process that it starts."""
    source = checkpoint(tiny_opt, tmp_path / "opt")
    tensors = torch.load(source / "pytorch_model.bin", weights_only=True)
    canary = tmp_path / "canary"
    bad = {**tensors, "x": Canary(canary)}
    torch.save(bad, source / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert main(["convert", str(source / "pytorch_model.bin")]) == 1
    told = capsys.readouterr().err
    assert "pytorch_model.bin is refused: it holds more than tensors" in told
    assert "mkdir" in told
    assert len(told) < 900
    assert not canary.exists()
    assert not (tmp_path / "opt-safetensors").exists()


def test_the_command_says_what_to_do_next(
    here: None, tiny_opt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = checkpoint(tiny_opt, tmp_path / "opt")
    assert main(["convert", str(source), "--to", str(tmp_path / "made")]) == 0
    assert f"--set proxy.model={tmp_path / 'made'}" in capsys.readouterr().out
    assert main(["convert", str(source), "--to", str(tmp_path / "made")]) == 1
    assert "is there already" in capsys.readouterr().err


def test_what_is_there_is_never_removed(
    here: None, tiny_opt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named from the home folder, by a link, or made by somebody while this converts."""
    source = checkpoint(tiny_opt, tmp_path / "opt")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    precious = tmp_path / "home" / "precious" / "letter.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("dear")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    monkeypatch.chdir(tmp_path / "home")
    for to in ("~/precious", "precious", "../home/precious", str(tmp_path / "dangling")):
        with pytest.raises(ModelError, match=r"/(precious|dangling) is there already"):
            convert(str(source), None, to)
    run = conversion.own_process.run

    def slow(module: str, source: Path, folder: Path, what: str) -> str:
        told = run(module, source, folder, what=what)
        late.mkdir()
        (late / "letter.txt").write_text("dear")
        return told

    late = tmp_path / "home" / "late"
    monkeypatch.setattr(conversion.own_process, "run", slow)
    with pytest.raises(ModelError, match=f"{late} is there already"):
        convert(str(source), None, "~/late")
    assert precious.read_text() == (late / "letter.txt").read_text() == "dear"
    assert (tmp_path / "dangling").is_symlink()
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"precious", "late"}


def test_a_folder_made_in_the_home_folder(
    here: None, tiny_opt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = convert(str(checkpoint(tiny_opt, tmp_path / "opt")), None, "~/models/opt")
    assert made == tmp_path / "home" / "models" / "opt"
    assert (made / "model.safetensors").is_file()


def own_code(source: Path) -> None:
    told = json.loads((source / "config.json").read_text())
    told["auto_map"] = {"AutoModelForCausalLM": "modeling.Model"}
    (source / "config.json").write_text(json.dumps(told))


def no_config(source: Path) -> None:
    (source / "config.json").unlink()


def no_weights(source: Path) -> None:
    (source / "pytorch_model.bin").unlink()


def an_index_that_leads_out(source: Path) -> None:
    no_weights(source)
    index = {"weight_map": {"x": "../pytorch_model.bin"}}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def linked_weights(source: Path) -> None:
    (source / "pytorch_model.bin").rename(source.parent / "w.bin")
    (source / "pytorch_model.bin").symlink_to(source.parent / "w.bin")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (own_code, "code of its own"),
        (no_config, r"no config\.json"),
        (no_weights, r"no pytorch_model\.bin"),
        (an_index_that_leads_out, "another folder"),
        (linked_weights, "from elsewhere"),
    ],
)
def test_what_cannot_be_converted(
    here: None, tiny_opt: Path, tmp_path: Path, change: Callable[[Path], None], told: str
) -> None:
    source = checkpoint(tiny_opt, tmp_path / "opt")
    change(source)
    with pytest.raises(ModelError, match=told):
        convert(str(source))
    assert not (tmp_path / "opt-safetensors").exists()


def test_names_that_are_nothing(tiny_opt: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file or folder"):
        convert(str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="holds safetensors already"):
        convert(str(tiny_opt))
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        convert("facebook/opt-350m", to=str(tmp_path / "opt"))
