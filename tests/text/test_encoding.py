"""Texts with special tokens in them are encoded the same with and without a second tokenizer that hides their names."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clearstory.text import encoding
from clearstory.text.encoding import TextPiece, are_independent, encode_pieces
from clearstory.text.pretokenizers import PRETOKENIZERS
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

NAMES = ("<|start|>", "<|end|>", "<think>")


@cache
def tokenizer(name: str) -> Tokenizer:
    """A trained tokenizer with two special tokens and one that is not."""
    kind = name if name in ("unigram", "wordpiece") else "bpe"
    parts: dict[str, Any] = json.loads(
        train_tokenizer(f"{kind}:400", ["The cat's end, isn't it 12 naïve?\n\n "] * 9).contents
    )
    if name in PRETOKENIZERS:
        parts["pre_tokenizer"] = PRETOKENIZERS[name].pre_tokenizer
        parts["normalizer"] = PRETOKENIZERS[name].normalizer
    flags = {"single_word": False, "lstrip": name == "strips", "rstrip": False, "normalized": False}
    first = len(parts["model"]["vocab"]) + 10
    parts["added_tokens"] += [
        {"id": first + at, "content": each, **flags, "special": each != "<think>"} for at, each in enumerate(NAMES)
    ]
    return Tokenizer(json.dumps(parts))


texts = st.lists(st.sampled_from([*"a 1\n.é'中", "cat", "  ", "e\u0301", *NAMES, "<|endoftext|>"]), max_size=6).map(
    "".join
)
pieces = st.lists(
    st.builds(TextPiece, texts, start=st.sampled_from([None, 0, 5]))
    | st.builds(TextPiece, st.sampled_from(NAMES), special=st.just(True), start=st.sampled_from([None, 3])),
    max_size=7,
)


NAMES_AND_END = frozenset({*NAMES, "<|endoftext|>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "qwen2", "smollm", "unigram", "wordpiece", "strips"])
@settings(deadline=None)
@given(parts=pieces)
@example(parts=[TextPiece("<|start|>", special=True), TextPiece(" a  ", start=0), TextPiece("<|end|>", special=True)])
@example(parts=[TextPiece("a <|end|> b", start=0), TextPiece("<|end|>", special=True), TextPiece("\n")])
def test_both_ways_of_encoding_pieces_are_equal(name: str, parts: list[TextPiece]) -> None:
    one = tokenizer(name)
    names = NAMES_AND_END & one.added_names
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "are_independent", lambda *_: False)
        expected = encode_pieces(one, parts, add_special_tokens=False, names=names)
    assert encode_pieces(one, parts, add_special_tokens=False, names=names) == expected


def test_a_second_tokenizer_is_built_only_where_it_is_needed() -> None:
    one, end = tokenizer("gpt-2"), TextPiece("<|end|>", special=True)
    names = one.special_names
    assert are_independent(one, [TextPiece("Hi"), end], names)
    assert not are_independent(one, [TextPiece("a <|end|>"), end], names)
    assert not are_independent(one, [TextPiece("a <|e"), TextPiece("nd|>"), end], names)
    assert not are_independent(tokenizer("strips"), [TextPiece("Hi "), end], tokenizer("strips").special_names)
    encode_pieces(one, [TextPiece("Hi"), end], add_special_tokens=False, names=names)
    assert names not in one._hidden


@pytest.mark.parametrize("name", ["gpt-2", "unigram", "strips"])
def test_ids_are_those_of_the_encoding_with_offsets_which_is_computed_when_asked(name: str) -> None:
    one, computed = tokenizer(name), []
    with pytest.MonkeyPatch.context() as patch:
        locate = encoding.locate_tokens
        patch.setattr(encoding, "locate_tokens", lambda *given: computed.append(given) or locate(*given))
        for parts in (
            [TextPiece("a <|end|> cat", start=0)],
            [TextPiece("a cat", start=0), TextPiece("<|end|>", special=True), TextPiece(" 1\n")],
            [TextPiece("a <|end|> cat", start=0), TextPiece("<|end|>", special=True)],
        ):
            found = encode_pieces(one, parts, add_special_tokens=False, names=NAMES_AND_END & one.added_names)
            assert not computed
            assert len(found.spans) == len(found.special) == len(found.ids)
            assert computed
            computed.clear()
    assert list(one.encode_plain_ids("a <|end|> cat", False)) == one.encode_plain("a <|end|> cat", False)[1]
