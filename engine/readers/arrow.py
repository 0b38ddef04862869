"""Rows of Arrow files and streams (`.arrow`, Feather, what `datasets` saves), of plain columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from engine.readers.archive import max_unpacked_bytes
from engine.readers.arrow_messages import Messages
from engine.readers.line import Line
from engine.readers.table import extension_type, read_rows, refuse_fields, too_much


def read_arrow(path: Path, max_row_bytes: int) -> Iterator[Line]:
    """Each row, as the JSON that it would be; of a broken file those before the batch that is."""
    fix = "write or copy it again, or save it as .parquet"
    return read_rows(open_arrow, path, max_row_bytes, "Arrow", fix)


@dataclass(frozen=True)
class PlainArrow:
    """An open file, read a batch at a time; each is in memory whole."""

    stream: pa.ipc.RecordBatchStreamReader
    messages: Messages

    @property
    def num_rows(self) -> int:
        """Up to the file's break, if it has one."""
        return self.messages.num_rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The batches, each looked through before anything is read of it.

        Raises:
            ValueError, pyarrow.ArrowException: the file is broken here.
        """
        for _ in range(self.messages.num_batches):
            batch = self.stream.read_next_batch()
            batch.validate(full=True)  # Arrow takes a file's own offsets as they are
            yield batch
        if self.messages.problem:
            raise ValueError(self.messages.problem)


@contextmanager
def open_arrow(path: Path) -> Iterator[PlainArrow]:
    """An Arrow file or stream of plain types, each name once, no larger than an archive may get.

    A file is read as the stream that it holds, from its beginning.

    Raises:
        BrokenFileError: it is none of that.
        ValueError, pyarrow.ArrowException, OSError: the file is no Arrow that can be read.
    """
    messages = Messages(path)
    if messages.may_hold_extension_types:
        raise extension_type(path)
    limit = max_unpacked_bytes(path.stat().st_size)
    if messages.unpacked_bytes > limit:
        raise too_much(path, limit)
    with pa.OSFile(str(path)) as file:
        file.seek(messages.start)
        with pa.ipc.open_stream(file) as stream:
            refuse_fields(path, list(stream.schema))
            yield PlainArrow(stream, messages)
