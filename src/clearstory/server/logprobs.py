"""Log-probabilities of tokens in the two formats of OpenAI's API: a list of tokens, and four lists."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from clearstory.generation.stream_decoder import CONTEXT_TOKENS
from clearstory.serving.requests import Token
from clearstory.text.tokenizers import Tokenizer

LOWEST = -9999.0
"""The log-probability of an impossible token, for which JSON has no number; OpenAI's API uses the same."""

TextToken = tuple[Token, bytes]
"""A token with the bytes that it adds to its text."""


@dataclass
class TokenTexts:
    """The bytes and the name of each token of a tokenizer, computed once.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> texts = TokenTexts(train_tokenizer("bytes", []))
    >>> texts.name(65), texts.name(0xE3), texts.bytes(65)
    ('A', '\\\\xe3', b'A')
    """

    tokenizer: Tokenizer
    _names: dict[int, str] = field(default_factory=dict)
    _bytes: dict[int, bytes] = field(default_factory=dict)

    def bytes(self, id: int) -> bytes:
        """The bytes of the text of a token; empty for special tokens and for ids beyond the vocabulary."""
        if id not in self._bytes:
            self._bytes[id] = self.tokenizer.token_bytes(id) if id < self.tokenizer.vocab else b""
        return self._bytes[id]

    def name(self, id: int) -> str:
        """The text of a token, each byte that is not UTF-8 as \\xe3; its own name for a special token."""
        if id not in self._names:
            text = self.bytes(id)
            self._names[id] = readable(text) if text else self.tokenizer.display_token(id)
        return self._names[id]


@lru_cache(16)
def token_texts(tokenizer: Tokenizer) -> TokenTexts:
    """The bytes and names of a tokenizer's tokens, the same object at each call."""
    return TokenTexts(tokenizer)


def bytes_of_each(texts: TokenTexts, ids: Sequence[int]) -> list[bytes]:
    """The bytes that each token adds to the decoded text."""
    tokenizer = texts.tokenizer
    found = [texts.bytes(id) for id in ids]
    if b"".join(found) == tokenizer.decode_bytes(ids):
        return found
    # Tokenizers that put spaces between words or before a text: what a token adds to the tokens before it.
    found = []
    for at in range(len(ids)):
        before = tokenizer.decode_bytes(ids[max(0, at - CONTEXT_TOKENS) : at])
        after = tokenizer.decode_bytes(ids[max(0, at - CONTEXT_TOKENS) : at + 1])
        found.append(after[len(before) :] if after.startswith(before) else tokenizer.decode_bytes(ids[at : at + 1]))
    return found


def readable(text: bytes) -> str:
    """Bytes as text; each that is not UTF-8 as \\xe3."""
    return text.decode("utf-8", "backslashreplace")


def number(logprob: float) -> float:
    """A log-probability as a finite JSON number."""
    return logprob if math.isfinite(logprob) else LOWEST


def chat_logprobs(
    tokens: Iterable[TextToken], texts: TokenTexts, *, top: int, with_ids: bool = False
) -> dict[str, Any]:
    """`logprobs` of a choice of a chat: each token with its bytes, its log-probability and `top` alternatives.

    The bytes of all tokens joined are the text, stop string included; a special token has null.
    """
    return {
        "content": [
            {
                **chat_token(token.id, token.logprob, added, texts, with_ids),
                "top_logprobs": [
                    chat_token(id, logprob, added if id == token.id else texts.bytes(id), texts, with_ids)
                    for id, logprob in token.top[:top]
                ],
            }
            for token, added in tokens
        ],
        "refusal": None,
    }


def chat_token(id: int, logprob: float, text: bytes, texts: TokenTexts, with_ids: bool) -> dict[str, Any]:
    """A token with its log-probability."""
    found = {
        "token": readable(text) if text else texts.name(id),
        "logprob": number(logprob),
        "bytes": list(text) if text else None,
    }
    return {**found, "token_id": id} if with_ids else found


@dataclass
class CompletionLogprobs:
    """`logprobs` of a choice of a completion, built token by token.

    Args:
        texts: bytes and names of tokens.
        top: number of alternatives of each token; the token itself is always among them.
        offset: character of the returned text at which the next token starts.
    """

    texts: TokenTexts
    top: int
    offset: int = 0
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def of(self, tokens: Sequence[TextToken], *, first: bool = False) -> dict[str, Any]:
        """The four lists of these tokens. `first`: the first of them starts the text and has no log-probability."""
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for index, (token, added) in enumerate(tokens):
            begins = first and index == 0
            name = readable(added) if added else self.texts.name(token.id)
            found["tokens"].append(name)
            found["token_logprobs"].append(None if begins else number(token.logprob))
            found["top_logprobs"].append(None if begins else self.alternatives(token, name))
            found["text_offset"].append(self.offset)
            self.offset += len(self._decoder.decode(added))
        return found

    def alternatives(self, token: Token, name: str) -> dict[str, float]:
        """The most likely tokens by name, and the token itself; of two with the same name, one is named by its id."""
        found = {name: number(token.logprob)}
        for id, logprob in token.top[: self.top]:
            if id != token.id:
                other = self.texts.name(id)
                found[f"token_id:{id}" if other in found else other] = number(logprob)
        return found

    def begin_at(self, offset: int) -> None:
        """Let the next token start at this character, after a text that differs from its decoded tokens."""
        self.offset = offset
        self._decoder.reset()


def bits_per_byte(tokens: Iterable[TextToken]) -> float | None:
    """Bits per byte of tokens with log-probabilities: −Σ log p / ln 2 / bytes; None for tokens without bytes."""
    nats, size = 0.0, 0
    for token, added in tokens:
        nats -= number(token.logprob)
        size += len(added)
    return nats / math.log(2) / size if size else None
