"""Token rows: documents as one long row of ids, in memory or mapped from a folder on disk.

On disk, each split is three things: NAME.ids (the ids, uint16 or uint32), NAME.starts (int64), and its line in
rows.json, which says how long both must be. Rows that do not measure up are not opened.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clearstory.text.documents import Document
from clearstory.text.tokenizers import Tokenizer

Ids = npt.NDArray[np.unsignedinteger[Any]]  # uint16 or uint32

INDEX = "rows.json"

# Characters encoded at once: enough parts for every core, while the library takes some 70 bytes for each token.
BATCH = 1 << 22


@dataclass(frozen=True, eq=False)
class TokenDataset:
    """The ids of documents, one behind the other. N tokens, D documents, V vocabulary.

    `ids` (N,) may be mapped from disk; document d is `ids[starts[d]:starts[d + 1]]`, `starts` being (D + 1,). Where
    there are several documents, each ends with the tokenizer's eos. `byte_lengths` (V,) says how many bytes of text
    an id stands for, `text_bytes` how many bytes were encoded: more than `bytes` if the tokenizer loses some.
    """

    ids: Ids
    starts: npt.NDArray[np.int64]
    byte_lengths: npt.NDArray[np.int64]
    text_bytes: int

    def __len__(self) -> int:
        """Tokens, those between documents included."""
        return len(self.ids)

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.starts) - 1

    @cached_property
    def bytes(self) -> int:
        """How many bytes of text the ids stand for."""
        counts = np.zeros(len(self.byte_lengths), dtype=np.int64)
        for start in range(0, len(self.ids), BATCH):  # counting widens the ids to eight bytes
            counts += np.bincount(self.ids[start : start + BATCH], minlength=len(counts))
        return int(counts @ self.byte_lengths)

    def subsample(self, limit: int) -> TokenDataset:
        """Documents from all over, of about `limit` tokens together: its first ones alone may be easier than the rest.

        Itself where it has no more tokens, or is a single document.
        """
        if limit >= len(self) or self.documents == 1:
            return self
        chosen = np.unique(np.arange(0, self.documents, len(self) / max(1, limit)).astype(np.int64))
        parts = [np.asarray(self.ids[self.starts[d] : self.starts[d + 1]]) for d in chosen]
        ids = np.concatenate(parts)
        starts = np.cumsum([0, *map(len, parts)]).astype(np.int64)
        return TokenDataset(ids, starts, self.byte_lengths, int(self.byte_lengths[ids].sum()))


def encode_text(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenDataset:
    """The ids of texts, each a document of its own, in memory.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> rows = encode_text(train_tokenizer("bytes", []), ["Hi", "!"])
    >>> rows.ids.tolist(), rows.starts.tolist(), rows.bytes
    ([72, 105, 256, 33, 256], [0, 3, 5], 3)
    """
    return encode_documents(tokenizer, (Document(str(number), text) for number, text in enumerate(texts)))


def encode_documents(
    tokenizer: Tokenizer, documents: Iterable[Document], multiple_documents: bool = False, append_eos: bool = True
) -> TokenDataset:
    """The ids of documents, in memory; a document's parts are put together again.

    Each document ends with the tokenizer's eos, if it has one and there are several documents. `several` says that
    there are more of them elsewhere, and `endings` whether that token is written at all.
    """
    encoding = _DocumentEncoder(tokenizer, multiple_documents, append_eos)
    blocks = list(encoding.blocks(documents))
    ids = np.concatenate(blocks) if blocks else np.empty(0, dtype=id_dtype(tokenizer))
    return TokenDataset(ids, np.array(encoding.starts, np.int64), tokenizer.byte_lengths, encoding.text_bytes)


def write_datasets(
    folder: Path,
    tokenizer: Tokenizer,
    splits: Iterable[tuple[str, Iterable[Document]]],
    multiple_documents: bool,
    append_eos: bool = True,
) -> int:
    """Encode the splits into a folder, a few megabytes of text at a time; returns the bytes of text read.

    endings: whether each document ends with eos, where there are several.
    """
    index: dict[str, dict[str, int]] = {}
    for name, documents in splits:
        encoding = _DocumentEncoder(tokenizer, multiple_documents, append_eos)
        with (folder / f"{name}.ids").open("wb") as file:
            for block in encoding.blocks(documents):
                file.write(block.tobytes())
        starts = encoding.starts
        (folder / f"{name}.starts").write_bytes(starts.tobytes())
        index[name] = {"tokens": starts[-1], "documents": len(starts) - 1, "text_bytes": encoding.text_bytes}
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    return sum(split["text_bytes"] for split in index.values())


def open_datasets(folder: Path, tokenizer: Tokenizer) -> dict[str, TokenDataset] | None:
    """What write_datasets wrote, mapped; None where it is missing or does not measure up."""
    kind = id_dtype(tokenizer)
    try:
        index = json.loads((folder / INDEX).read_bytes())
        splits = {}
        for name, said in index.items():
            starts = np.frombuffer((folder / f"{name}.starts").read_bytes(), dtype=np.int64)
            file = folder / f"{name}.ids"
            tokens = said["tokens"]
            whole = file.stat().st_size == tokens * kind.itemsize
            if not whole or len(starts) != said["documents"] + 1 or starts[0] != 0 or starts[-1] != tokens:
                return None
            # An empty file cannot be mapped.
            ids = np.memmap(file, dtype=kind, mode="r") if tokens else np.empty(0, dtype=kind)
            splits[name] = TokenDataset(ids, starts, tokenizer.byte_lengths, int(said["text_bytes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return splits


def id_dtype(tokenizer: Tokenizer) -> np.dtype[np.unsignedinteger[Any]]:
    """The smaller of two types that holds every id."""
    return np.dtype(np.uint16 if tokenizer.vocab <= 1 << 16 else np.uint32)


class _DocumentEncoder:
    """Encodes documents block by block, and keeps what is known only at the end: starts and bytes."""

    def __init__(self, tokenizer: Tokenizer, multiple_documents: bool, append_eos: bool = True) -> None:
        self.starts = array("q")
        self.text_bytes = 0
        self._tokenizer = tokenizer
        self._several = multiple_documents
        self._ending = [tokenizer.eos_token_id] if append_eos and tokenizer.eos_token_id is not None else []

    def blocks(self, documents: Iterable[Document]) -> Iterator[Ids]:
        """The ids, each document's followed by eos where there are several."""
        kind = id_dtype(self._tokenizer)
        total = 0
        for batch in _batches(documents):
            ids: list[int] = []
            for document, encoded in zip(batch, self._tokenizer.encode_batch(_texts(batch)), strict=True):
                if document.part == 0:
                    if self.starts:
                        ids += self._ending
                    self.starts.append(total + len(ids))
                ids += encoded
                self.text_bytes += len(document.text.encode())
            total += len(ids)
            yield np.array(ids, dtype=kind)
        if self.starts and (self._several or len(self.starts) > 1):
            total += len(self._ending)
            yield np.array(self._ending, dtype=kind)
        self.starts.append(total)


def _texts(documents: Iterable[Document]) -> list[str]:
    return [document.text for document in documents]


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text) + 1  # so that empty documents end a batch too
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
