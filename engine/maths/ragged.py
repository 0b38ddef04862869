"""Rows of different lengths in one flat array, as Arrow keeps them: nothing is done row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """n rows of int32 values."""

    values: Int32s
    """int32[total]: the rows one behind the other."""
    offsets: Int64s
    """int64[n + 1]: row i is ``values[offsets[i]:offsets[i + 1]]``."""

    @classmethod
    def of(cls, rows: Sequence[npt.ArrayLike]) -> Ragged:
        """From one sequence of integers per row."""
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        lengths = [len(array) for array in arrays]
        values = np.concatenate([*arrays, np.zeros(0, dtype=np.int32)])
        return cls(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int32s:
        """One row, as a view."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Int64s:
        """int64[n]"""
        return np.diff(self.offsets)

    def take(self, rows: npt.NDArray[np.integer]) -> Ragged:
        """Some of the rows, in that order."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        # Each value's place: its row's old start, and how far into the row it is.
        shift = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Ragged(self.values[np.arange(offsets[-1]) + shift], offsets)

    def drop_first(self, num: int) -> Ragged:
        """Every row without its first `num` values; no row may be shorter."""
        lengths = self.lengths
        assert num <= lengths.min(initial=num), "a row is shorter than what is dropped"
        inside = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], lengths)
        dropped = num * np.arange(len(self.offsets), dtype=np.int64)
        return Ragged(self.values[inside >= num], self.offsets - dropped)

    def pad(self, fill: int) -> Int64s:
        """int64[n, longest], filled up on the right with `fill`."""
        lengths = self.lengths
        padded = np.full((len(lengths), int(lengths.max(initial=0))), fill, dtype=np.int64)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = self.values
        return padded
