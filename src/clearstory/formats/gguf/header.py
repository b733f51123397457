"""GGUF headers: what a file says of itself, read without trust and without allocating what it merely claims.

    "GGUF"  version  tensors  fields │ key type value … │ name shape kind offset … │ padding │ numbers

The `gguf` package reads the same, one numpy array a string: 7 s for the 98,000 strings of SmolLM2's tokenizer where
this takes a fifth of one, and a length of 2⁶⁰ it takes at its word. So the header is read here, each length compared
with the bytes that are left, and the package serves for numbers and for writing.
"""

from __future__ import annotations

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

SCALARS: dict[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's types of values, as struct and numpy name them."""

STRING, LIST = 8, 9

MOST_DEPTH = 3
"""Lists within lists; real files have none."""

MOST_SIDES = 4
LEAST_ALIGNMENT, MOST_ALIGNMENT, USUAL_ALIGNMENT = 8, 2**16, 32


@dataclass(frozen=True)
class TensorLocation:
    """A tensor in a file: its shape as torch says it, how its numbers are written, and where they lie."""

    shape: tuple[int, ...]
    kind: QuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class GGUFHeader:
    """A file's fields and tensors. Nothing of its numbers is read until `raw` is asked for one tensor's."""

    path: Path
    fields: dict[str, Any] = field(repr=False)
    tensors: dict[str, TensorLocation] = field(repr=False)
    data: mmap.mmap = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> GGUFHeader:
        """Raises BadInput for another kind of file, CorruptFile with the place and the reason for one that lies."""
        size = path.stat().st_size
        if size < 24:
            raise CorruptFile(f"{path} has {size:,} bytes, and a GGUF file's header alone has 24; copy it anew")
        with path.open("rb") as file:
            # A private copy: changed weights leave the file as it is, and only pages that are looked at are read.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        reader = HeaderReader(path, data)
        if data[:4] != MAGIC:
            raise BadInput(
                f"{path} begins with {data[:4]!r}, and a GGUF file with {MAGIC!r}; it is another kind of file"
            )
        reader.at = 4
        version = reader.scalar("I")
        if version not in VERSIONS:
            order = " (it may have been written for a big-endian machine)" if version & 0xFFFF == 0 else ""
            raise BadInput(
                f"{path} is of GGUF version {version:,}{order}; this house reads {VERSIONS[0]} and {VERSIONS[1]}"
            )
        tensors, fields = reader.scalar("Q"), reader.scalar("Q")
        found = reader.fields(fields)
        return cls(path, found, reader.tensors(tensors, found), data)

    def raw(self, name: str) -> Tensor:
        """One tensor's bytes, mapped and not copied."""
        placed = self.tensors[name]
        return torch.frombuffer(self.data, dtype=torch.uint8, count=placed.size, offset=placed.start)

    def numbers(self, name: str) -> Tensor:
        """One tensor's numbers: float32, or float64 where they are."""
        placed = self.tensors[name]
        return placed.kind.numbers(self.raw(name), placed.shape)


@dataclass
class HeaderReader:
    """A file while it is read."""

    path: Path
    data: mmap.mmap
    at: int = 0

    def wrong(self, reason: str) -> NoReturn:
        """The one sentence."""
        raise CorruptFile(f"{self.path}, {len(self.data):,} bytes: {reason}; copy it anew")

    def take(self, size: int, what: str) -> int:
        """The place of the next `size` bytes, and on past them."""
        start = self.at
        if size > len(self.data) - start:
            self.wrong(f"at byte {start:,} {what} of {size:,} bytes begins, and the file ends before it does")
        self.at = start + size
        return start

    def scalar(self, code: str) -> Any:
        """A number. float32 comes as the shortest decimal that means it: 1e-05, not 9.999999747378752e-06."""
        (value,) = struct.unpack_from("<" + code, self.data, self.take(struct.calcsize("<" + code), "a number"))
        return float(str(np.float32(value))) if code == "f" else value

    def string(self, what: str) -> str:
        """A length and as many bytes of UTF-8."""
        length = self.scalar("Q")
        start = self.take(length, what)
        try:
            return self.data[start : start + length].decode("utf-8")
        except UnicodeDecodeError as error:
            self.wrong(f"at byte {start:,} {what} is not UTF-8 ({error.reason})")

    def fields(self, count: int) -> dict[str, Any]:
        """All keys with their values."""
        found: dict[str, Any] = {}
        # Each takes thirteen bytes at least, so the file's size bounds a count that lies.
        self.check_count(count, 13, "fields")
        for _ in range(count):
            key = self.string("the name of a field")
            if key in found:
                self.wrong(f"the field {key[:60]!r} stands in it twice")
            found[key] = self.value(self.scalar("I"), key, 0)
        return found

    def value(self, kind: int, key: str, depth: int) -> Any:
        """A value of one of GGUF's types; numbers in a list come as a numpy array."""
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.string(f"the text of {key[:60]!r}")
        if kind != LIST:
            self.wrong(f"the field {key[:60]!r} is of type {kind:,}, and GGUF has 0 to 12")
        if depth == MOST_DEPTH:
            self.wrong(f"the field {key[:60]!r} holds lists in lists {MOST_DEPTH + 1} deep")
        inner, count = self.scalar("I"), self.scalar("Q")
        if inner in SCALARS:
            numbers = np.dtype(SCALARS[inner]).newbyteorder("<")
            start = self.take(count * numbers.itemsize, f"the list {key[:60]!r}")
            return np.frombuffer(self.data, numbers, count, start).copy()
        self.check_count(count, 8, f"items of {key[:60]!r}")
        if inner == STRING:
            return list(self.strings(count, key))
        return [self.value(inner, key, depth + 1) for _ in range(count)]

    def strings(self, count: int, key: str) -> Iterator[str]:
        """Many texts one after another: the vocabulary, in as few steps as Python allows."""
        data, end, length_of = self.data, len(self.data), struct.Struct("<Q").unpack_from
        at = self.at
        for number in range(count):
            length = length_of(data, at)[0] if at + 8 <= end else end
            at += 8
            if length > end - at:
                self.wrong(
                    f"item {number:,} of {key[:60]!r} is said to have {length:,} bytes, and the file ends before"
                )
            try:
                yield data[at : at + length].decode("utf-8")
            except UnicodeDecodeError as error:
                self.wrong(f"item {number:,} of {key[:60]!r} is not UTF-8 ({error.reason})")
            at += length
        self.at = at

    def check_count(self, count: int, least: int, what: str) -> None:
        """Refuse a count of things that could not lie in the rest of the file."""
        if count > (len(self.data) - self.at) // least:
            self.wrong(f"it says it has {count:,} {what}, more than the rest of it could hold")

    def tensors(self, count: int, fields: dict[str, Any]) -> dict[str, TensorLocation]:
        """Where each tensor lies: within the file, and over no other."""
        self.check_count(count, 28, "tensors")
        said: dict[str, tuple[tuple[int, ...], QuantizationType, int, int]] = {}
        for _ in range(count):
            name = self.string("the name of a tensor")
            if name in said:
                self.wrong(f"the tensor {name[:60]!r} stands in it twice")
            said[name] = self.tensor(name)
        alignment = fields.get("general.alignment", USUAL_ALIGNMENT)
        if alignment not in {2**power for power in range(3, 17)}:
            self.wrong(
                f"general.alignment is {alignment!r}, and it must be a power of two from {LEAST_ALIGNMENT} "
                f"to {MOST_ALIGNMENT:,}"
            )
        begin = -(-self.at // alignment) * alignment
        found: dict[str, TensorLocation] = {}
        end, before = begin, ""
        for name, (shape, kind, offset, size) in sorted(said.items(), key=lambda item: item[1][2]):
            start = begin + offset
            if offset % alignment or start + size > len(self.data):
                self.wrong(f"the tensor {name[:60]!r} of {size:,} bytes is said to begin at {start:,}, where it cannot")
            if start < end:
                self.wrong(f"the tensors {before[:60]!r} and {name[:60]!r} overlap")
            end, before = start + size, name
            found[name] = TensorLocation(shape, kind, start, size)
        return {name: found[name] for name in said}

    def tensor(self, name: str) -> tuple[tuple[int, ...], QuantizationType, int, int]:
        """Shape, kind, offset and size of one. GGUF names the fastest side first, torch last."""
        sides = self.scalar("I")
        if not 1 <= sides <= MOST_SIDES:
            self.wrong(f"the tensor {name[:60]!r} has {sides:,} sides, and GGUF's have 1 to {MOST_SIDES}")
        shape = tuple(reversed([self.scalar("Q") for _ in range(sides)]))
        code = self.scalar("I")
        if code not in QUANTIZATION_TYPES:
            raise BadInput(f"{self.path} holds {name[:60]!r} in numbers of kind {code:,}; this house reads {SUPPORTED_TYPES}")
        kind = QUANTIZATION_TYPES[code]
        count = 1
        for side in shape:
            count *= side
        if count == 0 or count > 8 * len(self.data) * 32 or shape[-1] % kind.block:
            self.wrong(f"the tensor {name[:60]!r} is said to be of shape {list(shape)} in {kind.name}, which cannot be")
        return shape, kind, self.scalar("Q"), count // kind.block * kind.bytes
