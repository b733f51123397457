"""safetensors: weights of a folder in one file or in shards with an index, read as untrusted input.

Files are memory-mapped: data is read only when a tensor is used. Names and shapes come from the headers and are
compared with those of the model before any data is read.
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
"""Maximum size of one file: some disks and hosts hold no larger ones."""

MAX_INDEX_BYTES = 64 * 2**20

# Shards must be files of the same folder, whatever the index says.
SHARD_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors$")

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
INTEGERS = {"I64", "I32", "I16", "I8", "U8", "BOOL"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file: its file, name, shape and dtype."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> Tensor:
        """The tensor, from a separate memory map, which is released with the tensor.

        With one map for the whole file, GPT-2's file would stay in memory in addition to its transposed matrices (1.8
        times its size).
        """
        tensor: Tensor = open_safetensors(self.file).get_tensor(self.name)
        return tensor


@dataclass(frozen=True)
class ShardedWeights(Mapping[str, Tensor]):
    """The weights of a folder by name, read when accessed."""

    stored: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, folder: Path, auto_class: str = "") -> Self:
        """Read the headers of all files; `auto_class` is the Auto class of transformers, for the error message.

        Raises BadInput if the folder has no safetensors, CorruptFile if a file or the index is inconsistent.
        """
        if (folder / FILE).is_file():
            return cls(read_safetensors_header(folder / FILE))
        if not (folder / INDEX).is_file():
            raise BadInput(no_weights_message(folder, auto_class))
        weight_map = read_json(folder / INDEX, MAX_INDEX_BYTES).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
            raise CorruptFile(f"{folder / INDEX} has no 'weight_map' from names to files; copy the folder again")
        stored: dict[str, StoredTensor] = {}
        for shard in sorted(set(weight_map.values())):
            if not SHARD_NAME.match(shard):
                raise CorruptFile(
                    f"{folder / INDEX} names a shard {shard[:60]!r}, which is not a file of its own folder"
                )
            if not (folder / shard).is_file():
                raise CorruptFile(f"{folder / INDEX} names {shard}, which does not exist; copy the folder again")
            stored |= read_safetensors_header(folder / shard)
        if stored.keys() != weight_map.keys():
            odd = sorted(stored.keys() ^ weight_map.keys())[0]
            where = "in the files and not in the index" if odd in stored else "in the index and not in the files"
            raise CorruptFile(f"{odd} is {where} of {folder}; copy the folder again")
        return cls(stored)

    def add_prefix(self, prefix: str, exceptions: Iterable[str]) -> Self:
        """With `prefix` before every name but the exceptions, if no name has it (a model saved without its head)."""
        if not prefix or any(name.startswith(prefix) for name in self.stored):
            return self
        kept = set(exceptions)
        return replace(self, stored={(n if n in kept else prefix + n): each for n, each in self.stored.items()})

    def remove_prefix(self, prefix: str) -> Self:
        """With `prefix` removed from every name that has it."""
        return replace(self, stored={name.removeprefix(prefix): each for name, each in self.stored.items()})

    def rename(self, names: Mapping[str, str]) -> Self:
        """With some names replaced."""
        return replace(self, stored={names.get(name, name): each for name, each in self.stored.items()})

    def replace_suffixes(self, suffixes: Mapping[str, str]) -> Self:
        """With legacy suffixes of names replaced by the current ones."""
        stored = {next((n.removesuffix(old) + new for old, new in suffixes.items() if n.endswith(old)), n): each
                  for n, each in self.stored.items()}  # fmt: skip
        return replace(self, stored=stored)

    def __getitem__(self, name: str) -> Tensor:
        stored = self.stored[name]
        try:
            return stored.read()
        except (SafetensorError, OSError) as error:
            raise CorruptFile(f"{name} cannot be read ({error}); copy the folder again") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def open_safetensors(path: Path) -> Any:
    """A safetensors file, memory-mapped."""
    return safe_open(path, framework="pt", device="cpu")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file holds the address of a file in Git LFS, as in a repository that was cloned without it."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_safetensors_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name. The library checks lengths, offsets and overlaps; raises CorruptFile."""
    if is_lfs_pointer(path):
        raise CorruptFile(f"{path} is a Git LFS pointer, not the file itself; get the file with git lfs pull")
    try:
        file = open_safetensors(path)
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        return {n: StoredTensor(path, n, tuple(each.get_shape()), str(each.get_dtype())) for n, each in slices.items()}
    except (SafetensorError, OSError, UnicodeDecodeError, MemoryError) as error:
        raise CorruptFile(
            f"{path} of {path.stat().st_size:,} bytes is not a complete file ({error}); copy or save it again"
        ) from error


PICKLES_OF_TRAINING = ("training_args", "optimizer", "scheduler", "rng_state")
"""Beginnings of the names of pickles without weights, which transformers' trainer leaves in a folder."""

OTHER_FRAMEWORKS = ("tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.ckpt.index")

SHARD_NUMBER = re.compile(r"-\d{5}-of-\d{5}")


def no_weights_message(folder: Path, auto_class: str) -> str:
    """Why a folder without safetensors cannot be opened, and what to do."""
    if graphs := sorted(each.name for each in folder.glob("*.onnx")):
        return f"{folder} holds {graphs[0]}, an ONNX graph for onnxruntime; open the model it was exported from"
    others = sorted(each.name for each in folder.glob("*.safetensors"))
    if others and any(SHARD_NUMBER.search(each) for each in others):
        return f"{folder} holds {others[0]}, a part of the weights, and no {INDEX}; copy that file as well"
    if others:
        return (
            f"{folder} holds {others[0]}, and weights are read from {FILE}; copy that file as well, or rename "
            f"{others[0]} if it holds all weights under the names of transformers"
        )
    pickles = sorted(p.name for ending in ("*.bin", "*.pt*", "*.ckpt") for p in folder.glob(ending))
    pickles = [each for each in pickles if not each.startswith(PICKLES_OF_TRAINING)]
    if not pickles:
        weights = next((each for each in OTHER_FRAMEWORKS if (folder / each).is_file()), None)
        holds = "" if weights is None else f"{weights}, the weights for another framework, and "
        return f"{folder} holds {holds}no {FILE}; copy the whole folder"
    return (
        f"{folder} holds {pickles[0]}, a pickle, which can run code when it is opened, and no {FILE}; if you trust it, "
        "convert it once: "
        f'transformers.{auto_class or "AutoModel"}.from_pretrained("{folder}").save_pretrained("NEW"), '
        "and copy the tokenizer's files there"
    )


def write_weights(
    folder: Path, plan: Iterable[tuple[str, Tensor]], stream: Iterable[tuple[str, Tensor]], max_bytes: int = SHARD_BYTES
) -> None:
    """Write (name, tensor) pairs as they come, with at most one file's tensors in memory.

    `plan` is the same sequence on the meta device, which determines the number of files before the first is written.
    """
    groups: list[list[str]] = [[]]
    total = group_bytes = 0
    for name, empty in plan:
        size = empty.numel() * empty.element_size()
        if groups[-1] and group_bytes + size > max_bytes:
            groups.append([])
            group_bytes = 0
        groups[-1].append(name)
        group_bytes += size
        total += size
    count = len(groups)
    files = [FILE] if count == 1 else [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    pairs = iter(stream)
    for file, group in zip(files, groups, strict=True):
        tensors = dict(next(pairs) for _ in group)
        assert list(tensors) == group, "plan and stream must name the same tensors in the same order"
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            folder / file,
            {"format": "pt"},
        )
    if count > 1:
        weight_map = {name: file for file, group in zip(files, groups, strict=True) for name in group}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
