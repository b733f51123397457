"""TextWindows: ids of a text, or of a pair of texts, as a classifier reads them, in windows where it is too long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from clearstory.errors import BadInput, BadSetting, ContextOverflow
from clearstory.models.capabilities import Capability, has_capability
from clearstory.text.encoding import encode_text
from clearstory.text.special_tokens import cls_and_sep_ids
from clearstory.text.tokenizers import Tokenizer

Truncate = Literal["left", "right"]


@dataclass(frozen=True)
class TextWindow:
    """Ids of a text with special tokens, and the token type of each: 0, or 1 in the second text of a pair."""

    ids: tuple[int, ...]
    token_types: tuple[int, ...] | None = None


@dataclass(frozen=True)
class TextWindows:
    """How texts become inputs of a model: [CLS] a [SEP] b [SEP] for an encoder, else as its tokenizer marks a text.

    Args:
        tokenizer: the tokenizer of the model.
        encoder: whether the model is an encoder.
        context: longest sequence of the model in tokens; None for unlimited.
        truncate: which end of a text that is too long is dropped; of a pair, of the longer text.
        stride: tokens between the starts of the windows of a text that is too long; of a pair, of the second text.
    """

    tokenizer: Tokenizer
    encoder: bool
    context: int | None
    truncate: Truncate | None = None
    stride: int | None = None

    @classmethod
    def of_model(
        cls, model: Any, tokenizer: Tokenizer, truncate: Truncate | None = None, stride: int | None = None
    ) -> TextWindows:
        """Inputs of this model."""
        encoder = has_capability(model, Capability.BIDIRECTIONAL)
        return cls(tokenizer, encoder, model.context, truncate, stride)

    def __call__(self, text: str, pair: str | None = None, location: str = "") -> list[TextWindow]:
        """The windows of a text: one, unless it is longer than the context and there is a stride.

        Raises ContextOverflow for a text that is too long without a remedy, BadInput for one without a token.
        """
        before, between, after = self.special_ids
        first = self.tokenizer.encode(text)
        second = None if pair is None else self.tokenizer.encode(pair)
        if not (before or first or second or after):
            raise BadInput(f"{location or 'a text'} is empty, and this model needs at least one token")
        n_special = len(before) + len(after) + (len(between) if second is not None else 0)
        limit = None if self.context is None else self.context - n_special
        if limit is None or len(first) + len(second or ()) <= limit:
            return [self.join(first, second)]
        if self.stride is None and self.truncate is None:
            raise text_too_long(location, len(first) + len(second or ()) + n_special, self.context)
        if self.truncate is not None:
            return [self.join(*self.truncated(first, second, limit))]
        return list(self.strided(first, second, limit))

    def truncated(self, first: list[int], second: list[int] | None, limit: int) -> tuple[list[int], list[int] | None]:
        """Both texts within `limit` tokens: tokens are dropped from the longer one, until both have the same length."""
        if second is None:
            return cut(first, limit, self.truncate), None
        longest = max(len(first), len(second), limit)
        keep = next(n for n in range(longest, -1, -1) if min(len(first), n) + min(len(second), n) <= limit)
        # One token more of the first text where an odd number fits.
        spare = limit - min(len(first), keep) - min(len(second), keep)
        return cut(first, keep + spare, self.truncate), cut(second, keep, self.truncate)

    def strided(self, first: list[int], second: list[int] | None, limit: int) -> Iterator[TextWindow]:
        """Windows of the text, or of the second text after all of the first; the last one ends with the text."""
        assert self.stride is not None
        long = first if second is None else second
        size = limit if second is None else limit - len(first)
        for start in window_starts(len(long), size, self.stride):
            part = long[start : start + size]
            yield self.join(part, None) if second is None else self.join(first, part)

    def join(self, first: list[int], second: list[int] | None) -> TextWindow:
        """Ids of one or two texts with the special tokens around them."""
        before, between, after = self.special_ids
        if second is None:
            return TextWindow((*before, *first, *after))
        ids = (*before, *first, *between, *second, *after)
        if not self.encoder:
            return TextWindow(ids)
        types = len(before) + len(first) + len(between)
        return TextWindow(ids, (0,) * types + (1,) * (len(ids) - types))

    @cached_property
    def special_ids(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Special ids before a text, between the two of a pair, and after them."""
        if self.encoder:
            first, last = cls_and_sep_ids(self.tokenizer)
            return (first,), (last,), (last,)
        own = tuple(self.tokenizer.encode("a"))
        around = encode_text(self.tokenizer, "a").ids
        start = next((at for at in range(len(around) - len(own) + 1) if around[at : at + len(own)] == own), 0)
        separator = self.tokenizer.eos_token_id
        between = tuple(self.tokenizer.encode("\n")) if separator is None else (separator,)
        return around[:start], between, around[start + len(own) :]


def text_too_long(location: str, length: int, context: int | None) -> ContextOverflow:
    """The error for a text of `length` tokens that does not fit, with both lengths and the remedies."""
    return ContextOverflow(
        f"{location or 'a text'} has {length:,} tokens with special tokens, but the model's context is {context:,}; "
        "pass --truncate right to drop the end of long texts, or --stride to process them in windows"
    )


def window_starts(length: int, size: int, stride: int) -> Iterator[int]:
    """Where windows of `size` tokens start in a longer text; the last one ends with the text. Raises BadSetting for a
    stride that skips tokens.

    >>> list(window_starts(10, 4, 3))
    [0, 3, 6]
    """
    if size < 1 or stride > size:
        raise BadSetting(
            f"stride is {stride:,}, and a window has {max(size, 0):,} tokens of text; give at most that many"
        )
    for start in range(0, length - size + stride, stride):
        yield min(start, length - size)


def cut(ids: list[int], limit: int, side: Truncate | None) -> list[int]:
    """The ids without those at one end that exceed `limit`."""
    if len(ids) <= limit:
        return ids
    return ids[:limit] if side == "right" else ids[len(ids) - limit :]
