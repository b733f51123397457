"""Tokenization: the tokens of a text, the tokenizer's steps for each word, and the words that are split the most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.hooks.passage import encode_segments
from clearstory.lens.views import Cell, Panel, Report, Table
from clearstory.lens.views.formatting import format_probability
from clearstory.models.base import LanguageModel
from clearstory.models.prompts import EncodedPrompt, PromptOptions
from clearstory.text.token_bytes import VISIBLE, bytes_of_token, printable_token
from clearstory.text.tokenization_steps import WordTokenization, tokenize_by_words
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

MAX_CHARACTERS = 4000
"""Longest text whose steps are shown: without word boundaries each step is as long as the text."""

STEP_COLUMNS = {
    "bpe": ("merged", "rank", "the pair with the lowest rank in a word is merged first"),
    "wordpiece": ("piece", "longer tried", "from the left, the longest piece of the vocabulary"),
    "unigram": ("piece", "score", "the segmentation with the highest sum of scores"),
}
"""Column names and a description of the steps of each kind of tokenizer."""


def tokenization(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    compare_tokenizer: str | None = None,
    top: int = 10,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """The tokens that a model reads, with ids, bytes and characters; the tokenizer's steps; the `top` words with the
    fewest bytes per token.

    `compare_tokenizer`: a second tokenizer, aligned with the first: characters, bytes, words, or a folder that holds
    one. Raises BadInput for an empty text, and for one too long for its steps to be shown.
    """
    if not text:
        raise BadInput("the text is empty; give at least one word")
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 word")
    panels: list[Panel] = [token_table(tokenizer, text, encode_segments(model, tokenizer, text, prompt)[0])]
    if compare_tokenizer is not None:
        other = train_tokenizer(compare_tokenizer, [text])
        panels.append(comparison_table(tokenizer, other, text, compare_tokenizer))
    if tokenizer.kind in STEP_COLUMNS:
        if len(text) > MAX_CHARACTERS:
            raise BadInput(
                f"the text has {len(text):,} characters, but steps are shown for up to {MAX_CHARACTERS:,}; give a "
                "shorter text"
            )
        words = tokenize_by_words(tokenizer, text)
        panels += [steps_table(tokenizer, words)] if words else []  # none of a text that the normalizer empties
    panels.append(split_words_table(tokenizer, text, top))
    return Report(title=f"Tokens of “{with_visible_space(text)}”", panels=tuple(panels))


def with_visible_space(text: str, length: int = 60) -> str:
    """The beginning of a text on one line, with visible white space.

    >>> with_visible_space("a b\\n")
    'a␣b↵'
    """
    visible = text.translate(VISIBLE)
    return visible if len(visible) <= length else visible[: length - 1] + "…"


def token_table(tokenizer: Tokenizer, text: str, encoded: EncodedPrompt) -> Table:
    """Every token that a model reads of a text: its own, special ones, and those of a chat template."""
    rows: list[tuple[Cell, ...]] = []
    for position, (id, span) in enumerate(zip(encoded.ids, encoded.spans, strict=True)):
        kind = "" if span is not None else "template"
        kind = "unknown" if id == tokenizer.unk_token_id else "special" if tokenizer.special_tokens_mask[id] else kind
        characters = "" if span is None else with_visible_space(text[slice(*span)], len(text) + 1)
        rows.append((position, tokenizer.display_token(id), id, len(tokenizer.token_bytes(id)), characters, kind))
    size, unknown = len(text.encode()), sum(row[5] == "unknown" for row in rows)
    count = sum(span is not None for span in encoded.spans)
    caption = f"{size:,} bytes in {count:,} tokens: {size / max(1, count):.2f} bytes per token."
    if unknown:
        caption += f" {unknown:,} of them are the unknown token, which loses their text."
    return Table(
        title=f"{tokenizer.kind} tokenizer of {tokenizer.vocab:,} tokens",
        columns=("position", "token", "id", "bytes", "characters", "kind"),
        rows=tuple(rows),
        caption=caption,
    )


def steps_table(tokenizer: Tokenizer, words: Sequence[WordTokenization]) -> Table:
    """All steps of all distinct words, one row each."""
    made, number, how = STEP_COLUMNS[tokenizer.kind]
    rows: list[tuple[Cell, ...]] = []
    for word in words:
        for index, step in enumerate(word.steps):
            value = step.number if tokenizer.kind == "unigram" or step.number is None else int(step.number)
            new = None if step.made is None else display_pieces(tokenizer, (step.made,))
            pieces = display_pieces(tokenizer, step.pieces, " ")
            rows.append((display_pieces(tokenizer, (word.text,)), index, new, value, pieces))
    most = max(words, key=lambda word: len(word.steps))
    return Table(
        title=f"Step by step: {how}",
        columns=("word", "step", made, number, "pieces"),
        rows=tuple(rows),
        caption=f"{len(words):,} distinct words; ‘{display_pieces(tokenizer, (most.text,))}’ takes the most steps, "
        f"{len(most.steps) - 1:,}, to {len(most.ids):,} token{'s' * (len(most.ids) != 1)}.",
    )


def display_pieces(tokenizer: Tokenizer, pieces: Sequence[str], separator: str = "") -> str:
    """Pieces as display text: tokens of the vocabulary by their bytes, others as they are."""

    def display(piece: str) -> str:
        if piece in tokenizer.ids:
            return tokenizer.display_token(tokenizer.ids[piece])
        return piece if tokenizer.kind == "wordpiece" else printable_token(bytes_of_token(piece, tokenizer._style))

    return separator.join(map(display, pieces))


def split_words_table(tokenizer: Tokenizer, text: str, top: int) -> Table:
    """The words of a text, separated by white space, with the fewest bytes per token, except words of one token."""
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
    caption = None
    if found:
        single = sum(len(word.tokens) == 1 for word in found)
        caption = f"{format_probability(single / len(found))} of {len(found):,} distinct words are one token each."
        if len(split) > top:
            caption += f" The {top:,} of {len(split):,} split words with the fewest bytes per token are shown."
    return Table(
        title="Words with the fewest bytes per token",
        columns=("word", "tokens", "bytes", "bytes per token", "pieces"),
        rows=rows,
        bar="bytes per token",
        caption=caption,
    )


@dataclass(frozen=True)
class SplitWord:
    """A word, its number of bytes, and the tokens that overlap it."""

    text: str
    size: int
    tokens: tuple[int, ...]


def split_words(tokenizer: Tokenizer, text: str) -> list[SplitWord]:
    """The distinct words of a text, separated by white space, with the tokens of their first occurrence."""
    ids, offsets = tokenizer.encode_with_offsets(text)
    found: dict[str, SplitWord] = {}
    first = 0
    for match in re.finditer(r"\S+", text):
        while first < len(ids) and offsets[first][1] <= match.start():
            first += 1
        last = first
        while last < len(ids) and offsets[last][0] < match.end():
            last += 1
        piece_ids = tuple(ids[first:last])
        found.setdefault(match[0], SplitWord(match[0], len(match[0].encode()), piece_ids))
    return list(found.values())


@dataclass(frozen=True)
class AlignedSegment:
    """Characters start:stop of a text, and the tokens that two tokenizers make of them."""

    start: int
    stop: int
    first: tuple[int, ...]
    second: tuple[int, ...]


def align_tokenizers(first: Tokenizer, second: Tokenizer, text: str) -> list[AlignedSegment]:
    """The smallest segments of a text whose ends are token boundaries of both tokenizers.

    >>> words, bytes = train_tokenizer("words", ["a b"]), train_tokenizer("bytes", [])
    >>> [(each.first, each.second) for each in align_tokenizers(words, bytes, "a b")]
    [((2,), (97,)), ((), (32,)), ((3,), (98,))]
    """
    both = [list(zip(*tokenizer.encode_with_offsets(text), strict=True)) for tokenizer in (first, second)]
    spans = sorted({span for tokens in both for _, span in tokens})
    merged: list[list[int]] = []
    for start, stop in spans:
        if merged and (start < merged[-1][1] or start == stop):
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    found: list[AlignedSegment] = []
    for index, (start, stop) in enumerate(merged):
        last = index == len(merged) - 1
        ids = [tuple(id for id, (low, _) in tokens if start <= low < stop or (last and low >= stop)) for tokens in both]
        found.append(AlignedSegment(start, stop, *ids))
    return found


def comparison_table(first: Tokenizer, second: Tokenizer, text: str, name: str) -> Table:
    """Two tokenizers over one text, one row per aligned segment."""
    rows: list[tuple[Cell, ...]] = [
        (
            with_visible_space(text[each.start : each.stop], len(text) + 1),
            len(each.first),
            len(each.second),
            " ".join(map(first.display_token, each.first)),
            " ".join(map(second.display_token, each.second)),
        )
        for each in align_tokenizers(first, second, text)
    ]
    size, totals = len(text.encode()), [sum(int(str(row[column])) for row in rows) for column in (1, 2)]
    equal = sum(row[3] == row[4] for row in rows)
    return Table(
        title=f"Compared with {name}",
        columns=("text", f"{first.kind}: tokens", f"{name}: tokens", f"{first.kind}: pieces", f"{name}: pieces"),
        rows=tuple(rows),
        caption=f"{first.kind} ({first.vocab:,} tokens): {totals[0]:,} tokens, {size / max(1, totals[0]):.2f} bytes "
        f"each; {name} ({second.vocab:,}): {totals[1]:,} tokens, {size / max(1, totals[1]):.2f} bytes each; "
        f"{equal:,} of {len(rows):,} segments are tokenized the same.",
    )
