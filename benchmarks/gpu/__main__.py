"""Measure what was asked for, print it and record it, part by part."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

import benchmarks.gpu
from benchmarks import harness
from benchmarks.gpu import embedding, kmeans, scoring, shapes, training
from benchmarks.gpu.ground import Ground
from benchmarks.gpu.shapes import Shape
from benchmarks.harness import Row

PARTS = ("scoring", "training", "embedding", "kmeans")
WITHOUT_GPU = """\
No CUDA device here, so nothing is measured. On one GPU, in bfloat16, this measures
  scoring      share of the GPU's matrix speed: OPT-350m ≥ 30%, OPT-1.3B ≥ 45%, Llama-2-7B ≥ 55%;
               useful tokens/s against the published loop: ≥ 5×; memory of both above the weights
  training     OPT-1.3B ≥ 40%, and the same with activation checkpointing
  embedding    all-MiniLM-L6-v2 ≥ 10,000 rows/s, from text and from tokens
  kmeans       1,000,000 × 384, 10,000 clusters, 20 iterations in ≤ 30 s (needs faiss-gpu)
Try the script itself on the CPU with --tiny."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 also where there is no GPU to run it on."""
    options = _options(arguments)
    if not options.tiny and not torch.cuda.is_available():
        print(WITHOUT_GPU)
        return 0
    if options.tiny:
        torch.set_num_threads(1)  # on matrices this small, threads only wait for one another
    ground = Ground(options.tiny, options.sweep)
    peak = ground.peak_flops()
    product = harness.limit(
        f"large bfloat16 matrix product, {ground.device_name}",
        "",
        f"{peak / 1e12:,.1f} TFLOP/s",
        None,
        flops_per_second=peak,
    )
    chosen = [shape for shape in shapes.SHAPES if shape.name in options.models]
    for part in options.parts:
        rows = [product, *_measure(part, ground, chosen, peak)]
        if ground.tiny:
            rows = [replace(row, aim="", reached=None) for row in rows]
        harness.publish(f"gpu-tiny-{part}" if ground.tiny else f"gpu-{part}", rows)
    return 0


def _measure(part: str, ground: Ground, chosen: Sequence[Shape], peak: float) -> list[Row]:
    ground.release()
    match part:
        case "scoring":
            return scoring.measure(ground, chosen, peak)
        case "training":
            return training.measure(ground, chosen, peak)
        case "embedding":
            return embedding.measure(ground)
        case _:
            return kmeans.measure(ground)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=benchmarks.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [shape.name for shape in shapes.SHAPES]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--sweep", action="store_true", help="try every token budget")
    parser.add_argument("--tiny", action="store_true", help="try the script on the CPU")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
