"""Tokens: what a text becomes before a model sees it, how each word comes to its pieces, and what splits badly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.surprisal import format_probability
from clearstory.lens.views import Cell, Table, Report
from clearstory.models.transformer.encoder import Encoder
from clearstory.text.special_tokens import cls_and_sep_ids
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.token_bytes import VISIBLE, bytes_of_token, printable_token
from clearstory.text.tokenization_steps import WordTokenization, tokenize_by_words
from clearstory.text.tokenizers import Tokenizer

LONGEST = 4000
"""Characters whose steps are followed: where nothing cuts a text into words, each step is as long as the text."""

COLUMNS = {
    "bpe": ("joined", "rank", "of a word, the pair of the lowest rank is joined first"),
    "wordpiece": ("taken", "longer tried", "from the left, the longest piece that there is"),
    "unigram": ("piece", "score", "the pieces whose scores add up highest"),
}
"""What the steps of each kind of tokenizer are called."""


def tokenization(model: Any, tokenizer: Tokenizer, text: str, *, compare_tokenizer: str | None = None, top: int = 10) -> Report:
    """The tokens of a text with ids, bytes and characters; the steps that led to them; the `top` worst split words.

    `compare_tokenizer`: a second tokenizer beside it, row by row where the two cut alike: characters, bytes, words, or a folder
    that holds one. Raises BadInput for an empty text, and for one whose steps are too many.
    """
    if not text:
        raise BadInput("the text is empty; give a few words to look at")
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 word")
    steps = [token_table(tokenizer, text, isinstance(model, Encoder))]
    if compare_tokenizer is not None:
        steps.append(beside(tokenizer, train_tokenizer(compare_tokenizer, [text]), text, compare_tokenizer))
    if tokenizer.kind in COLUMNS:
        if len(text) > LONGEST:
            raise BadInput(
                f"the text has {len(text):,} characters, and steps are shown of up to {LONGEST:,}; give less"
            )
        steps.append(player(tokenizer, tokenize_by_words(tokenizer, text)))
    steps.append(worst(tokenizer, text, top))
    return Report(title=f"Tokens of “{visible(text)}”", panels=tuple(steps))


def visible(text: str, longest: int = 60) -> str:
    """The beginning of a text on one line, its white space shown.

    >>> visible("a b\\n")
    'a␣b↵'
    """
    shown = text.translate(VISIBLE)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def token_table(tokenizer: Tokenizer, text: str, around: bool = False) -> Table:
    """Every token of a text; `around`: between those that an encoder reads it in."""
    places = encode_with_mask_offsets(tokenizer, text)
    if around:
        first, last = cls_and_sep_ids(tokenizer)
        places = [(first, None), *places, (last, None)]
    rows: list[tuple[Cell, ...]] = []
    for number, (id, place) in enumerate(places):
        kind = "unknown" if id == tokenizer.unk_token_id else "special" if tokenizer.special_tokens_mask[id] else ""
        stretch = "" if place is None else visible(text[slice(*place)], len(text) + 1)
        rows.append((number, tokenizer.display_token(id), id, len(tokenizer.token_bytes(id)), stretch, kind))
    size, unknown = len(text.encode()), sum(row[5] == "unknown" for row in rows)
    own = sum(place is not None for _, place in places)
    said = f"{size:,} bytes in {own:,} tokens: {size / max(1, own):.2f} bytes a token."
    if unknown:
        said += f" {unknown:,} of them are unknown to the vocabulary: what stood there is lost."
    return Table(
        title=f"{tokenizer.kind} of {tokenizer.vocab:,} tokens",
        columns=("place", "token", "id", "bytes", "characters", "kind"),
        rows=tuple(rows),
        caption=said,
    )


def encode_with_mask_offsets(tokenizer: Tokenizer, text: str) -> list[tuple[int, tuple[int, int] | None]]:
    """The ids of a text, each with the characters it was made from; of a [MASK] that is spelt out, none."""
    mask = None if tokenizer.mask_token_id is None else tokenizer.display_token(tokenizer.mask_token_id)
    found: list[tuple[int, tuple[int, int] | None]] = []
    start = 0
    for number, part in enumerate([text] if mask is None else text.split(mask)):
        if number and mask is not None:
            found.append((tokenizer.ids[mask], (start, start + len(mask))))
            start += len(mask)
        ids, places = tokenizer.encode_with_offsets(part)
        found += [(id, (start + low, start + high)) for id, (low, high) in zip(ids, places, strict=True)]
        start += len(part)
    return found


def player(tokenizer: Tokenizer, words: Sequence[WordTokenization]) -> Table:
    """All steps of all different words, a row each."""
    made, number, how = COLUMNS[tokenizer.kind]
    rows: list[tuple[Cell, ...]] = []
    for word in words:
        for at, step in enumerate(word.steps):
            value = step.number if tokenizer.kind == "unigram" or step.number is None else int(step.number)
            new = None if step.made is None else written(tokenizer, (step.made,))
            rows.append((written(tokenizer, (word.text,)), at, new, value, written(tokenizer, step.pieces, " ")))
    most = max(words, key=lambda word: len(word.steps))
    return Table(
        title=f"Step by step: {how}",
        columns=("word", "step", made, number, "pieces"),
        rows=tuple(rows),
        caption=f"{len(words):,} different words; ‘{written(tokenizer, (most.text,))}’ takes the most steps, "
        f"{len(most.steps) - 1:,}, to {len(most.ids):,} token{'s' * (len(most.ids) != 1)}.",
    )


def written(tokenizer: Tokenizer, parts: Sequence[str], between: str = "") -> str:
    """Pieces as people read them: those of the vocabulary by their bytes, others as they are."""

    def one(part: str) -> str:
        if part in tokenizer.ids:
            return tokenizer.display_token(tokenizer.ids[part])
        return part if tokenizer.kind == "wordpiece" else printable_token(bytes_of_token(part, tokenizer._style))

    return between.join(map(one, parts))


def worst(tokenizer: Tokenizer, text: str, top: int) -> Table:
    """The words of a text, by white space, whose tokens stand for the fewest bytes; those of one token left out."""
    found = split_words(tokenizer, text)
    split = sorted((word for word in found if len(word.tokens) > 1), key=lambda word: word.size / len(word.tokens))
    rows = tuple(
        (
            word.text,
            len(word.tokens),
            word.size,
            word.size / len(word.tokens),
            " ".join(map(tokenizer.display_token, word.tokens)),
        )
        for word in split[:top]
    )
    whole = sum(len(word.tokens) == 1 for word in found)
    said = f"{format_probability(whole / len(found))} of {len(found):,} different words are one token each." if found else None
    if said and len(split) > top:
        said += f" Of {len(split):,} that are split, the {top:,} worst are shown."
    return Table(
        title="What splits badly: words by the bytes that a token of theirs stands for",
        columns=("word", "tokens", "bytes", "bytes per token", "pieces"),
        rows=rows,
        bar="bytes per token",
        caption=said,
    )


@dataclass(frozen=True)
class SplitWord:
    """A word, its bytes, and the tokens that have a part in it."""

    text: str
    size: int
    tokens: tuple[int, ...]


def split_words(tokenizer: Tokenizer, text: str) -> list[SplitWord]:
    """The different words of a text, by white space, each as it is split where it first stands."""
    ids, places = tokenizer.encode_with_offsets(text)
    found: dict[str, SplitWord] = {}
    at = 0
    for match in re.finditer(r"\S+", text):
        while at < len(ids) and places[at][1] <= match.start():
            at += 1
        end = at
        while end < len(ids) and places[end][0] < match.end():
            end += 1
        own = tuple(ids[at:end])
        found.setdefault(match[0], SplitWord(match[0], len(match[0].encode()), own))
    return list(found.values())


@dataclass(frozen=True)
class AlignedSegment:
    """Characters start:stop of a text, and the tokens that two tokenizers make of them."""

    start: int
    stop: int
    one: tuple[int, ...]
    other: tuple[int, ...]


def align_tokenizers(one: Tokenizer, other: Tokenizer, text: str) -> list[AlignedSegment]:
    """The smallest stretches of a text whose ends no token of either crosses.

    >>> [(each.one, each.other) for each in aligned(train_tokenizer("words", ["a b"]), train_tokenizer("bytes", []), "a b")]
    [((2,), (97,)), ((), (32,)), ((3,), (98,))]
    """
    sides = [list(zip(*side.encode_with_offsets(text), strict=True)) for side in (one, other)]
    spans = sorted({place for side in sides for _, place in side})
    merged: list[list[int]] = []
    for start, stop in spans:
        if merged and (start < merged[-1][1] or start == stop):
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    found: list[AlignedSegment] = []
    for number, (start, stop) in enumerate(merged):
        last = number == len(merged) - 1
        own = [tuple(id for id, (low, _) in side if start <= low < stop or (last and low >= stop)) for side in sides]
        found.append(AlignedSegment(start, stop, *own))
    return found


def beside(one: Tokenizer, other: Tokenizer, text: str, named: str) -> Table:
    """Two tokenizers over one text, row by row."""
    rows: list[tuple[Cell, ...]] = [
        (
            visible(text[each.start : each.stop], len(text) + 1),
            len(each.one),
            len(each.other),
            " ".join(map(one.display_token, each.one)),
            " ".join(map(other.display_token, each.other)),
        )
        for each in align_tokenizers(one, other, text)
    ]
    size, sums = len(text.encode()), [sum(int(str(row[at])) for row in rows) for at in (1, 2)]
    alike = sum(row[3] == row[4] for row in rows)
    return Table(
        title=f"Beside {named}",
        columns=("text", f"{one.kind}: tokens", f"{named}: tokens", f"{one.kind}: pieces", f"{named}: pieces"),
        rows=tuple(rows),
        caption=f"{one.kind} of {one.vocab:,} makes {sums[0]:,} tokens, {size / max(1, sums[0]):.2f} bytes each; {named} "
        f"of {other.vocab:,} makes {sums[1]:,}, {size / max(1, sums[1]):.2f} bytes each; {alike:,} of {len(rows):,} "
        "stretches are cut alike.",
    )
