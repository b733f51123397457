"""Sentinels: tokens that stand for what was dropped from a text, `<extra_id_0>` and so on, as T5 names them."""

from __future__ import annotations

import json
import re

from clearstory.text.tokenizers import Tokenizer

COUNT = 100
"""Raffel et al. 2020 have as many."""


def sentinels(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of a tokenizer's sentinels, in their order; none where it has none."""
    found: list[int] = []
    while len(ids := tokenizer.encode_marked(f"<extra_id_{len(found)}>")) == 1:
        if ids[0] in (tokenizer.unknown, *found):
            break
        found += ids
    return tuple(found)


def encode_gaps(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text in which `<extra_id_0>` and so on stand for what is to be filled in. All else is text.

    >>> from clearstory.text.learning import learn
    >>> encode_gaps(with_sentinels(learn("bytes", [])), "a<extra_id_0>b<extra_id_500>")[:3]
    [97, 257, 98]
    """
    known = sentinels(tokenizer)
    ids: list[int] = []
    place = 0
    for mark in re.finditer(r"<extra_id_(\d{1,4})>", text):
        if int(mark[1]) < len(known):
            ids += [*tokenizer.encode(text[place : mark.start()]), known[int(mark[1])]]
            place = mark.end()
    return ids + tokenizer.encode(text[place:])


def with_sentinels(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with sentinels behind its other tokens; itself where it has some already.

    >>> from clearstory.text.learning import learn
    >>> known = with_sentinels(learn("bytes", []))
    >>> known.vocab, sentinels(known)[:2], known.decode([257, 72])
    (357, (257, 258), 'H')
    """
    if sentinels(tokenizer):
        return tokenizer
    from tokenizers import Tokenizer as Inside

    inside = Inside.from_str(tokenizer.contents)
    inside.add_special_tokens([f"<extra_id_{number}>" for number in range(COUNT)])
    contents = json.dumps(json.loads(inside.to_str(pretty=True)), ensure_ascii=False, indent=1)
    return Tokenizer(contents, tokenizer.config)
