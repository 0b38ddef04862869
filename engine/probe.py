"""How fast this machine is with these models: short measurements by the stages' own workers.

Each function runs as one Ray task in a process of its own, with a worker's cores and GPU, and does
what the stage's worker does on some rows of a sample; so the seconds until it is ready are a
worker's too. Rows are grouped as the stage groups them, and groups from the longest to the
shortest are timed until `SECONDS` are over; what lies between two measured groups takes what they
take. Heavy imports are inside: a process pays for its own stage only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import models, schema
from engine.columns import equals, to_ragged
from engine.config import Config
from engine.errors import PoolError
from engine.maths.ragged import Ragged
from engine.nodes import Nodes
from engine.parallel import peak_memory_bytes
from engine.rejects import MAX_LISTED
from engine.rundir import RunDir
from engine.step import POOL, REJECTED_FILE, TOKENS, Step, proxy_folder
from engine.terminal import plain

SECONDS = 8.0
"""Time spent on each measurement."""
KMEANS_ROWS, KMEANS_CLUSTERS, KMEANS_ITERATIONS = 8192, 512, 3


@dataclass(frozen=True)
class Rows:
    """What becomes of the sampled lines in the stages pool and tokens."""

    num_rows: int
    num_rejected: int
    num_embedded: int
    """Rows that pool does not flag."""
    input_ids: Ragged
    """Token ids of the rows that are scored."""
    scored: Ragged
    is_train: npt.NDArray[np.bool_]
    """bool[scored rows]: in the training split."""
    texts: list[str]
    """What the embedder reads, for each embedded row."""
    pool_seconds: float
    token_seconds: float
    pool_bytes: int
    token_bytes: int
    raw_bytes: int
    pool_memory_bytes: int
    busy_seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Speed:
    """One stage's worker over the sample."""

    seconds: float
    """For the whole sample, as far as not measured by interpolation."""
    busy_seconds: float
    """Spent in the task after the worker was ready."""
    memory_bytes: int
    """Largest resident memory of the process."""
    gpu_bytes: int = 0
    flops: float = 0.0
    """Of the whole sample."""
    tokens: int = 0
    """Of the whole sample, as this stage's model counts them."""
    details: dict[str, Any] = field(default_factory=dict)


# ── what each task measures ──────────────────────────────────────────────────────────────────────


def measure_rows(config: Config, nodes: Nodes, lines: list[bytes], places: Sequence[str]) -> Rows:
    """Run the stages pool and tokens on sampled lines, in a folder that is removed again.

    Args:
        config: settings of the run.
        nodes: the cluster.
        lines: JSON of each, as `sampling.draw` gives them.
        places: the file of each and its number there, for messages.

    Raises:
        PoolError: no line is a row.
    """
    from engine.stages.embed import text_of
    from engine.stages.tokens import TokenWorker

    proxy = config.proxy
    worker = TokenWorker(
        models.proxy_source(config),
        proxy.template,
        proxy.max_tokens,
        proxy.scored_turns,
        proxy.date,
    )
    began = time.perf_counter()
    with TemporaryDirectory(prefix="poolscore-plan-") as folder:
        ingest, encode = _sample_steps(config, Path(folder), lines)
        pool_seconds = _seconds(lambda: _run_pool(ingest, nodes, places))
        num_rejected = ingest.read(POOL, REJECTED_FILE).num_rows
        pool_memory = peak_memory_bytes()
        (shard,) = ingest.run.shards(POOL)
        # The first call of a tokenizer builds things that a run builds once.
        worker.template.encode([[(schema.USER, "a"), (schema.ASSISTANT, "b")]])
        token_seconds = _seconds(
            lambda: encode.commit(shard, worker(encode, worker.read(encode, shard)).table)
        )
        rows, tokens = ingest.read(POOL, shard), encode.read(encode.folder, shard)
        sizes = [(step.run.path / step.folder / shard).stat().st_size for step in (ingest, encode)]
    embedded = equals(rows["flag"], schema.OK)
    scored = equals(tokens["flag"], schema.OK)
    kept = tokens.filter(scored)
    turns = rows["turns"].to_pylist()
    return Rows(
        num_rows=len(rows),
        num_rejected=num_rejected,
        num_embedded=int(embedded.sum()),
        input_ids=to_ragged(kept["input_ids"]),
        scored=to_ragged(kept["scored"]),
        is_train=equals(rows["split"], schema.TRAIN)[scored],
        texts=[text_of(turns[i]) for i in np.flatnonzero(embedded)],
        pool_seconds=pool_seconds,
        token_seconds=token_seconds,
        pool_bytes=sizes[0],
        token_bytes=sizes[1],
        raw_bytes=sum(len(raw.encode()) for raw in rows["raw"].to_pylist()),
        pool_memory_bytes=pool_memory,
        busy_seconds=time.perf_counter() - began,
        memory_bytes=peak_memory_bytes(),
    )


def measure_embedding(config: Config, nodes: Nodes, texts: list[str]) -> Speed:
    """Embed batches of similar length, as sentence-transformers cuts a shard."""
    from engine.maths.flops import Shape, forward_flops
    from engine.stages import embed

    batch_rows = config.resources.embed_batch_rows
    assert batch_rows is not None, "resolved before a probe"
    worker = embed.EmbedWorker(
        models.embedder_source(config),
        config.embed.dtype,
        nodes.device,
        config.embed.max_tokens,
        batch_rows,
        nodes.cpus_per_worker,
    )
    began = time.perf_counter()
    ordered = sorted(texts, key=len, reverse=True)
    batches = [ordered[i : i + batch_rows] for i in range(0, len(ordered), batch_rows)]
    seconds = seconds_of_all(
        len(batches), lambda index: [_seconds(lambda: worker.embed(batches[index]))]
    )
    embedder: Any = worker.embedder
    ids = embedder.tokenizer(texts, truncation=True, max_length=embedder.max_seq_length)
    lengths = np.array([len(row) for row in ids["input_ids"]])
    shape = Shape.of(embedder[0].auto_model, causal=False)
    return Speed(
        seconds=seconds[0],
        busy_seconds=time.perf_counter() - began,
        memory_bytes=peak_memory_bytes(),
        gpu_bytes=_gpu_bytes(nodes.device),
        flops=forward_flops(shape, lengths),
        tokens=int(lengths.sum()),
        details={"dimension": worker.dimension},
    )


def measure_kmeans(rows: int, dimension: int, k: int, num_threads: int, use_gpu: bool) -> Speed:
    """Cluster random vectors with faiss; `seconds` are those of one FLOP. Must run without torch.

    Args:
        rows: of the whole pool; at most `KMEANS_ROWS` are used.
        dimension: of the embeddings.
        k: clusters of the whole pool; at most `KMEANS_CLUSTERS` are used.
        num_threads: of faiss.
        use_gpu: as the stage.
    """
    from engine.maths import kmeans

    rows, k = min(rows, KMEANS_ROWS), min(k, KMEANS_CLUSTERS)
    vectors = np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)
    kmeans.kmeans(vectors[:k], k, 1, 0, num_threads, use_gpu)
    began = time.perf_counter()
    kmeans.kmeans(vectors, k, KMEANS_ITERATIONS, 0, num_threads, use_gpu)
    seconds = time.perf_counter() - began
    flops = kmeans.num_flops(rows, dimension, k, KMEANS_ITERATIONS)
    return Speed(seconds / flops, seconds, peak_memory_bytes())


def measure_scoring(
    config: Config, nodes: Nodes, input_ids: Ragged, scored: Ragged, budgets: list[int]
) -> Speed:
    """Score the same groups of rows under each token budget, the first of which is the run's.

    `details` holds the seconds of each budget; one that does not fit into memory is left out.
    """
    from engine.maths.batching import length_sorted_batches
    from engine.maths.flops import Shape, forward_flops
    from engine.stages.perplexity import PerplexityWorker

    source = models.proxy_source(config)
    dtype, device = config.proxy.dtype, nodes.device
    scorer = PerplexityWorker(source, dtype, device, budgets[0], nodes.cpus_per_worker).scorer
    scorer.prepare(input_ids)
    model = scorer.nll.model
    began = time.perf_counter()
    groups = length_sorted_batches(input_ids.lengths, max(budgets))
    parts = [(input_ids.take(group), scored.take(group)) for group in groups]

    def score(index: int, budget: int) -> float:
        scorer.batch_tokens = budget
        return _seconds(lambda: scorer(*parts[index]))

    score(0, budgets[0])
    memory, gpu = peak_memory_bytes(), _gpu_bytes(device)
    fit: list[int] = []
    for scorer.batch_tokens in budgets:
        if not scorer(*parts[0]).counts.halved_batches:
            fit.append(scorer.batch_tokens)
    fit = fit or budgets[:1]
    seconds = seconds_of_all(len(groups), lambda i: [score(i, budget) for budget in fit])
    flops = forward_flops(Shape.of(model), input_ids.lengths, len(scored.values))
    return Speed(
        seconds=seconds[0],
        busy_seconds=time.perf_counter() - began,
        memory_bytes=memory,
        gpu_bytes=gpu,
        flops=flops,
        tokens=len(input_ids.values),
        details={"budgets": dict(zip(fit, seconds, strict=True))},
    )


def measure_training(
    config: Config, nodes: Nodes, input_ids: Ragged, scored: Ragged, num_rows: int
) -> Speed:
    """Forward, backward and AdamW on micro-batches of a training epoch, DeepSpeed left out.

    `num_rows` rows of the whole pool are trained on: they decide the size of a batch.
    """
    import torch

    from engine.maths import batching, schedule
    from engine.maths.flops import Shape, forward_flops, training_flops
    from engine.maths.lengths import length_rule
    from engine.maths.loss import TokenNLL, padded_batch
    from engine.scoring import training_way
    from engine.training import load_without_dropout
    from engine.training_plan import plan_of
    from engine.zero import import_deepspeed

    plan = plan_of(config, models.proxy_source(config), nodes.device, nodes.cpus_per_train_worker)
    import_deepspeed(plan.device)  # for its seconds and its memory: the worker has both
    models.use_threads(plan.num_threads)
    model, _ = load_without_dropout(plan)
    began = time.perf_counter()
    way = training_way(model, input_ids, plan.dtype)
    budget, rule = way.budget(plan.micro_batch_tokens), way.rule(length_rule(model.config))
    nll = TokenNLL(model, way.full_logits).train().to(plan.device)
    optimizer = torch.optim.AdamW(nll.parameters(), plan.learning_rate, fused=True)
    lengths = input_ids.lengths
    batch_size = plan.config.batch_size or schedule.chosen_batch_size(num_rows)
    steps = batching.steps(np.arange(len(input_ids)), batch_size)
    micros = [
        rows for step in steps for rows in batching.micro_batches(step, lengths, budget, 0, 1, rule)
    ]
    micros.sort(key=lambda rows: -len(rows) * int(lengths[rows].max()))

    def backward(index: int) -> list[float]:
        rows, positions = input_ids.take(micros[index]), scored.take(micros[index])

        def work() -> None:
            nll(*padded_batch(rows, positions, plan.device)).mean().backward()
            _wait(plan.device)

        return [_seconds(work)]

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(nll.parameters(), plan.config.max_grad_norm or 1.0)
        optimizer.step()
        optimizer.zero_grad()
        _wait(plan.device)

    backward(0)
    update()  # makes the optimizer's moments
    backward(0)
    update_seconds = _seconds(update)
    seconds = seconds_of_all(len(micros), backward)[0] + update_seconds * len(steps)
    forward = forward_flops(Shape.of(model), lengths, len(scored.values))
    return Speed(
        seconds=seconds,
        busy_seconds=time.perf_counter() - began,
        memory_bytes=peak_memory_bytes(),
        gpu_bytes=_gpu_bytes(plan.device),
        flops=training_flops(forward, bool(plan.activation_checkpointing)),
        tokens=len(input_ids.values),
        details={"weights": sum(parameter.numel() for parameter in model.parameters())},
    )


# ── how it is measured ───────────────────────────────────────────────────────────────────────────


def seconds_of_all(num_groups: int, measure: Callable[[int], list[float]]) -> list[float]:
    """Seconds that all groups take, from measurements of some, until `SECONDS` are over.

    Args:
        num_groups: groups in order of size; 0 takes no time.
        measure: runs a group once for each way of doing it and returns the seconds of each.

    Returns:
        Sum over all groups for each way, interpolated between the groups that were measured.
    """
    if not num_groups:
        return [0.0]
    measure(num_groups // 2)  # warms up
    found: dict[int, list[float]] = {}
    end = time.perf_counter() + SECONDS
    for index in spread(num_groups):
        found[index] = measure(index)
        if time.perf_counter() > end:
            break
    places = sorted(found)
    ways = np.array([found[place] for place in places]).T
    every = np.arange(num_groups)
    return [float(np.interp(every, places, seconds).sum()) for seconds in ways]


def spread(count: int) -> Iterator[int]:
    """0 … count-1 once each: the middle, both ends, then always into the widest gaps."""
    done: set[int] = set()
    for first in (count // 2, 0, count - 1):
        if first not in done:
            done.add(first)
            yield first
    parts = 4
    while len(done) < count:
        for part in range(1, parts, 2):
            index = part * count // parts
            if index not in done:
                done.add(index)
                yield index
        parts *= 2


def _run_pool(ingest: Step, nodes: Nodes, places: Sequence[str]) -> None:
    """Run the stage pool; errors name the pool's own files, never those of the sample."""
    from engine.stages import pool

    try:
        pool.run(ingest, nodes)
    except PoolError as error:
        rejected = ingest.read(POOL, REJECTED_FILE).slice(0, MAX_LISTED).to_pylist()
        listed = [
            f"{places[row['line'] - 2]}: {row['reason']}, {row['detail']}" for row in rejected
        ]
        where = "\n         ".join(map(plain, listed)) or ", ".join(ingest.config.pool.paths)
        what = f"{error.what} (a sample of {len(places):,} was tried)"
        raise PoolError(what, where, error.fix) from None


def _sample_steps(config: Config, folder: Path, lines: list[bytes]) -> tuple[Step, Step]:
    """The stages pool and tokens over some lines, in one shard, with no fingerprint to keep.

    What a file begins with could be taken for one of another kind: a blank line stands first, and
    no line begins as a web page does.
    """
    text = b"\n".join(b"null" if line.lstrip().startswith(b"<") else line for line in lines)
    (folder / "sample.jsonl").write_bytes(b"\n" + text + b"\n")
    paths = [str(folder / "sample.jsonl")]
    small = config.override(
        pool={
            "paths": paths,
            "shard_rows": max(1, len(lines)),
            "shard_bytes": 2**40,
            "max_reject_fraction": 1,
            "source_field": None,  # a field of few rows may be in none of these
        }
    )
    run = RunDir(folder)
    ingest = Step("pool", POOL, 0, small, run, {}, {}, "plan")
    name = f"{proxy_folder(config)}/{TOKENS}"
    return ingest, Step("tokens", name, 0, small, run, {}, {POOL: "plan"}, "plan")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _is_gpu(device: str) -> bool:
    return device == "cuda"


def _gpu_bytes(device: str) -> int:
    import torch

    return torch.cuda.max_memory_allocated() if _is_gpu(device) else 0


def _wait(device: str) -> None:
    import torch

    if _is_gpu(device):
        torch.cuda.synchronize()
