"""Sentinel tokens that replace the dropped spans of a text: `<extra_id_0>` and so on, as in T5."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from clearstory.text.tokenizers import Tokenizer

COUNT = 100
"""Number of sentinel tokens in Raffel et al. 2020."""


def sentinels(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids of a tokenizer's sentinel tokens, in order; empty if it has none."""
    found: list[int] = []
    while len(ids := tokenizer.encode_parsing_special(f"<extra_id_{len(found)}>")) == 1:
        if ids[0] in (tokenizer.unk_token_id, *found):
            break
        found += ids
    return tuple(found)


@dataclass(frozen=True)
class SentinelTokenizer:
    """A tokenizer that parses sentinel tokens in text and includes them when decoding.

    Only `<extra_id_0>` and so on are parsed, as far as the tokenizer has them; everything else is plain text.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> sentinel_tokenizer = SentinelTokenizer(with_sentinels(train_tokenizer("bytes", [])))
    >>> sentinel_tokenizer.encode("a<extra_id_0>b<extra_id_500>")[:3], sentinel_tokenizer.decode([97, 257, 98])
    ([97, 257, 98], 'a<extra_id_0>b')
    """

    tokenizer: Tokenizer

    @cached_property
    def names(self) -> dict[int, str]:
        """String of each sentinel token, by id."""
        return {id: f"<extra_id_{number}>" for number, id in enumerate(sentinels(self.tokenizer))}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self.encode_with_offsets(text)[0]

    def source(self, text: str) -> list[int]:
        """Token ids of a source text, followed by eos."""
        end = self.tokenizer.eos_token_id
        return [*self.encode(text), *([] if end is None else [end])]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a text, and the character span [start, stop) of each token."""
        sentinel_ids = list(self.names)
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []

        def append_plain(start: int, stop: int) -> None:
            own, spans = self.tokenizer.encode_with_offsets(text[start:stop])
            ids.extend(own)
            offsets.extend((start + first, start + last) for first, last in spans)

        done = 0
        for mark in re.finditer(r"<extra_id_(\d{1,4})>", text):
            if int(mark[1]) < len(sentinel_ids):
                append_plain(done, mark.start())
                ids.append(sentinel_ids[int(mark[1])])
                offsets.append(mark.span())
                done = mark.end()
        append_plain(done, len(text))
        return ids, offsets

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens other than sentinels are skipped."""
        return self.decode_bytes(list(ids)).decode(errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Bytes of ids; each run of tokens between sentinels is decoded alone."""
        parts: list[bytes] = []
        for name, run in groupby(ids, self.names.get):
            own = list(run)
            text = self.tokenizer.decode_bytes(own, begins=not parts) if name is None else name.encode() * len(own)
            parts.append(text)
        return b"".join(parts)


def with_sentinels(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with sentinel tokens appended to its vocabulary; unchanged if it already has some.

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
