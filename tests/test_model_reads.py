"""Whatever is loaded of a model folder is hashed and counted; whatever leads out is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_tiny_opt
from safetensors.torch import load_file, save_file

from engine import model_reads
from engine.errors import ModelError
from engine.models import ModelSource, load_embedder, load_language_model, load_tokenizer
from engine.rundir import RunDir

NUM_WEIGHTS = 8192 * 32 + 130 * 32 + 2 * (4 * (32 * 32 + 32) + 2 * 64 + 64 * 32 * 2 + 32 + 64) + 64
"""Of the tiny OPT: embeddings, positions (two more than it has), two layers, the last norm."""


@pytest.fixture
def folder(tiny_opt: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_opt, tmp_path / "model"))


def source_of(folder: Path) -> ModelSource:
    return ModelSource("proxy.model", str(folder))


def digests(folder: Path) -> dict[str, str]:
    return source_of(folder).identity(RunDir(folder.parent / "run"))["files"]


def add_to(path: Path, **entries: object) -> None:
    told = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**told, **entries}))


def shard_into(folder: Path, *names: str) -> None:
    """Spread the weights over files of these names, with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    map_ = {key: names[i % len(names)] for i, key in enumerate(sorted(tensors))}
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        part = {key: tensors[key] for key in map_ if map_[key] == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": map_}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def change(path: Path) -> None:
    """Other weights of the same size, or one more letter."""
    if path.suffix == ".safetensors":
        tensors = {key: value + 1 for key, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        path.write_text(path.read_text() + " ")


def test_the_plain_folder(folder: Path) -> None:
    assert set(digests(folder)) == {
        *("config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert source_of(folder).local_bytes("float32") == 4 * NUM_WEIGHTS
    assert source_of(folder).local_bytes("bfloat16") == 2 * NUM_WEIGHTS


@pytest.mark.parametrize("names", [("a.safetensors", "b.safetensors"), ("w/x/1.safetensors",)])
def test_shards_wherever_the_index_has_them(folder: Path, names: tuple[str, ...]) -> None:
    whole = load_language_model(folder, "float32", "cpu").state_dict()
    shard_into(folder, *names)
    assert source_of(folder).folder() == folder.resolve()
    loaded = load_language_model(folder, "float32", "cpu").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in whole.items())
    assert source_of(folder).local_bytes("float32") == 4 * NUM_WEIGHTS
    before = digests(folder)
    assert set(names) < set(before)
    change(folder / names[0])
    after = digests(folder)
    assert [name for name in before if before[name] != after[name]] == [names[0]]


def test_shards_in_a_hidden_folder_are_hashed_too(folder: Path) -> None:
    shard_into(folder, ".hidden/part.safetensors")
    assert ".hidden/part.safetensors" in digests(folder)
    assert source_of(folder).local_bytes("float32") == 4 * NUM_WEIGHTS


def test_beside_a_distributed_shard_every_file_is_loaded(folder: Path) -> None:
    """As torch's reader lists them: whatever ends like safetensors, hidden or not."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    name = "shard-00001-model-00001-of-00001.safetensors"
    (folder / "model.safetensors").rename(folder / name)
    shutil.copy(folder / name, folder / ".more.safetensors")
    shutil.copy(folder / name, folder / "other.safetensors")
    add_to(folder / "config.json", transformers_weights="other.safetensors")
    all_three = [".more.safetensors", "other.safetensors", name]
    read = HuggingFaceStorageReader(str(folder)).read_metadata().storage_data or {}
    assert {Path(info.relative_path).name for info in read.values()} <= set(all_three)
    assert [path.name for path in model_reads.weights(folder)] == all_three
    assert set(all_three) < set(digests(folder))
    assert source_of(folder).local_bytes("float32") == 3 * 4 * NUM_WEIGHTS


def test_an_index_beside_whole_weights_is_not_what_is_loaded(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "gone.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert source_of(folder).local_bytes("float32") == 4 * NUM_WEIGHTS
    assert "model.safetensors" in digests(folder)


def test_a_file_that_config_json_names(folder: Path) -> None:
    (folder / "weights").mkdir()
    (folder / "model.safetensors").rename(folder / "weights" / "mine.safetensors")
    add_to(folder / "config.json", transformers_weights="weights/mine.safetensors")
    load_language_model(folder, "float32", "cpu")
    assert source_of(folder).local_bytes("float32") == 4 * NUM_WEIGHTS
    assert "weights/mine.safetensors" in digests(folder)


def test_a_shard_that_is_not_there_is_named(folder: Path) -> None:
    shard_into(folder, "a.safetensors", "b.safetensors")
    (folder / "b.safetensors").unlink()
    for use in (source_of(folder).folder, lambda: source_of(folder).local_bytes("float32")):
        with pytest.raises(ModelError, match=r"lacks weights(.|\n)*b\.safetensors"):
            use()


@pytest.mark.parametrize(
    "name",
    [
        "additional_chat_templates/tools.jinja",
        "chat_template.jinja",
        "generation_config.json",
        "vocab.json",
        "merges.txt",
        "spiece.model",
        "tokenizer.model.v3",
        "special_tokens_map.json",
        "o200k.tiktoken",
    ],
)
def test_whatever_a_tokenizer_may_read_is_hashed(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    before = digests(folder)
    change(folder / name)
    after = digests(folder)
    assert [key for key in before if before[key] != after[key]] == [name]


def test_the_second_chat_template_is_really_loaded(folder: Path) -> None:
    """What the hash above is for: this transformers takes it up."""
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("{{ messages }}")
    template: Any = load_tokenizer(source_of(folder)).chat_template
    assert template == "{{ messages }}"


def test_documents_and_hidden_files_are_not_part_of_a_model(folder: Path) -> None:
    before = digests(folder)
    for name in ("README.md", "LICENSE", "picture.png", ".gitattributes", ".cache/x.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    assert digests(folder) == before


# ── sentence-transformers ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    """A tiny embedder with a dense layer, whose modules lie in folders of unusual names."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
    from transformers import BertConfig, BertModel

    packaged = ModelSource("embed.model", "bundled").folder()
    torch.manual_seed(0)
    plain = tmp_path / "plain"
    small = BertConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    BertModel(small).save_pretrained(plain)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(packaged / name, plain / name)
    model = Transformer(str(plain))
    dense = Dense(16, 4)
    made = tmp_path / "embedder"
    SentenceTransformer(modules=[model, Pooling(16), dense]).save(str(made))
    (made / "2_Dense").rename(made / "last layer")
    modules = json.loads((made / "modules.json").read_text())
    modules[2]["path"] = "last layer"
    (made / "modules.json").write_text(json.dumps(modules))
    return made


def test_modules_in_folders_of_any_name(embedder: Path, tmp_path: Path) -> None:
    source = ModelSource("embed.model", str(embedder))
    run = RunDir(tmp_path / "run")
    vectors = load_embedder(source, "float32", "cpu", 64).encode(["a", "b"])
    assert vectors.shape == (2, 4)
    before = source.identity(run)["files"]
    assert "last layer/model.safetensors" in before
    root = sum(v.numel() for v in load_file(embedder / "model.safetensors").values())
    assert source.local_bytes("float32") == 4 * (root + 16 * 4 + 4)
    change(embedder / "last layer" / "model.safetensors")
    after = source.identity(run)["files"]
    assert [n for n in before if before[n] != after[n]] == ["last layer/model.safetensors"]


def test_the_history_of_a_cloned_embedder_is_not_part_of_it(embedder: Path, tmp_path: Path) -> None:
    """Its first module lies at the root, where a clone has its history beside it."""
    assert json.loads((embedder / "modules.json").read_text())[0]["path"] == ""
    source, run = ModelSource("embed.model", str(embedder)), RunDir(tmp_path / "run")
    before, num_bytes = source.identity(run)["files"], source.local_bytes("float32")
    for name in (".git/index", ".git/config.json", "last layer/.git/HEAD", ".cache/x.safetensors"):
        (embedder / name).parent.mkdir(exist_ok=True)
        shutil.copy(embedder / "model.safetensors", embedder / name)
    (embedder / ".git" / "config.json").write_text(json.dumps({"transformers_weights": "/x"}))
    (embedder / ".git" / "alternate").symlink_to(tmp_path / "elsewhere")
    (embedder / ".hidden").mkdir()
    (embedder / ".hidden" / "settings.json").write_text("{}")
    assert source.identity(run)["files"] == before
    assert source.local_bytes("float32") == num_bytes


def test_a_hidden_module_that_is_named_is_hashed(embedder: Path, tmp_path: Path) -> None:
    modules = json.loads((embedder / "modules.json").read_text())
    modules[2]["path"] = ".cache"
    (embedder / "modules.json").write_text(json.dumps(modules))
    (embedder / "last layer").rename(embedder / ".cache")
    source = ModelSource("embed.model", str(embedder))
    files = source.identity(RunDir(tmp_path / "run"))["files"]
    assert {".cache/model.safetensors", ".cache/config.json"} < set(files)
    root = sum(v.numel() for v in load_file(embedder / "model.safetensors").values())
    assert source.local_bytes("float32") == 4 * (root + 16 * 4 + 4)


# ── what leads out ───────────────────────────────────────────────────────────────────────────────


def index_above(folder: Path) -> None:
    shard_into(folder, "../elsewhere.safetensors")


def index_absolute(folder: Path) -> None:
    shard_into(folder, "a.safetensors")
    (folder / "a.safetensors").rename(folder.parent / "a.safetensors")
    index = {"metadata": {}, "weight_map": {"x": str(folder.parent / "a.safetensors")}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def index_to_a_pickle(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"x": "weights.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def config_above(folder: Path) -> None:
    add_to(folder / "config.json", transformers_weights="../model.safetensors")


def module_above(folder: Path) -> None:
    module = {"idx": 0, "path": "../other", "type": "sentence_transformers.models.Pooling"}
    (folder / "modules.json").write_text(json.dumps([module]))


def routed_above(folder: Path) -> None:
    (folder / "router_config.json").write_text(json.dumps({"types": {"../other": "x"}}))


def adapter(folder: Path) -> None:
    add_to(folder / "adapter_config.json", base_model_name_or_path="someone/base", peft_type="LORA")


def other_tokenizer(folder: Path) -> None:
    add_to(folder / "sentence_bert_config.json", tokenizer_name_or_path="someone/tokenizer")


def other_gguf(folder: Path) -> None:
    add_to(folder / "sentence_bert_config.json", model_args={"gguf_file": "x.gguf"})


def vocabulary_above(folder: Path) -> None:
    (folder.parent / "vocab.json").write_text("{}")
    add_to(folder / "tokenizer_config.json", vocab_file="../vocab.json")


def versions_above(folder: Path) -> None:
    add_to(folder / "tokenizer_config.json", fast_tokenizer_files=["../tokenizer.4.0.0.json"])


def link_out(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "tokenizer.json")
    (folder / "tokenizer.json").symlink_to(folder.parent / "tokenizer.json")


def linked_folder(folder: Path) -> None:
    (folder.parent / "templates").mkdir()
    (folder / "additional_chat_templates").symlink_to(folder.parent / "templates")


def linked_shard_in_a_cache(folder: Path) -> None:
    shard_into(folder, ".cache/a.safetensors")
    (folder / ".cache" / "a.safetensors").rename(folder.parent / "a.safetensors")
    (folder / ".cache" / "a.safetensors").symlink_to(folder.parent / "a.safetensors")


@pytest.mark.parametrize(
    ("lead", "told"),
    [
        (linked_shard_in_a_cache, ".cache/a.safetensors: a link to"),
        (index_above, "'../elsewhere.safetensors'"),
        (index_absolute, "a.safetensors'"),
        (index_to_a_pickle, "'weights.bin'"),
        (config_above, "config.json: weights in '../model.safetensors'"),
        (module_above, "modules.json: a module in '../other'"),
        (routed_above, "router_config.json: a module in '../other'"),
        (adapter, "adapter_config.json: an adapter for the model 'someone/base'"),
        (other_tokenizer, "'someone/tokenizer'"),
        (other_gguf, "gguf_file in 'x.gguf'"),
        (vocabulary_above, "vocab_file in '../vocab.json'"),
        (versions_above, "'../tokenizer.4.0.0.json'"),
        (link_out, "tokenizer.json: a link to"),
        (linked_folder, "additional_chat_templates: a link to"),
    ],
)
def test_what_leads_out_is_refused_before_anything_loads(
    folder: Path, lead: Callable[[Path], None], told: str
) -> None:
    lead(folder)
    source = source_of(folder)
    for use in (
        source.folder,
        lambda: source.identity(RunDir(folder.parent / "run")),
        lambda: load_tokenizer(source),
        lambda: source.local_bytes("float32"),
    ):
        with pytest.raises(ModelError, match="loads files from elsewhere") as caught:
            use()
        assert told in str(caught.value)
        assert len(str(caught.value).splitlines()) <= 8


def test_names_of_somebody_elses_machine_are_let_be(folder: Path) -> None:
    """Old tokenizers carry them; nothing reads what is not there."""
    nowhere = "/home/somebody/.cache/huggingface/transformers/0123"
    add_to(folder / "tokenizer_config.json", special_tokens_map_file=nowhere, name_or_path="/tmp/x")
    add_to(folder / "config.json", _name_or_path="../checkpoints/500")
    assert model_reads.strays(folder) == []
    load_tokenizer(source_of(folder))


def test_links_inside_the_folder_are_at_home(folder: Path) -> None:
    (folder / "files").mkdir()
    (folder / "model.safetensors").rename(folder / "files" / "w.safetensors")
    (folder / "model.safetensors").symlink_to("files/w.safetensors")
    assert source_of(folder).local_bytes("float32") == 4 * NUM_WEIGHTS
    before = digests(folder)["model.safetensors"]
    change(folder / "files" / "w.safetensors")
    assert digests(folder)["model.safetensors"] != before


def snapshot(folder: Path, cache: Path) -> Path:
    """The folder as the hub's cache keeps it: links to blobs."""
    model = cache / "models--someone--tiny"
    made = model / "snapshots" / ("0" * 40)
    made.mkdir(parents=True)
    (model / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, model / "blobs" / str(number))
        (made / path.name).symlink_to(f"../../blobs/{number}")
    return made


def test_the_hubs_own_cache_is_links_to_its_blobs(folder: Path, tmp_path: Path) -> None:
    made = snapshot(folder, tmp_path / "hub")
    assert source_of(made).folder() == made.resolve()
    assert source_of(made).local_bytes("float32") == 4 * NUM_WEIGHTS
    assert digests(made) == digests(folder)
    load_language_model(made, "float32", "cpu")
    (made / "tokenizer.json").unlink()
    (made / "tokenizer.json").symlink_to(folder / "tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json: a link to"):
        source_of(made).folder()


def test_a_folder_without_safetensors_names_the_way_to_them(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=rf"holds no \*\.safetensors(.|\n)*convert {folder}"):
        source_of(folder).folder()


def test_a_changed_size_of_the_tiny_model_is_seen(tmp_path: Path) -> None:
    larger = save_tiny_opt(tmp_path / "larger", ffn_dim=128)
    assert source_of(larger).local_bytes("float32") == 4 * (NUM_WEIGHTS + 2 * 64 * (2 * 32 + 1))
