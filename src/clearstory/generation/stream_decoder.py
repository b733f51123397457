"""Writer: from ids to text, piece by piece, never half a character and never part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

LOOK_BACK = 8
"""Tokens decoded again before each new one: what follows may change how a word is joined to the one before it."""


class Decodes(Protocol):
    """The part of a tokenizer that a Writer needs."""

    def decode_bytes(self, ids: Sequence[int], /) -> bytes:
        """The bytes these ids spell."""


class StreamDecoder:
    """Turns ids into text as they come. Text that may yet become a stop string is held back until that is settled.

    Bytes that are no UTF-8 become U+FFFD, as in `bytes.decode(errors="replace")`; those of a character that is not
    finished are held back. The pieces from `write` and `close` joined together are the text; `stopped` says whether a
    stop string ended it.

    >>> class Bytes:
    ...     def decode_bytes(self, ids):
    ...         return bytes(ids)
    >>> writer = Writer(Bytes(), stop=("END",))
    >>> [writer.write(id) for id in "né E".encode()], writer.write(ord("N")), writer.close()
    (['n', '', 'é', ' ', ''], '', 'EN')
    """

    def __init__(self, tokenizer: Decodes, stop: Sequence[str] = (), after: Sequence[int] = ()) -> None:
        """`after`: the prompt's ids, so that the first piece is joined to it as the tokenizer joins words."""
        self.tokenizer = tokenizer
        self.stop = tuple(text for text in stop if text)
        self.recent = list(after[-LOOK_BACK:])
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held = ""
        self.stopped = False

    def write(self, id: int) -> str:
        """The text that is certain now that this id has come. Nothing more comes once a stop string has."""
        if self.stopped:
            return ""
        before = self.tokenizer.decode_bytes(self.recent)
        self.recent.append(id)
        now = self.tokenizer.decode_bytes(self.recent)
        del self.recent[:-LOOK_BACK]
        # A tokenizer that rewrites what stood before (few do) only has its new end taken.
        new = now[len(before) :] if now.startswith(before) else self.tokenizer.decode_bytes([id])
        return self.settle(self.decoder.decode(new))

    def close(self) -> str:
        """What is still held back, at the end of the ids."""
        if self.stopped:
            return ""
        text = self.settle(self.decoder.decode(b"", final=True)) + ("" if self.stopped else self.held)
        self.held = ""
        return text

    def settle(self, text: str) -> str:
        """Take up new text; give out all before a stop string, or before what may be the start of one."""
        self.held += text
        found = [place for place in (self.held.find(stop) for stop in self.stop) if place >= 0]
        if found:
            self.stopped = True
            out, self.held = self.held[: min(found)], ""
            return out
        keep = max((overlap(self.held, stop) for stop in self.stop), default=0)
        cut = len(self.held) - keep
        out, self.held = self.held[:cut], self.held[cut:]
        return out


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with, short of all of it.

    >>> overlap("a ##", "###")
    2
    """
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
