"""Vocabularies in llguidance's format, and regular expressions matched in linear time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clearstory.errors import CannotDo, MissingExtra
from clearstory.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

SPACED_KINDS = ("words", "wordpunct", "wordpiece")
"""Kinds of tokenizers whose decoder puts white space between tokens, so that a text is not its tokens' bytes."""


class TokenTable:
    """The bytes of every token, in the form that llguidance asks for.

    An end token is added after the last one: which tokens end a text is decided by each request.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(
        self, tokens: Sequence[bytes], special_ids: Sequence[int], encode: Callable[[str], Sequence[int]]
    ) -> None:
        self.eos_token_id = len(tokens)
        self.tokens = [*tokens, b"<end of text>"]
        self.special_token_ids = [*special_ids, len(tokens)]
        self.encode = encode

    def __call__(self, text: str) -> Sequence[int]:
        return self.encode(text)


def grammar_tokens(tokenizer: Tokenizer, spelled: frozenset[str] = frozenset()) -> LLTokenizer:
    """The vocabulary of a tokenizer for grammars; computed once (a second for 50,000 tokens).

    `spelled`: special tokens that a grammar writes as text, such as the mark of a tool call. Raises CannotDo for a
    tokenizer whose tokens, joined, are not the text.
    """
    if tokenizer.kind in SPACED_KINDS:
        raise CannotDo(
            f"this model's tokenizer ({tokenizer.kind}) inserts white space between tokens, so it cannot generate "
            "JSON or match a grammar; supported: BPE, Unigram, bytes and characters"
        )
    return cached_tokens(tokenizer, frozenset(np.flatnonzero(tokenizer.special_tokens_mask).tolist()), spelled)


@lru_cache(maxsize=8)
def cached_tokens(tokenizer: Tokenizer, special: frozenset[int], spelled: frozenset[str]) -> LLTokenizer:
    """The same; `special` are the special tokens, which do not count where tokenizers are compared."""
    names = {tokenizer.ids[name] for name in spelled if name in tokenizer.ids}
    tokens = [
        tokenizer.display_token(id).encode() if id in special else tokenizer.token_bytes(id)
        for id in range(tokenizer.vocab)
    ]
    encode = tokenizer.encode_parsing_special if spelled else tokenizer.encode
    return build_tokens(TokenTable(tokens, sorted(special - names), inside_text(encode, tokens)))


def inside_text(encode: Callable[[str], list[int]], tokens: Sequence[bytes]) -> Callable[[str], list[int]]:
    """The encoding of a text that stands inside another: without the space that some tokenizers put before a text."""
    before = "\n"
    ids_before = encode(before)

    def encode_inside(text: str | bytes) -> list[int]:
        text = text if isinstance(text, str) else text.decode(errors="replace")
        ids = encode(text)
        if b"".join(tokens[id] for id in ids) == text.encode():
            return ids
        ids = encode(before + text)
        inside = ids[len(ids_before) :]
        same = ids[: len(ids_before)] == ids_before and b"".join(tokens[id] for id in inside) == text.encode()
        return inside if same else []  # nothing: llguidance then takes the longest tokens

    return encode_inside


@cache
def byte_tokens() -> LLTokenizer:
    """A vocabulary of the 256 bytes."""
    table = TokenTable([bytes([byte]) for byte in range(256)], [], lambda text: list(text.encode()))
    return build_tokens(table, slices=[])


def build_tokens(table: TokenTable, slices: list[str] | None = None) -> LLTokenizer:
    """The vocabulary of llguidance. Raises MissingExtra without the package."""
    try:
        from llguidance import LLTokenizer
    except ImportError:
        raise missing_extra() from None
    wrapped: Any = table
    return LLTokenizer(wrapped, slices=slices)


def build_matcher(tokens: LLTokenizer, grammar: str) -> LLMatcher:
    """A matcher of a grammar of llguidance, with bounded memory; it may be in an error state."""
    from llguidance import LLMatcher
    from llguidance._lib import LLParserLimits

    return LLMatcher(tokens, grammar, log_level=0, limits=LLParserLimits(max_lexer_states=50_000, verbose_errors=False))


def allowed_ids(matcher: LLMatcher) -> npt.NDArray[np.bool_]:
    """Which tokens may come next, (V,), without the end token."""
    return np.not_equal(np.frombuffer(matcher.compute_logit_bias(), np.uint8)[:-1], 0)


def error_sentence(matcher: LLMatcher) -> str:
    """The error of a matcher in one line; empty if there is none."""
    if not matcher.is_error():
        return ""
    text = matcher.get_error()
    if "oneOf constraints" in text:
        return "oneOf is supported only if each alternative excludes the others; use anyOf"
    # The lines that repeat a grammar, and where in it the error is.
    lines = [line.strip() for line in text.replace("<non-verbose/>", "").splitlines()]
    kept = [line for line in lines if line.strip(" ^") and not re.match(r"\d+ \|", line)]
    return " ".join(kept).rstrip(". ")[:300]


def regex_error(pattern: str) -> str:
    """Why a regular expression is not supported; empty if it is."""
    return error_sentence(pattern_matcher(pattern))


@lru_cache(maxsize=64)
def pattern_matcher(pattern: str) -> LLMatcher:
    """A matcher of the JSON strings that contain a match of a regular expression."""
    from llguidance import LLMatcher

    byte_tokens()  # raises MissingExtra
    return build_matcher(byte_tokens(), LLMatcher.grammar_from_json_schema({"type": "string", "pattern": pattern}))


def contains_match(pattern: str, text: str) -> bool:
    """Whether a text contains a match of a regular expression; time is linear in the text.

    >>> contains_match("^a+$", "aaa"), contains_match("^a+$", "ab")  # doctest: +SKIP
    (True, False)
    """
    matcher = pattern_matcher(pattern).deep_copy()
    written = list(json.dumps(text, ensure_ascii=False).encode())
    return matcher.try_consume_tokens(written) == len(written) and matcher.is_accepting()


def missing_extra() -> MissingExtra:
    """The error for a grammar if its packages are not installed."""
    return MissingExtra(
        "grammars and JSON schemas need the packages llguidance and jsonschema; install them with: "
        'pip install "clearstory[structured]"'
    )
