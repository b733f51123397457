"""Grammars: constraints by JSON, a JSON schema, a regular expression or a context-free grammar.

Before each token, a `GrammarMask` says which tokens the grammar allows; an end token is allowed only where the text is
complete. The matching is that of llguidance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool
from torch import Tensor

from clearstory.errors import BadInput, CannotDo, GrammarViolation
from clearstory.generation.constraints import EndTokens, end_token_ids
from clearstory.generation.grammar_tokens import (
    allowed_ids,
    build_matcher,
    byte_tokens,
    error_sentence,
    grammar_tokens,
)
from clearstory.generation.json_schema import JSONSchemaError, check_follows, check_schema
from clearstory.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from llguidance._lib import JsonCompileOptions

MAX_GRAMMAR_LENGTH = 2**18
"""Maximum number of characters of a grammar or a regular expression."""

JSON_OPTIONS: JsonCompileOptions = {
    "whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,20}",
    "json_allowed_escapes": 'nrbtf\\"',
}
"""How JSON is written. White space is bounded: a small model may write it without end. Characters are not escaped by
their number: a name so escaped is another text, and the same name.
"""

JSON_CHARACTERS = frozenset('{}[]":,-.0123456789truefalsn')
"""Characters that are necessary for JSON."""


@dataclass(frozen=True)
class Grammar:
    """A grammar that a text must match.

    Args:
        source: the grammar as llguidance reads it.
        schema: the JSON schema that the whole text must follow, as JSON; None if it is not JSON.
        pattern: the regular expression that the whole text must match, or None.
        spelled: special tokens that are text in the grammar.
    """

    source: str
    schema: str | None = None
    pattern: str | None = None
    spelled: frozenset[str] = frozenset()

    @classmethod
    def of_json_schema(cls, schema: Mapping[str, Any]) -> Grammar:
        """JSON that is valid for a schema (draft 2020-12). Raises JSONSchemaError for one that is not supported."""
        check_schema(schema)
        source = json_grammar(schema)
        if reason := source_error(source):
            raise JSONSchemaError("", f"cannot be followed: {reason}")
        return cls(source, schema=json.dumps(schema))

    @classmethod
    def of_json_object(cls) -> Grammar:
        """Any JSON object."""
        return cls.of_json_schema({"type": "object"})

    @classmethod
    def of_regex(cls, pattern: str) -> Grammar:
        """Texts that a regular expression matches from their beginning to their end, in the syntax of Rust's regex.

        Raises BadInput for an invalid one. Look-around and backreferences are not supported.
        """
        from llguidance import LLMatcher

        source = LLMatcher.grammar_from_regex(check_length(pattern, "regular expression"))
        if reason := source_error(source):
            raise BadInput(f"the regular expression is not valid: {reason}")
        return cls(source, pattern=pattern)

    @classmethod
    def of_lark(cls, source: str, spelled: frozenset[str] = frozenset()) -> Grammar:
        """Texts of a context-free grammar in Lark's notation, with the extensions of llguidance.

        `mask` raises BadInput for an invalid one.
        """
        return cls(lark_grammar(check_length(source, "grammar")), spelled=spelled)

    def mask(self, tokenizer: Tokenizer, eos_token_id: EndTokens = None) -> GrammarMask:
        """The mask of one text, at its start. Raises CannotDo for a tokenizer that cannot express it."""
        tokens = grammar_tokens(tokenizer, self.spelled)
        if self.schema is not None:
            check_characters(tokenizer)
        matcher = build_matcher(tokens, self.source)
        if matcher.is_error():
            raise BadInput(f"the grammar is not valid: {error_sentence(matcher)}")
        mask = GrammarMask(self, matcher, eos_token_id)
        mask.allowed()
        if mask.finished:
            raise BadInput("the grammar allows only the empty text; use a grammar that allows other texts")
        return mask

    def check(self, text: str) -> None:
        """Raises GrammarViolation if a complete text does not match the grammar."""
        if self.schema is not None:
            check_follows(text, json.loads(self.schema))
        elif self.pattern is not None:
            matcher, written = build_matcher(byte_tokens(), self.source), list(text.encode())
            if matcher.try_consume_tokens(written) < len(written) or not matcher.is_accepting():
                raise GrammarViolation("the generated text does not match the regular expression")


class GrammarMask:
    """The tokens that a grammar allows next in one text. A `constraints.TokenMask`.

    >>> from clearstory.text.train_tokenizer import train_tokenizer
    >>> mask = Grammar.of_regex("ab?").mask(train_tokenizer("bytes", []), eos_token_id=256)
    >>> mask.advance(ord("a"))
    >>> mask.allowed().nonzero().flatten().tolist()  # "b", or the end
    [98, 256]
    """

    def __init__(self, grammar: Grammar, matcher: LLMatcher, eos_token_id: EndTokens) -> None:
        self.grammar = grammar
        self.matcher = matcher
        self.ends = frozenset(end_token_ids(eos_token_id))
        self.ended = False
        self._following: npt.NDArray[np.bool_] | None = None

    @property
    def following(self) -> npt.NDArray[np.bool_]:
        """Which tokens may follow in the text, end tokens aside; computed once for each token."""
        if self._following is None:
            self._following = allowed_ids(self.matcher)
            self._following[[id for id in self.ends if id < len(self._following)]] = False
        return self._following

    @property
    def finished(self) -> bool:
        """Whether the text is complete, and no token may follow."""
        return self.ended or (self.matcher.is_accepting() and not self.following.any())

    def allowed(self) -> Bool[Tensor, "K"]:
        """Tokens that may be generated next, (K,). Raises CannotDo if no token of the vocabulary is allowed."""
        allowed = self.following.copy()
        if self.matcher.is_accepting():
            allowed[[id for id in self.ends if id < len(allowed)]] = True
        elif not allowed.any():
            raise CannotDo(
                "the grammar allows no token of this model's vocabulary "
                f"({error_sentence(self.matcher) or self.matcher.stop_reason()}); simplify it, or use another model"
            )
        return torch.from_numpy(allowed)

    def advance(self, id: int) -> None:
        """Advance by the generated token. Raises GrammarViolation for a token that is not allowed."""
        self._following = None
        if id in self.ends:
            self.ended = True
        elif not self.matcher.consume_token(id):
            raise GrammarViolation(f"token {id} is not allowed by the grammar ({error_sentence(self.matcher)})")

    def copy(self) -> GrammarMask:
        """The mask of another text, in the same state."""
        other = GrammarMask(self.grammar, self.matcher.deep_copy(), tuple(self.ends))
        other.ended = self.ended
        return other


def json_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of JSON that is valid for a schema, in llguidance's format."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(dict(schema), overrides=JSON_OPTIONS)


def json_rule(schema: Mapping[str, Any]) -> str:
    """The same as a rule for grammars in Lark's notation."""
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}"


def lark_grammar(source: str) -> str:
    """A grammar in Lark's notation, in llguidance's format."""
    return json.dumps({"grammars": [{"lark_grammar": source}]})


def check_length(source: str, name: str) -> str:
    """A grammar or regular expression; BadInput is raised if it is too long. `name`: what it is."""
    byte_tokens()  # raises MissingExtra
    if len(source) > MAX_GRAMMAR_LENGTH:
        raise BadInput(f"the {name} has {len(source):,} characters; at most {MAX_GRAMMAR_LENGTH:,} are supported")
    return source


def source_error(source: str) -> str:
    """Why a grammar is invalid, in one line; empty if it is valid."""
    return error_sentence(build_matcher(byte_tokens(), source))


def check_characters(tokenizer: Tokenizer) -> None:
    """Raises CannotDo for a tokenizer without tokens for the characters of JSON."""
    missing = sorted(JSON_CHARACTERS - single_characters(tokenizer))
    if missing:
        raise CannotDo(f"this model's vocabulary has no token for {' '.join(missing[:8])}, so it cannot generate JSON")


@lru_cache(maxsize=8)
def single_characters(tokenizer: Tokenizer) -> frozenset[str]:
    """The ASCII characters that have a token of their own."""
    tokens = map(tokenizer.token_bytes, range(tokenizer.vocab))
    return frozenset(token.decode() for token in tokens if len(token) == 1 and token.isascii())
