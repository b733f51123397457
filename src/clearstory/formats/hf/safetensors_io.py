"""Weights: safetensors, one file or several with an index, written in pieces and read without trust.

Files are mapped into memory, so opening costs what is looked at. Names and shapes are known from the header, and are
compared with what the model needs before any weight is touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clearstory.durable import write_json
from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.hf.config_json import read_json

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

SHARD_BYTES = 4 * 2**30
"""The largest single file, as transformers splits them: some disks and hosts hold no larger."""

MOST_INDEX_BYTES = 64 * 2**20

# A shard is a file of the same folder, whatever an index says.
SHARD_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INTEGERS = {"I64", "I32", "I16", "I8", "U8", "BOOL"}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor that lies in a file: which, under what name, how large, in what numbers."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Tensor:
        """The tensor, by a mapping of its own, which goes when nobody needs it any more: of GPT-2, whose matrices are
        turned as they are read, the file would otherwise stay in memory beside them (1.8 times its size).
        """
        tensor: Tensor = mapped(self.file).get_tensor(self.name)
        return tensor


@dataclass(frozen=True)
class ShardedWeights(Mapping[str, Tensor]):
    """The weights of a folder by name, read when asked for."""

    stored: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path, auto: str = "") -> Self:
        """The headers of all the folder's files; `auto` is what opens its class in transformers.

        Raises BadInput where there are none, CorruptFile where one lies.
        """
        if (folder / FILE).is_file():
            return cls(read_safetensors_header(folder / FILE))
        if not (folder / INDEX).is_file():
            raise BadInput(nothing_to_read(folder, auto))
        places = read_json(folder / INDEX, MOST_INDEX_BYTES).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
            raise CorruptFile(f"{folder / INDEX} holds no 'weight_map' of names to files; copy the folder anew")
        found: dict[str, StoredTensor] = {}
        for place in sorted(set(places.values())):
            if not SHARD_NAME.match(place):
                raise CorruptFile(f"{folder / INDEX} names a shard {place[:60]!r}, which is no file of its own folder")
            if not (folder / place).is_file():
                raise CorruptFile(f"{folder / INDEX} names {place}, and it is not there; copy the folder anew")
            found |= read_safetensors_header(folder / place)
        if found.keys() != places.keys():
            odd = sorted(found.keys() ^ places.keys())[0]
            where = "in the files and not in the index" if odd in found else "in the index and not in the files"
            raise CorruptFile(f"{odd} is {where} of {folder}; copy the folder anew")
        return cls(found)

    def under(self, prefix: str, outside: Iterable[str]) -> Self:
        """With a prefix put before every name, where the file leaves it out (a bare stack without its head)."""
        if not prefix or any(name.startswith(prefix) for name in self.stored):
            return self
        spared = set(outside)
        return replace(self, stored={(n if n in spared else prefix + n): each for n, each in self.stored.items()})

    def renamed(self, ends: Mapping[str, str]) -> Self:
        """With the ends of old names as they are now."""
        new = {next((n.removesuffix(old) + now for old, now in ends.items() if n.endswith(old)), n): each
               for n, each in self.stored.items()}  # fmt: skip
        return replace(self, stored=new)

    def __getitem__(self, name: str) -> Tensor:
        stored = self.stored[name]
        try:
            return stored.read()
        except (SafetensorError, OSError) as error:
            raise CorruptFile(f"{name} cannot be read ({error}); copy the folder anew") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def mapped(path: Path) -> Any:
    """A file, mapped into memory."""
    return safe_open(path, framework="pt", device="cpu")


def read_safetensors_header(path: Path) -> dict[str, StoredTensor]:
    """What one file holds. The library checks lengths, offsets and overlaps against the file's size; we say it."""
    try:
        file = mapped(path)
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        return {n: StoredTensor(path, n, tuple(part.get_shape()), str(part.get_dtype())) for n, part in parts.items()}
    except (SafetensorError, OSError, UnicodeDecodeError, MemoryError) as error:
        raise CorruptFile(
            f"{path} with its {path.stat().st_size:,} bytes is not whole ({error}); copy or save it anew"
        ) from error


def nothing_to_read(folder: Path, auto: str) -> str:
    """Why a folder without safetensors cannot be opened, and the way out."""
    if graphs := sorted(each.name for each in folder.glob("*.onnx")):
        return f"{folder} holds {graphs[0]}, which onnxruntime runs; here, open the model that it was drawn from"
    pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt*"))
    if not pickles:
        return f"{folder} holds no {FILE}; copy the whole folder"
    return (
        f"{folder} holds {pickles[0]}, which can run code when it is opened, and no {FILE}; where you trust it, "
        f'convert it once: transformers.{auto or "AutoModel"}.from_pretrained("{folder}").save_pretrained("NEW"), '
        "and copy the tokenizer's files there"
    )


def write_weights(
    folder: Path, plan: Iterable[tuple[str, Tensor]], stream: Iterable[tuple[str, Tensor]], limit: int = SHARD_BYTES
) -> None:
    """Write tensors as they come, never more than one file's worth held at a time.

    `plan` is the same stream over empty (meta) tensors: from it the number of files is known before the first is begun.
    """
    groups: list[list[str]] = [[]]
    total = room = 0
    for name, empty in plan:
        size = empty.numel() * empty.element_size()
        if groups[-1] and room + size > limit:
            groups.append([])
            room = 0
        groups[-1].append(name)
        room += size
        total += size
    count = len(groups)
    names = [FILE] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    coming = iter(stream)
    for file, group in zip(names, groups, strict=True):
        held = dict(next(coming) for _ in group)
        assert list(held) == group, "plan and stream must name the same tensors in the same order"
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in held.items()}, folder / file, {"format": "pt"}
        )
    if count > 1:
        places = {name: file for file, group in zip(names, groups, strict=True) for name in group}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
