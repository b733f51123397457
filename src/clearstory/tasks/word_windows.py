"""WordWindows: ids of a text with the first token of each of its words, in windows where the text is too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clearstory.errors import BadInput
from clearstory.tasks.text_windows import TextWindows, text_too_long, window_starts

Span = tuple[int, int]


@dataclass(frozen=True)
class WordWindow:
    """Ids of a text with special tokens; the words whose first token is in it, and the position of that token."""

    ids: tuple[int, ...]
    words: tuple[int, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True)
class WordWindows:
    """How texts become inputs of a model that labels words: those of `inputs`, with the first token of each word.

    A word without a token (its characters are dropped by the tokenizer), or one that was cut off, is in no window.
    """

    inputs: TextWindows

    def __call__(self, text: str, spans: Sequence[Span], location: str = "") -> list[WordWindow]:
        """The windows of a text, whose words are at these characters: one, unless it is longer than the context and
        there is a stride.

        Raises ContextOverflow for a text that is too long without a remedy, BadInput for one without a token.
        """
        inputs = self.inputs
        before, _, after = inputs.special_ids
        ids, offsets = inputs.tokenizer.encode_with_offsets(text)
        if not (before or ids or after):
            raise BadInput(f"{location or 'a text'} is empty, and this model needs at least one token")
        first_tokens = first_token_of_words(spans, offsets)
        size = len(ids) if inputs.context is None else inputs.context - len(before) - len(after)
        if len(ids) <= size:
            starts, size = [0], len(ids)
        elif inputs.truncate is not None:
            starts = [0 if inputs.truncate == "right" else len(ids) - size]
        elif inputs.stride is not None:
            starts = list(window_starts(len(ids), size, inputs.stride))
        else:
            raise text_too_long(location, len(ids) + len(before) + len(after), inputs.context)
        windows = []
        for start in starts:
            found = [
                (word, len(before) + first - start)
                for word, first in enumerate(first_tokens)
                if first is not None and start <= first < start + size
            ]
            words, positions = (tuple(each) for each in zip(*found, strict=True)) if found else ((), ())
            windows.append(WordWindow((*before, *ids[start : start + size], *after), words, positions))
        return windows

    def of_words(self, words: Sequence[str], location: str = "") -> list[WordWindow]:
        """The windows of words, joined by spaces. Raises as for a text."""
        return self(" ".join(words), spans_of_words(words), location)


def spans_of_words(words: Sequence[str]) -> list[Span]:
    """Where words are in the text in which they are joined by spaces.

    >>> spans_of_words(["ab", "c"])
    [(0, 2), (3, 4)]
    """
    spans, start = [], 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return spans


def first_token_of_words(spans: Sequence[Span], offsets: Sequence[Span]) -> list[int | None]:
    """For each word, the index of the first token that overlaps it; None if there is none.

    >>> first_token_of_words([(0, 2), (3, 4)], [(0, 1), (1, 2), (2, 4)])
    [0, 2]
    """
    indices: list[int | None] = []
    token = 0
    for start, end in spans:
        while token < len(offsets) and offsets[token][1] <= start:
            token += 1
        indices.append(token if token < len(offsets) and offsets[token][0] < end else None)
    return indices
