"""Number of bytes of text of a range of tokens, such that the ranges of a document add up to its bytes.

Bits per byte divide by the bytes that were read. The bytes of the tokens do not always add up to them: a tokenizer that
adds a space before each text has one byte too many, a space encoded as byte tokens counts as three, and white space
between words can have no token. Then the bytes of the document are divided among its tokens in proportion to the
tokens' own bytes, or equally if they have none.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

BLOCK = 1 << 12
"""Number of tokens between two stored sums."""


class TokenSequences(Protocol):
    """Documents in one array of ids: document d is ids[starts[d]:starts[d + 1]]."""

    @property
    def ids(self) -> Any:
        """Token ids of all documents, (N,)."""

    @property
    def starts(self) -> Any:
        """Index of each document's first token, and N, (D + 1,)."""

    @property
    def byte_lengths(self) -> Any:
        """Number of bytes of text of each token of the vocabulary, (V,)."""

    @property
    def document_bytes(self) -> Any:
        """Bytes of each document's text, (D,)."""


class ByteAttribution:
    """Divides the bytes of documents among their tokens.

    >>> from types import SimpleNamespace
    >>> dataset = SimpleNamespace(ids=[0, 1, 1], starts=[0, 3], byte_lengths=[0, 1], document_bytes=[7])
    >>> bytes_of = ByteAttribution(dataset)
    >>> bytes_of(0, 2), bytes_of(2, 3), bytes_of(0, 3)
    (3, 4, 7)
    """

    def __init__(self, dataset: TokenSequences) -> None:
        self.ids = np.asanyarray(dataset.ids)
        self.starts = np.asarray(dataset.starts, np.int64)
        self.byte_lengths = np.asarray(dataset.byte_lengths, np.int64)
        self.document_bytes = np.asarray(dataset.document_bytes, np.int64)
        sums = [
            int(self.byte_lengths[self.ids[start : start + BLOCK]].sum()) for start in range(0, len(self.ids), BLOCK)
        ]
        self.sums_before_block = np.concatenate([[0], np.cumsum(sums, dtype=np.int64)])
        # The document asked for last: its number, the tokens' own bytes before it and in it.
        self.measured, self.before, self.own = -1, 0, 0

    def __call__(self, start: int, stop: int) -> int:
        """Bytes of tokens start:stop, which lie within one document. Adjacent ranges add up to the larger range."""
        if start >= stop:
            return 0
        document = int(self.starts.searchsorted(start, side="right")) - 1
        first, end, n_bytes = int(self.starts[document]), int(self.starts[document + 1]), self.document_bytes[document]
        if (start, stop) == (first, end):
            return int(n_bytes)
        if self.measured != document:
            self.measured, self.before = document, self.token_bytes_before(first)
            self.own = self.token_bytes_before(end) - self.before
        n_bytes, own = int(n_bytes), self.own
        if own == n_bytes:
            return self.token_bytes_before(stop) - self.token_bytes_before(start)
        if not own:
            return n_bytes * (stop - first) // (end - first) - n_bytes * (start - first) // (end - first)
        left, right = (self.token_bytes_before(at) - self.before for at in (start, stop))
        return n_bytes * right // own - n_bytes * left // own

    def token_bytes_before(self, position: int) -> int:
        """Number of bytes of the tokens before a position of the dataset, summed over tokens."""
        block = position // BLOCK
        rest = self.ids[block * BLOCK : position]
        return int(self.sums_before_block[block]) + int(self.byte_lengths[rest].sum())


def attributed_sizes(dataset: TokenSequences) -> Floats:
    """Bytes of each token, (N,), whole numbers: those of a document add up to the bytes that were read."""
    starts = np.asarray(dataset.starts, np.int64)
    counts = np.diff(starts)
    sizes = np.asarray(dataset.byte_lengths, np.int64)[np.asarray(dataset.ids)]
    sums = np.concatenate([[0], np.cumsum(sizes)])
    without = np.repeat(sums[starts[1:]] == sums[starts[:-1]], counts)  # tokens of documents whose tokens have no bytes
    sums = np.concatenate([[0], np.cumsum(np.where(without, 1, sizes))])
    own = np.repeat(np.diff(sums[starts]), counts)
    n_bytes = np.repeat(np.asarray(dataset.document_bytes, np.int64), counts)
    first = np.repeat(sums[starts[:-1]], counts)
    shares = n_bytes * (sums[1:] - first) // own - n_bytes * (sums[:-1] - first) // own
    sizes_read: Floats = shares.astype(np.float64)
    return sizes_read
