"""StreamDecoder: ids to text as they are generated, without partial characters or partial stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

CONTEXT_TOKENS = 8
"""Tokens decoded again before each new one: the following token may change how a word is joined to the previous one."""


class BytesDecoder(Protocol):
    """The part of a tokenizer that a StreamDecoder needs."""

    def decode_bytes(self, ids: Sequence[int], /) -> bytes:
        """The bytes of the text of these ids."""


class StreamDecoder:
    """Turns ids into text one by one. Text that may be the beginning of a stop string is held back until it is decided.

    Bytes that are not UTF-8 become U+FFFD, as in `bytes.decode(errors="replace")`; those of an incomplete character are
    held back. The pieces from `push` and `flush` joined together are the text; `stopped` says whether a stop string
    ended it, `new_bytes` which bytes the last id added.

    >>> class Bytes:
    ...     def decode_bytes(self, ids):
    ...         return bytes(ids)
    >>> decoder = StreamDecoder(Bytes(), stop=("END",))
    >>> [decoder.push(id) for id in "né E".encode()], decoder.push(ord("N")), decoder.flush()
    (['n', '', 'é', ' ', ''], '', 'EN')
    """

    def __init__(self, tokenizer: BytesDecoder, stop: Sequence[str] = (), prompt_ids: Sequence[int] = ()) -> None:
        """`prompt_ids`: the first piece is joined to the prompt as the tokenizer joins words."""
        self.tokenizer = tokenizer
        self.stop = tuple(text for text in stop if text)
        self.recent_ids = list(prompt_ids[-CONTEXT_TOKENS:])
        self.utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self.held_back = ""
        self.stopped = False
        self.new_bytes = b""

    def push(self, id: int) -> str:
        """The text that is final after this id; nothing after a stop string."""
        if self.stopped:
            return ""
        before = self.tokenizer.decode_bytes(self.recent_ids)
        self.recent_ids.append(id)
        after = self.tokenizer.decode_bytes(self.recent_ids)
        del self.recent_ids[:-CONTEXT_TOKENS]
        # Where a token changes the text before it (few tokenizers do), only its own bytes are taken.
        self.new_bytes = after[len(before) :] if after.startswith(before) else self.tokenizer.decode_bytes([id])
        return self._release(self.utf8.decode(self.new_bytes))

    def flush(self) -> str:
        """The text that is still held back, at the end of the ids."""
        if self.stopped:
            return ""
        text = self._release(self.utf8.decode(b"", final=True)) + ("" if self.stopped else self.held_back)
        self.held_back = ""
        return text

    def _release(self, text: str) -> str:
        """Add new text; return all before a stop string, or before what may be the beginning of one."""
        self.held_back += text
        found = [index for index in (self.held_back.find(stop) for stop in self.stop) if index >= 0]
        if found:
            self.stopped = True
            released, self.held_back = self.held_back[: min(found)], ""
            return released
        overlap = max((overlap_length(self.held_back, stop) for stop in self.stop), default=0)
        cut = len(self.held_back) - overlap
        released, self.held_back = self.held_back[:cut], self.held_back[cut:]
        return released


def overlap_length(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `stop`, but not all of it.

    >>> overlap_length("a ##", "###")
    2
    """
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
