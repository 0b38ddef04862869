"""What the driver holds: its peak memory when the pool grows tenfold, whole runs with tiny models.

``python -m benchmarks.driver_memory`` scores pools of 10,000 and 100,000 rows made up for it,
each in a fresh process with its own Ray, under models too small to matter: what is measured is the
process that walks through the stages, not the workers. With fewer rows: ``--rows 1000 10000``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness import REPOSITORY, limit, peak_memory_mb, publish

SIZES = (10_000, 100_000)
AIM_MB = 100
WORDS = ("red", "river", "seven", "house", "slowly", "letter", "opens", "under", "glass", "north")


def main() -> None:
    """Measure both sizes and publish."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs=2, default=SIZES, help="pool sizes")
    small, large = options.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="ps-") as folder:
        _in_process("make_models", Path(folder))
        # Side by side: memory is measured, not time.
        with ThreadPoolExecutor() as threads:
            walks = {
                size: threads.submit(_in_process, "walk", Path(folder), size)
                for size in (small, large)
            }
        told = {size: walk.result() for size, walk in walks.items()}
    growth = told[large]["peak_mb"] - told[small]["peak_mb"]
    rows = [
        limit(
            f"peak memory of the driver, {size:,} rows",
            "",
            f"{told[size]['peak_mb']:,.0f} MB",
            None,
            **told[size],
        )
        for size in (small, large)
    ]
    rows.append(limit("growth", f"≤ {AIM_MB} MB", f"{growth:,.0f} MB", growth <= AIM_MB))
    for stage, peak in told[large]["by_stage"].items():
        before = told[small]["by_stage"].get(stage, 0.0)
        rows.append(limit(f"peak up to {stage}", "", f"{before:,.0f} → {peak:,.0f} MB", None))
    publish("driver_memory", rows)


def _in_process(function: str, folder: Path, *arguments: int) -> dict[str, Any]:
    call = f"{function}({', '.join(map(repr, (str(folder), *arguments)))})"
    code = f"from benchmarks.driver_memory import {function}; {call}"
    # Ray's sockets have short names only where its folder has one; no cluster around is joined.
    environment = {**os.environ, "RAY_TMPDIR": str(folder), "HF_HUB_OFFLINE": "1"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def walk(folder: str, num_rows: int) -> None:
    """One whole run; prints this process's peak memory after each stage as JSON."""
    import engine

    config = engine.Config.from_tree(
        {
            "pool": {"paths": [_write_pool(Path(folder), num_rows)]},
            "embed": {"model": f"{folder}/embedder", "max_tokens": 32},
            "proxy": {"model": f"{folder}/proxy", "name": "tiny", "max_tokens": 48},
            "finetune": {"learning_rate": 1e-3, "batch_size": 1024},
            "resources": {
                "address": "local",
                "embed_batch_rows": 256,
                "score_batch_tokens": 8192,
                "micro_batch_tokens": 16_384,
            },
        }
    )
    by_stage = {"the start": peak_memory_mb()}

    def note(line: str) -> None:
        print(line, file=sys.stderr)
        if line.startswith("["):
            by_stage[line.partition("]")[2].partition("  ")[0].strip()] = peak_memory_mb()

    engine.run(config, f"{folder}/run-{num_rows}", say=note)
    shutil.rmtree(f"{folder}/run-{num_rows}")
    print(json.dumps({"peak_mb": peak_memory_mb(), "by_stage": by_stage}))


def _write_pool(folder: Path, num_rows: int) -> str:
    """Rows of about 800 bytes, as Dolly's are; the models see the first tokens only."""
    draw = random.Random(num_rows)
    path = folder / f"pool-{num_rows}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            prompt = " ".join(draw.choices(WORDS, k=3))
            response = " ".join(draw.choices(WORDS, k=140))
            row = {"instruction": f"{number}: {prompt}?", "output": f"{response}."}
            file.write(json.dumps(row) + "\n")
    return str(path)


def make_models(folder: str) -> None:
    """A random OPT and a random BERT embedder under `folder`, with the bundled tokenizers."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel, OPTConfig, OPTForCausalLM

    from engine.assets import bundled_proxy
    from engine.models import ModelSource, use_threads

    use_threads(1)
    torch.manual_seed(0)
    bundled = bundled_proxy().folder
    proxy = OPTConfig(
        vocab_size=8192,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=2,
    )
    OPTForCausalLM(proxy).save_pretrained(f"{folder}/proxy")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled / name, f"{folder}/proxy/{name}")
    tokenizer = AutoTokenizer.from_pretrained(ModelSource("embed.model", "bundled").folder())
    bert = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    BertModel(bert).save_pretrained(f"{folder}/bert")
    tokenizer.save_pretrained(f"{folder}/bert")
    words = Transformer(f"{folder}/bert", max_seq_length=64)
    pooled = Pooling(32)
    SentenceTransformer(modules=[words, pooled], device="cpu").save(f"{folder}/embedder")
    print("{}")


if __name__ == "__main__":
    main()
