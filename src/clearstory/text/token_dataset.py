"""Token datasets: the ids of documents as one array, in memory or memory-mapped from a folder.

Each document ends with one end-of-text token, the tokenizer's eos. If that token also represents a line feed (word
tokenizers), the line feed that ends a document is its end token: no second one is added.

On disk, each split has NAME.ids (uint16 or uint32), NAME.starts and NAME.bytes (int64), and an entry in dataset.json
with the expected sizes. A split whose files do not have these sizes is not opened.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clearstory.text.document import Document
from clearstory.text.segment_encoding import Ids
from clearstory.text.tokenizers import Tokenizer

INDEX = "dataset.json"

# Characters encoded per call: enough parallel work; the library needs about 100 bytes for each.
BATCH = 1 << 19


@dataclass(frozen=True, eq=False)
class TokenDataset:
    """Token ids of D documents, concatenated. N tokens, V vocabulary.

    `ids` (N,) may be memory-mapped; document d is `ids[starts[d]:starts[d + 1]]`, with `starts` of shape (D + 1,),
    and ends with the tokenizer's eos token. `document_bytes` (D,) is the size of each document's text in UTF-8 bytes,
    `byte_lengths` (V,) the number of bytes of each id. The two do not always agree: see `byte_attribution`.
    """

    ids: Ids
    starts: npt.NDArray[np.int64]
    byte_lengths: npt.NDArray[np.int64]
    document_bytes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Number of tokens, end-of-document tokens included."""
        return len(self.ids)

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.starts) - 1

    @property
    def text_bytes(self) -> int:
        """Size of the text in UTF-8 bytes, by which bits per byte divide."""
        return int(self.document_bytes.sum())

    @cached_property
    def bytes(self) -> int:
        """Number of UTF-8 bytes of the ids, summed over ids."""
        counts = np.zeros(len(self.byte_lengths), dtype=np.int64)
        for start in range(0, len(self.ids), BATCH):  # bincount widens the ids to eight bytes
            counts += np.bincount(self.ids[start : start + BATCH], minlength=len(counts))
        return int(counts @ self.byte_lengths)

    def subsample(self, limit: int) -> TokenDataset:
        """Documents spread evenly over the dataset, with about `limit` tokens in total, since the first documents can
        be easier.

        Returns self if it has no more than `limit` tokens or a single document.
        """
        if limit >= len(self) or self.documents == 1:
            return self
        chosen = np.unique(np.arange(0, self.documents, len(self) / max(1, limit)).astype(np.int64))
        parts = [np.asarray(self.ids[self.starts[d] : self.starts[d + 1]]) for d in chosen]
        ids = np.concatenate(parts)
        starts = np.cumsum([0, *map(len, parts)]).astype(np.int64)
        return TokenDataset(ids, starts, self.byte_lengths, self.document_bytes[chosen])


def encode_text(tokenizer: Tokenizer, texts: Iterable[str]) -> TokenDataset:
    """Token ids of texts, one document each, in memory.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> dataset = encode_text(train_tokenizer("bytes", []), ["Hi", "!"])
    >>> dataset.ids.tolist(), dataset.starts.tolist(), dataset.bytes
    ([72, 105, 256, 33, 256], [0, 3, 5], 3)
    """
    return encode_documents(tokenizer, (Document(str(number), text) for number, text in enumerate(texts)))


def encode_documents(tokenizer: Tokenizer, documents: Iterable[Document], append_eos: bool = True) -> TokenDataset:
    """Token ids of documents, in memory; the parts of a document are joined.

    `append_eos`: whether each document that ends is followed by the tokenizer's eos token.
    """
    encoding = _DocumentEncoder(tokenizer, append_eos)
    ids = np.concatenate(list(encoding.blocks(documents)))
    starts, sizes = np.array(encoding.starts, np.int64), np.array(encoding.sizes, np.int64)
    return TokenDataset(ids, starts, tokenizer.byte_lengths, sizes)


def write_datasets(
    folder: Path,
    tokenizer: Tokenizer,
    splits: Iterable[tuple[str, Iterable[Document]]],
    append_eos: bool = True,
) -> int:
    """Encode the splits into a folder, a few megabytes of text at a time; returns the number of bytes of text read.

    `append_eos`: whether each document that ends is followed by the eos token.
    """
    index: dict[str, dict[str, int]] = {}
    for name, documents in splits:
        encoding = _DocumentEncoder(tokenizer, append_eos)
        with (folder / f"{name}.ids").open("wb") as file:
            for block in encoding.blocks(documents):
                file.write(block.tobytes())
        starts, sizes = encoding.starts, encoding.sizes
        (folder / f"{name}.starts").write_bytes(starts.tobytes())
        (folder / f"{name}.bytes").write_bytes(sizes.tobytes())
        index[name] = {"tokens": starts[-1], "documents": len(sizes), "text_bytes": sum(sizes)}
    (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    return sum(split["text_bytes"] for split in index.values())


def open_datasets(folder: Path, tokenizer: Tokenizer) -> dict[str, TokenDataset] | None:
    """The splits written by `write_datasets`, memory-mapped; None if files are missing or have the wrong size."""
    dtype = tokenizer.id_dtype
    try:
        index = json.loads((folder / INDEX).read_bytes())
        splits = {}
        for name, expected in index.items():
            starts = np.frombuffer((folder / f"{name}.starts").read_bytes(), dtype=np.int64)
            sizes = np.frombuffer((folder / f"{name}.bytes").read_bytes(), dtype=np.int64)
            file = folder / f"{name}.ids"
            tokens = expected["tokens"]
            whole = file.stat().st_size == tokens * dtype.itemsize
            if not whole or len(starts) != expected["documents"] + 1 or starts[0] != 0 or starts[-1] != tokens:
                return None
            if len(sizes) != expected["documents"] or sizes.sum() != expected["text_bytes"]:
                return None
            # An empty file cannot be memory-mapped.
            ids = np.memmap(file, dtype=dtype, mode="r") if tokens else np.empty(0, dtype=dtype)
            splits[name] = TokenDataset(ids, starts, tokenizer.byte_lengths, sizes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return splits


class _DocumentEncoder:
    """Encodes documents block by block and accumulates their starts and their sizes in bytes."""

    def __init__(self, tokenizer: Tokenizer, append_eos: bool = True) -> None:
        self.starts = array("q")
        self.sizes = array("q")
        self._tokenizer = tokenizer
        ending = [tokenizer.eos_token_id] if append_eos and tokenizer.eos_token_id is not None else []
        self._ending: Ids = np.array(ending, tokenizer.id_dtype)
        self._ended = False  # whether nothing is to follow the text: it was cut, or its last line feed is the end token

    def blocks(self, documents: Iterable[Document]) -> Iterator[Ids]:
        """Arrays of ids, each document followed by eos."""
        total = 0
        for batch in _batches(documents):
            ids: list[Ids] = []
            for document, encoded in zip(batch, self._tokenizer.encode_arrays(_texts(batch)), strict=True):
                if document.part == 0:
                    ending = self._end_of_document()
                    ids.append(ending)
                    total += len(ending)
                    self.starts.append(total)
                    self.sizes.append(0)
                ids.append(encoded)
                total += len(encoded)
                self.sizes[-1] += document.n_bytes
                if document.text:
                    self._ended = self._tokenizer.eos_ends_lines and document.text.endswith("\n")
                self._ended |= not document.ends
            yield np.concatenate(ids)
        ending = self._end_of_document()
        yield ending
        self.starts.append(total + len(ending))

    def _end_of_document(self) -> Ids:
        """What follows the last document read."""
        ended, self._ended = self._ended, False
        return self._ending if self.starts and not ended else self._ending[:0]


def _texts(documents: Iterable[Document]) -> list[str]:
    return [document.text for document in documents]


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text) + 1  # so that empty documents fill a batch too
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
