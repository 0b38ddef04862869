"""What a GGUF file says of itself, read without trusting it.

Every count and length is held against the bytes that are left, so that a header that claims
exabytes costs nothing. Only what is needed to plan is kept; transformers reads the file again.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMENSIONS, MAX_NAME_BYTES = 8, 2**16
MOST_VALUES_PER_BYTE = 8
"""No way of packing holds more than a weight in a bit."""
MAX_CONTEXT = 2**24

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"}
_SCALARS |= {10: "<Q", 11: "<q", 12: "<d"}


@dataclass(frozen=True)
class Header:
    """The metadata that are single values, and how large the tensors are."""

    metadata: dict[str, str | int | float | bool]
    shapes: dict[str, tuple[int, ...]]
    """Of each tensor, by its name."""
    num_bits: float
    """Bits that the file spends on a weight, on average."""

    @property
    def num_parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def architecture(self) -> str:
        """As the file names it: ``llama``."""
        return str(self.metadata["general.architecture"])


def is_gguf(path: Path) -> bool:
    """Whether a file is a GGUF, by its first bytes or else by its name."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC or path.suffix.lower() == ".gguf"


def read(path: Path) -> Header:
    """The header of a GGUF file.

    Raises:
        ModelError: it is no such file, is cut short, or claims what it cannot hold.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _Reader(data).header()
            _check(header)
    except (struct.error, ValueError, UnicodeDecodeError, OverflowError) as error:
        reason = str(error) if type(error) is ValueError else "it is cut short or damaged"
        raise ModelError(f"{path} is no GGUF file that can be used: {reason}.") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from None
    return header


class _Reader:
    """A place in the file, and what may still come."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.place, self.size = data, 0, len(data)

    def header(self) -> Header:
        if self.data[:4] != MAGIC:
            raise ValueError("it does not begin with the letters GGUF")
        self.place = 4
        version, num_tensors, num_entries = self._take("<IQQ")
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, and versions 2 and 3 are known")
        self._must_hold(num_entries, 13, "entries")  # a key's length, a type and a byte
        metadata: dict[str, str | int | float | bool] = {}
        for _ in range(num_entries):
            key = self._string()
            value = self._value(int(self._take("<I")[0]))
            if value is not None:
                metadata[key] = value
        self._must_hold(num_tensors, 24, "tensors")
        shapes: dict[str, tuple[int, ...]] = {}
        for _ in range(num_tensors):
            name, shape = self._tensor()
            if name in shapes:
                raise ValueError(f"it holds the tensor {name[:80]!r} twice")
            shapes[name] = shape
        num_values = sum(math.prod(shape) for shape in shapes.values())
        left = self.size - self.place
        if num_values > MOST_VALUES_PER_BYTE * left:
            raise ValueError(f"it claims {num_values:,} weights in {left:,} bytes")
        return Header(metadata, shapes, 8 * left / max(1, num_values))

    def _tensor(self) -> tuple[str, tuple[int, ...]]:
        name = self._string(MAX_NAME_BYTES)
        (num_dimensions,) = self._take("<I")
        if num_dimensions > MAX_DIMENSIONS:
            raise ValueError(f"the tensor {name[:80]!r} has {num_dimensions} dimensions")
        shape = self._take(f"<{num_dimensions}Q")
        _, offset = self._take("<IQ")
        if offset > self.size:
            raise ValueError(f"the tensor {name[:80]!r} lies behind the file's end")
        return name, tuple(int(length) for length in shape)

    def _value(self, kind: int) -> str | int | float | bool | None:
        """A single value; None of arrays, which are only passed over."""
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._take(_SCALARS[kind])[0]
        if kind != _ARRAY:
            raise ValueError(f"it holds a value of the unknown type {kind}")
        inner, count = self._take("<IQ")
        if inner in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[inner]))
        elif inner == _STRING:
            self._must_hold(count, 8, "strings")
            for _ in range(count):
                self._skip(self._take("<Q")[0])
        else:
            raise ValueError(f"it holds an array of the type {inner}")
        return None

    def _string(self, most: int = 2**31) -> str:
        (length,) = self._take("<Q")
        start = self.place
        self._skip(length)
        if length > most:
            raise ValueError(f"it holds a name of {length:,} bytes")
        return self.data[start : self.place].decode()

    def _take(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(layout, self.data, self.place)
        self.place += struct.calcsize(layout)
        return values

    def _skip(self, num_bytes: int) -> None:
        if num_bytes > self.size - self.place:
            raise ValueError("it is cut short or damaged")
        self.place += num_bytes

    def _must_hold(self, count: int, least_bytes: int, what: str) -> None:
        if count * least_bytes > self.size - self.place:
            raise ValueError(f"it claims {count:,} {what} in {self.size - self.place:,} bytes")


def _check(header: Header) -> None:
    """Refuse metadata that no model of these tensors has: they decide what is built."""
    if not isinstance(header.metadata.get("general.architecture"), str):
        raise ValueError("it does not name its architecture")
    if int(header.metadata.get("split.count", 1)) > 1:
        raise ValueError(
            "it is one of several parts. Put them together first, with llama.cpp's "
            "llama-gguf-split --merge"
        )
    most = max((math.prod(shape) for shape in header.shapes.values()), default=0)
    if not most:
        raise ValueError("it holds no weights")
    layers = header.metadata.get(f"{header.architecture}.block_count", 0)
    if int(layers) > len(header.shapes):
        raise ValueError(f"it claims {layers:,} layers with {len(header.shapes)} tensors")
    for key, value in header.metadata.items():
        limit = MAX_CONTEXT if key.endswith("context_length") else max(most, 2**16)
        counts = key.startswith(f"{header.architecture}.") and isinstance(value, int)
        if counts and not -1 <= int(value) <= limit:
            raise ValueError(f"it claims {key[:80]} = {value:,}")
