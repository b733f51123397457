"""Sentinels: tokens that stand for what was dropped from a text, `<extra_id_0>` and so on, as T5 names them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from clearstory.text.tokenizers import Tokenizer

COUNT = 100
"""Raffel et al. 2020 have as many."""


def sentinels(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of a tokenizer's sentinels, in their order; none where it has none."""
    found: list[int] = []
    while len(ids := tokenizer.encode_parsing_special(f"<extra_id_{len(found)}>")) == 1:
        if ids[0] in (tokenizer.unk_token_id, *found):
            break
        found += ids
    return tuple(found)


@dataclass(frozen=True)
class SentinelTokenizer:
    """A tokenizer that reads sentinels in a text, and writes them: what fills gaps cannot be read without them.

    `<extra_id_0>` and so on are the sentinels that the tokenizer has; all else is text.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> gaps = SentinelTokenizer(with_sentinels(train_tokenizer("bytes", [])))
    >>> gaps.encode("a<extra_id_0>b<extra_id_500>")[:3], gaps.decode([97, 257, 98])
    ([97, 257, 98], 'a<extra_id_0>b')
    """

    tokenizer: Tokenizer

    @cached_property
    def names(self) -> dict[int, str]:
        """From a sentinel's id to how it is spelt."""
        return {id: f"<extra_id_{number}>" for number, id in enumerate(sentinels(self.tokenizer))}

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return self.encode_with_offsets(text)[0]

    def source(self, text: str) -> list[int]:
        """The ids of a source: a text, and the token that ends it."""
        end = self.tokenizer.eos_token_id
        return [*self.encode(text), *([] if end is None else [end])]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text, and the characters start:stop of it that each was made from."""
        known = list(self.names)
        ids: list[int] = []
        places: list[tuple[int, int]] = []

        def plain(start: int, stop: int) -> None:
            own, at = self.tokenizer.encode_with_offsets(text[start:stop])
            ids.extend(own)
            places.extend((start + begin, start + end) for begin, end in at)

        done = 0
        for mark in re.finditer(r"<extra_id_(\d{1,4})>", text):
            if int(mark[1]) < len(known):
                plain(done, mark.start())
                ids.append(known[int(mark[1])])
                places.append(mark.span())
                done = mark.end()
        plain(done, len(text))
        return ids, places

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, other special tokens left out."""
        return self.decode_bytes(list(ids)).decode(errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of ids, also where they end within a character; what stands between sentinels is a text each."""
        parts = []
        for name, run in groupby(ids, self.names.get):
            own = list(run)
            parts.append(self.tokenizer.decode_bytes(own) if name is None else name.encode() * len(own))
        return b"".join(parts)


def with_sentinels(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with sentinels behind its other tokens; itself where it has some already.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> known = with_sentinels(train_tokenizer("bytes", []))
    >>> known.vocab, sentinels(known)[:2], known.decode([257, 72])
    (357, (257, 258), 'H')
    """
    if sentinels(tokenizer):
        return tokenizer
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(tokenizer.contents)
    backend.add_special_tokens([f"<extra_id_{number}>" for number in range(COUNT)])
    contents = json.dumps(json.loads(backend.to_str(pretty=True)), ensure_ascii=False, indent=1)
    return Tokenizer(contents, tokenizer.config)
