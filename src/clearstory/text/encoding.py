"""Encoding of texts in which some special tokens are parsed and all others are plain text.

A tokenizer parses special tokens wherever their strings occur in a text. Here, only special pieces are parsed; the same
string within a text piece is encoded as its characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class TextPiece:
    """A part of a text to encode: plain text, or the string of a special token.

    Args:
        text: the text.
        special: whether the text is the string of a special token, to be encoded as that token.
        start: index of the first character in the user's text; None for text that is not the user's.
    """

    text: str
    special: bool = False
    start: int | None = None


@dataclass(frozen=True)
class TokenOrigins:
    """Where the tokens of a text come from.

    Args:
        special: for each token, whether it is a special token, or of text that is not the user's.
        spans: for each token, its characters [start, stop) in the user's text; None for a token that is not of it.
    """

    special: tuple[bool, ...]
    spans: tuple[tuple[int, int] | None, ...]


class EncodedText:
    """Token ids of a text.

    Args:
        ids: token ids.
        origins: where they come from, or a function that computes it when it is first asked for: it takes longer than
            the ids, which most callers need alone, since the text is encoded again with offsets.
    """

    def __init__(self, ids: Sequence[int], origins: TokenOrigins | Callable[[], TokenOrigins]) -> None:
        self.ids = tuple(ids)
        self._origins = origins

    @property
    def special(self) -> tuple[bool, ...]:
        """For each token, whether it is a special token, or of text that is not the user's."""
        return self.origins.special

    @property
    def spans(self) -> tuple[tuple[int, int] | None, ...]:
        """For each token, its characters [start, stop) in the user's text; None for a token that is not of it."""
        return self.origins.spans

    @property
    def origins(self) -> TokenOrigins:
        """Where the tokens come from."""
        if not isinstance(self._origins, TokenOrigins):
            self._origins = self._origins()
        return self._origins

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EncodedText) and (self.ids, self.origins) == (other.ids, other.origins)

    def __hash__(self) -> int:
        return hash(self.ids)

    def __repr__(self) -> str:
        return f"EncodedText(ids={self.ids}, special={self.special}, spans={self.spans})"

    def surrounded(self, before: tuple[int, ...], after: tuple[int, ...]) -> EncodedText:
        """The ids with special tokens before and after them."""

        def origins() -> TokenOrigins:
            return TokenOrigins(
                (*[True] * len(before), *self.special, *[True] * len(after)),
                (*[None] * len(before), *self.spans, *[None] * len(after)),
            )

        return EncodedText((*before, *self.ids, *after), origins)


def encode_text(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool = True) -> EncodedText:
    """Token ids of a plain text, with the special tokens that the tokenizer's post-processor adds around it.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> encode_text(train_tokenizer("words", ["a cat"]), "the cat")
    EncodedText(ids=(0, 3), special=(False, False), spans=((0, 3), (4, 7)))
    """
    return encode_pieces(tokenizer, (TextPiece(text, start=0),), add_special_tokens=add_special_tokens)


def encode_parsing(
    tokenizer: Tokenizer, text: str, parsed: Collection[str], *, add_special_tokens: bool = True
) -> EncodedText:
    """Token ids of a text in which the special tokens `parsed` are parsed, and no others."""
    pieces = split_special(text, parsed)
    return encode_pieces(tokenizer, pieces, add_special_tokens=add_special_tokens)


def split_special(text: str, names: Collection[str], start: int | None = 0) -> list[TextPiece]:
    """The text in pieces: the special tokens among `names`, and the text between them.

    >>> [piece.text for piece in split_special("a[MASK] b", ["[MASK]"])]
    ['a', '[MASK]', ' b']
    """
    pieces: list[TextPiece] = []
    done = 0

    def position(index: int) -> int | None:
        return None if start is None else start + index

    for match in special_pattern(names).finditer(text) if names else ():
        if match.start() > done:
            pieces.append(TextPiece(text[done : match.start()], start=position(done)))
        pieces.append(TextPiece(match[0], special=True, start=position(match.start())))
        done = match.end()
    if done < len(text):
        pieces.append(TextPiece(text[done:], start=position(done)))
    return pieces


def special_pattern(names: Collection[str]) -> re.Pattern[str]:
    """Pattern of any of the names; of several at the same position, the longest."""
    return re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))


def encode_pieces(
    tokenizer: Tokenizer,
    pieces: Sequence[TextPiece],
    *,
    add_special_tokens: bool,
    names: Collection[str] | None = None,
) -> EncodedText:
    """Token ids of pieces, encoded together: as one text with those special tokens in it.

    `names`: strings that are never parsed within text pieces; by default those of all special tokens.
    """
    text = "".join(piece.text for piece in pieces)
    if names is None and not any(piece.special for piece in pieces):
        return EncodedText(
            tokenizer.encode_plain_ids(text, add_special_tokens),
            lambda: locate_tokens(
                pieces, [piece.text for piece in pieces], tokenizer.encode_plain(text, add_special_tokens)[0]
            ),
        )
    names = tokenizer.special_names if names is None else frozenset(names)
    if not add_special_tokens and are_independent(tokenizer, pieces, names):
        return encode_apart(tokenizer, pieces)
    hidden = tokenizer.hide_special_tokens(names)
    written = [hidden.names[piece.text] if piece.special else piece.text for piece in pieces]
    [fast] = hidden.backend.encode_batch_fast(["".join(written)], add_special_tokens=add_special_tokens)

    def origins() -> TokenOrigins:
        encoded = hidden.backend.encode("".join(written), add_special_tokens=add_special_tokens)
        return locate_tokens(pieces, written, encoded)

    return EncodedText(hidden.original_ids(fast.ids), origins)


def are_independent(tokenizer: Tokenizer, pieces: Sequence[TextPiece], names: frozenset[str]) -> bool:
    """Whether the texts between special pieces are encoded independently: none of them contains a name, and no special
    token strips white space around it.

    Then a second tokenizer without the names, which takes as long to build as the first, is not needed.
    """
    special = {piece.text for piece in pieces if piece.special}
    return (
        tokenizer.cuts_at_special_tokens
        and tokenizer.special_names <= names
        and special <= tokenizer.plain_added_names
        and not any(name in text for text in between_special(pieces) for name in names)
    )


def between_special(pieces: Sequence[TextPiece]) -> list[str]:
    """The texts between special pieces, each of one piece or several."""
    parts = groupby(pieces, key=lambda piece: piece.special)
    return ["".join(piece.text for piece in part) for special, part in parts if not special]


def encode_apart(tokenizer: Tokenizer, pieces: Sequence[TextPiece]) -> EncodedText:
    """Token ids of pieces: each special piece is its token, and the texts between them are encoded one by one."""
    parts: list[EncodedText] = []
    for is_special, part in groupby(pieces, key=lambda piece: piece.special):
        group = list(part)
        if is_special:
            spans = [user_span(piece, 0, len(piece.text), 0, len(piece.text)) for piece in group]
            known = TokenOrigins((True,) * len(group), tuple(spans))
            parts.append(EncodedText([tokenizer.ids[piece.text] for piece in group], known))
        else:
            parts.append(encode_pieces(tokenizer, group, add_special_tokens=False))

    def origins() -> TokenOrigins:
        return TokenOrigins(
            tuple(each for part in parts for each in part.special), tuple(each for part in parts for each in part.spans)
        )

    return EncodedText([id for part in parts for id in part.ids], origins)


def locate_tokens(pieces: Sequence[TextPiece], written: Sequence[str], encoded: Any) -> TokenOrigins:
    """The place of each token, found by its offsets in the text that was encoded."""
    stops = list(accumulate(map(len, written)))
    starts = [0, *stops[:-1]]
    special: list[bool] = []
    spans: list[tuple[int, int] | None] = []
    at = 0
    for (start, stop), is_added in zip(encoded.offsets, encoded.special_tokens_mask, strict=True):
        if is_added and start == stop:  # by the post-processor
            special.append(True)
            spans.append(None)
            continue
        while at + 1 < len(pieces) and stops[at] <= start:
            at += 1
        span = None
        reached = at
        while span is None and reached < len(pieces) and (reached == at or starts[reached] < stop):
            span = user_span(pieces[reached], starts[reached], stops[reached], start, stop)
            reached += 1
        spans.append(span)
        special.append(span is None or (bool(pieces) and pieces[at].special))
    return TokenOrigins(tuple(special), tuple(spans))


def user_span(piece: TextPiece, first: int, last: int, start: int, stop: int) -> tuple[int, int] | None:
    """The characters in the user's text of a token at start:stop, limited to the piece at first:last."""
    if piece.start is None or start > last or stop < first:
        return None
    if piece.special:  # written under another name
        return piece.start, piece.start + len(piece.text)
    return piece.start + max(start, first) - first, piece.start + min(stop, last) - first
