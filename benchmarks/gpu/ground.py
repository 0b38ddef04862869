"""Where a GPU measurement runs, its clock, and its counters."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks import harness
from benchmarks.gpu import shapes
from benchmarks.gpu.shapes import Rows, Shape
from benchmarks.harness import Row

TIMES = 3
"""Timed runs of an arm that has no opponent, after one to warm up; the median stands."""
TINY_BUDGETS, TINY_BUDGET = (256, 512), 256


@dataclass(frozen=True)
class Ground:
    """A CUDA device, or with `tiny` the CPU, where the same calls are made on tiny shapes."""

    tiny: bool
    sweep: bool
    """Try every token budget, not the usual one alone."""

    @property
    def device(self) -> str:
        """As torch names it."""
        return "cpu" if self.tiny else "cuda"

    @property
    def device_name(self) -> str:
        """For the record."""
        return "CPU" if self.tiny else torch.cuda.get_device_name()

    @property
    def pairs(self) -> int | None:
        """Of `harness.alternate`."""
        return 1 if self.tiny else None

    def rows(self, shape: Shape, vocabulary: int) -> Rows:
        """What a model is to score."""
        if self.tiny:
            return shapes.alpaca_rows(shapes.TINY_ROWS, vocabulary, shapes.TINY_LONGEST)
        return shapes.alpaca_rows(shape.num_rows, vocabulary)

    def budgets(self, swept: Sequence[int], usual: int) -> Sequence[int]:
        """The token budgets to measure."""
        swept, usual = (TINY_BUDGETS, TINY_BUDGET) if self.tiny else (swept, usual)
        return swept if self.sweep else (usual,)

    def synchronise(self) -> None:
        """Wait until the GPU has done everything it was told."""
        if not self.tiny:
            torch.cuda.synchronize()

    def release(self) -> None:
        """Give cached memory back, so that one arm's leftovers don't limit the next."""
        if not self.tiny:
            torch.cuda.empty_cache()

    def median_seconds(self, arm: Callable[[], object]) -> float:
        """Of whole runs: the clock stops when the GPU is done."""

        def whole() -> None:
            arm()
            self.synchronise()

        harness.timed(whole)
        times = 1 if self.tiny else TIMES
        return statistics.median(harness.timed(whole).seconds for _ in range(times))

    def at_budgets(self, arm: Callable[[int], object], budgets: Sequence[int]) -> dict[int, float]:
        """Median seconds at every budget whose batches fit into memory."""
        seconds: dict[int, float] = {}
        for budget in budgets:
            try:
                seconds[budget] = self.median_seconds(partial(arm, budget))
            except torch.OutOfMemoryError:
                print(f"  {budget:,} tokens a batch do not fit into memory")
            self.release()
        if not seconds:
            sys.exit(f"error: not even {min(budgets):,} tokens a batch fit into this GPU's memory")
        return seconds

    def peak_bytes(self, arm: Callable[[], object]) -> int | None:
        """Most GPU memory an arm takes above what is taken before it; None on a CPU."""
        if self.tiny:
            arm()
            return None
        self.synchronise()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        arm()
        self.synchronise()
        return torch.cuda.max_memory_allocated() - before

    def peak_flops(self) -> float:
        """FLOP/s of a large bfloat16 matrix product of random numbers."""
        size, in_a_row = (256, 3) if self.tiny else (8192, 30)
        generator = torch.Generator(self.device).manual_seed(0)
        left, right, out = (
            torch.randn(size, size, generator=generator, device=self.device).bfloat16()
            for _ in range(3)
        )

        def products() -> None:
            for _ in range(in_a_row):
                torch.mm(left, right, out=out)

        return in_a_row * 2 * size**3 / self.median_seconds(products)


def gigabytes(num_bytes: int | None) -> str:
    """For a table."""
    return "not counted on a CPU" if num_bytes is None else f"{num_bytes / 2**30:.2f} GB"


@dataclass(frozen=True)
class Work:
    """What one run of an arm has to do, whichever way it does it."""

    what: str
    num_tokens: int
    """Without padding."""
    flops: int
    """Likewise; see `engine.maths.flops`."""

    def row(self, budget: int, seconds: float, peak: float, aim: float | None) -> Row:
        """The share of the GPU's matrix speed that this took."""
        share = self.flops / seconds / peak
        return harness.limit(
            self.what,
            f"≥ {aim:.0%}" if aim else "",
            f"{share:.1%} of peak, {self.num_tokens / seconds:,.0f} useful tokens/s at "
            f"{budget:,} tokens a batch",
            share >= aim if aim else None,
            utilisation=share,
            seconds=seconds,
            num_tokens=self.num_tokens,
            flops=self.flops,
            batch_tokens=budget,
        )

    def rows(self, seconds: dict[int, float], peak: float, aim: float | None) -> list[Row]:
        """The fastest budget, and behind it what the others reached.

        Args:
            seconds: by budget.
            peak: FLOP/s of the GPU.
            aim: least share.
        """
        fastest_first = sorted(seconds, key=seconds.__getitem__)
        return [
            self.row(budget, seconds[budget], peak, None if place else aim)
            for place, budget in enumerate(fastest_first)
        ]
