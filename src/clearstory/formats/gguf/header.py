"""GGUF headers: metadata and tensor locations, read as untrusted input without allocating claimed sizes.

    "GGUF"  version  tensor count  metadata count │ key type value … │ name shape type offset … │ padding │ data

The package `gguf` reads the same, with one numpy array for each string: 7 s for the 98,000 strings of SmolLM2's
tokenizer, here 0.2 s. It also trusts lengths, such as 2⁶⁰. So the header is read here, with each length compared with
the remaining bytes; the package dequantizes and writes.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.gguf.quantization import QUANTIZATION_TYPES, SUPPORTED_TYPES, QuantizationType

MAGIC = b"GGUF"
VERSIONS = (2, 3)

SCALAR_TYPES: dict[int, str] = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""GGUF's scalar types as format characters of `struct` and numpy."""

STRING_TYPE, ARRAY_TYPE = 8, 9

MAX_ARRAY_DEPTH = 3
"""Maximum nesting of arrays; published files have no nested arrays."""

MAX_DIMENSIONS = 4
MIN_ALIGNMENT, MAX_ALIGNMENT, DEFAULT_ALIGNMENT = 8, 2**16, 32

# The least bytes of a metadata field, a string and a tensor's entry, which bound a count by the file's size.
MIN_FIELD_BYTES, MIN_STRING_BYTES, MIN_TENSOR_BYTES = 13, 8, 28


@dataclass(frozen=True)
class TensorLocation:
    """A tensor in a file: its shape in torch's order, its number format, and the byte range of its data."""

    shape: tuple[int, ...]
    type: QuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class GGUFHeader:
    """A file's metadata and tensors. Data is read only by `raw` and `tensor`."""

    path: Path
    metadata: dict[str, Any] = field(repr=False)
    tensors: dict[str, TensorLocation] = field(repr=False)
    data: mmap.mmap = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> GGUFHeader:
        """Read a file's header. Raises BadInput for another kind of file, CorruptFile with position and reason."""
        size = path.stat().st_size
        if size < 24:
            raise CorruptFile(f"{path} has {size:,} bytes, but a GGUF header has 24; copy it again")
        with path.open("rb") as file:
            # Copy on write: changed weights leave the file unchanged, and only accessed pages are read.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        reader = HeaderReader(path, data)
        if data[:4] != MAGIC:
            raise BadInput(
                f"{path} starts with {data[:4]!r}, but a GGUF file starts with {MAGIC!r}; it is another kind of file"
            )
        reader.offset = 4
        version = reader.read_scalar("I")
        if version not in VERSIONS:
            order = " (it may be big-endian)" if version & 0xFFFF == 0 else ""
            raise BadInput(
                f"{path} has GGUF version {version:,}{order}; supported: {VERSIONS[0]}, {VERSIONS[1]}, little-endian"
            )
        n_tensors, n_fields = reader.read_scalar("Q"), reader.read_scalar("Q")
        metadata = reader.read_metadata(n_fields)
        return cls(path, metadata, reader.read_tensors(n_tensors, metadata), data)

    def raw(self, name: str) -> Tensor:
        """The bytes of one tensor, memory-mapped."""
        location = self.tensors[name]
        return torch.frombuffer(self.data, dtype=torch.uint8, count=location.size, offset=location.start)

    def tensor(self, name: str) -> Tensor:
        """One tensor dequantized: float32, or float64 if stored so."""
        location = self.tensors[name]
        return location.type.dequantize(self.raw(name), location.shape)


@dataclass
class HeaderReader:
    """Parser of a header; `offset` is the position of the next byte."""

    path: Path
    data: mmap.mmap
    offset: int = 0

    def fail(self, reason: str) -> NoReturn:
        """Raise CorruptFile."""
        raise CorruptFile(f"{self.path}, {len(self.data):,} bytes: {reason}; copy it again")

    def advance(self, size: int, what: str) -> int:
        """Move past the next `size` bytes. Returns where they start."""
        start = self.offset
        if size > len(self.data) - start:
            self.fail(f"{what} of {size:,} bytes starts at byte {start:,}, and the file ends before its end")
        self.offset = start + size
        return start

    def read_scalar(self, code: str) -> Any:
        """A number. float32 is returned as the shortest decimal with its value: 1e-05, not 9.999999747378752e-06."""
        (value,) = struct.unpack_from("<" + code, self.data, self.advance(struct.calcsize("<" + code), "a number"))
        return float(str(np.float32(value))) if code == "f" else value

    def read_string(self, what: str) -> str:
        """A length and as many bytes of UTF-8."""
        length = self.read_scalar("Q")
        start = self.advance(length, what)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{what} at byte {start:,} is not UTF-8 ({error.reason})")

    def read_metadata(self, count: int) -> dict[str, Any]:
        """All metadata fields."""
        metadata: dict[str, Any] = {}
        self.check_count(count, MIN_FIELD_BYTES, "fields")
        for _ in range(count):
            key = self.read_string("the name of a field")
            if key in metadata:
                self.fail(f"the field {key[:60]!r} occurs twice")
            metadata[key] = self.read_value(self.read_scalar("I"), key, 0)
        return metadata

    def read_value(self, type: int, key: str, depth: int) -> Any:
        """A value of one of GGUF's types; arrays of numbers are returned as numpy arrays."""
        if type in SCALAR_TYPES:
            return self.read_scalar(SCALAR_TYPES[type])
        if type == STRING_TYPE:
            return self.read_string(f"the text of {key[:60]!r}")
        if type != ARRAY_TYPE:
            self.fail(f"the field {key[:60]!r} has type {type:,}, and GGUF has types 0 to 12")
        if depth == MAX_ARRAY_DEPTH:
            self.fail(f"the field {key[:60]!r} holds arrays nested {MAX_ARRAY_DEPTH + 1} deep")
        item_type, count = self.read_scalar("I"), self.read_scalar("Q")
        if item_type in SCALAR_TYPES:
            dtype = np.dtype(SCALAR_TYPES[item_type]).newbyteorder("<")
            start = self.advance(count * dtype.itemsize, f"the array {key[:60]!r}")
            return np.frombuffer(self.data, dtype, count, start).copy()
        self.check_count(count, MIN_STRING_BYTES, f"items of {key[:60]!r}")
        if item_type == STRING_TYPE:
            return list(self.read_strings(count, key))
        return [self.read_value(item_type, key, depth + 1) for _ in range(count)]

    def read_strings(self, count: int, key: str) -> Iterator[str]:
        """Consecutive strings, such as a vocabulary. Inlined for speed."""
        data, end, unpack_length = self.data, len(self.data), struct.Struct("<Q").unpack_from
        offset = self.offset
        for index in range(count):
            length = unpack_length(data, offset)[0] if offset + 8 <= end else end
            offset += 8
            if length > end - offset:
                self.fail(f"item {index:,} of {key[:60]!r} has {length:,} bytes, and the file ends before its end")
            try:
                yield data[offset : offset + length].decode("utf-8")
            except UnicodeDecodeError as error:
                self.fail(f"item {index:,} of {key[:60]!r} is not UTF-8 ({error.reason})")
            offset += length
        self.offset = offset

    def check_count(self, count: int, min_bytes: int, what: str) -> None:
        """Fail for a count of items, each of at least `min_bytes`, that exceed the rest of the file."""
        if count > (len(self.data) - self.offset) // min_bytes:
            self.fail(f"it claims {count:,} {what}, more than the rest of the file can hold")

    def read_tensors(self, count: int, metadata: dict[str, Any]) -> dict[str, TensorLocation]:
        """Every tensor's location, checked to lie within the file and not to overlap."""
        self.check_count(count, MIN_TENSOR_BYTES, "tensors")
        entries: dict[str, tuple[tuple[int, ...], QuantizationType, int, int]] = {}
        for _ in range(count):
            name = self.read_string("the name of a tensor")
            if name in entries:
                self.fail(f"the tensor {name[:60]!r} occurs twice")
            entries[name] = self.read_tensor(name)
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if alignment not in {2**power for power in range(3, 17)}:
            self.fail(
                f"general.alignment is {alignment!r}; it must be a power of two from {MIN_ALIGNMENT} to "
                f"{MAX_ALIGNMENT:,}"
            )
        data_start = -(-self.offset // alignment) * alignment
        locations: dict[str, TensorLocation] = {}
        end, previous = data_start, ""
        for name, (shape, type, offset, size) in sorted(entries.items(), key=lambda item: item[1][2]):
            start = data_start + offset
            if offset % alignment or start + size > len(self.data):
                self.fail(
                    f"the tensor {name[:60]!r} of {size:,} bytes starts at byte {start:,}, which is not aligned "
                    "or beyond "
                    "the end"
                )
            if start < end:
                self.fail(f"the tensors {previous[:60]!r} and {name[:60]!r} overlap")
            end, previous = start + size, name
            locations[name] = TensorLocation(shape, type, start, size)
        return {name: locations[name] for name in entries}

    def read_tensor(self, name: str) -> tuple[tuple[int, ...], QuantizationType, int, int]:
        """Shape, number format, offset and size in bytes of one tensor. GGUF stores dimensions in reverse order."""
        n_dimensions = self.read_scalar("I")
        if not 1 <= n_dimensions <= MAX_DIMENSIONS:
            self.fail(f"the tensor {name[:60]!r} has {n_dimensions:,} dimensions; supported: 1 to {MAX_DIMENSIONS}")
        shape = tuple(reversed([self.read_scalar("Q") for _ in range(n_dimensions)]))
        code = self.read_scalar("I")
        if code not in QUANTIZATION_TYPES:
            raise BadInput(f"{self.path} holds {name[:60]!r} in number format {code:,}; supported: {SUPPORTED_TYPES}")
        type = QUANTIZATION_TYPES[code]
        count = math.prod(shape)
        if count == 0 or count > 8 * len(self.data) * 32 or shape[-1] % type.block_size:
            self.fail(f"the tensor {name[:60]!r} has shape {list(shape)} in {type.name}, which is impossible")
        return shape, type, self.read_scalar("Q"), count // type.block_size * type.block_bytes
