"""Words cut here and words cut by the library are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.word_tokenizer import words_by_frequency, fast_encoder, word_level_json

WORDS = train_tokenizer("words", ["a b <unk> a <eos> e\u0301 a\n\nc b"])


def theirs(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer._backend.encode(text, add_special_tokens=False).ids
    return ids


PARTS = ["a", "b", "c", "<eos>", "<unk>", "<e", "os>", " ", "\n", "\t", "\r", "\x1c", "\x1f", "\u3000", "é"]


@settings(deadline=None)
@given(text=st.lists(st.sampled_from(PARTS)).map("".join))
def test_what_is_cut_here_is_what_the_library_cuts(text: str) -> None:
    assert WORDS._fast_encode is not None
    assert WORDS.encode(text) == WORDS.encode_batch([text])[0] == theirs(WORDS, text)
    assert WORDS._fast_encode(text) == theirs(WORDS, text)


def test_every_character_of_unicode_divides_or_does_not_as_there() -> None:
    every = "a".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    assert WORDS.encode(every) == theirs(WORDS, every)
    assert len(WORDS.encode(every)) == 27  # 25 divide, and one of them is a line feed, a token of its own


def test_the_commonest_word_comes_first_and_equals_by_their_letters() -> None:
    assert words_by_frequency(["b a\x1ca c", "c <eos> <unk>"], "<eos>") == ["c", "a\x1ca", "b"]


@pytest.mark.parametrize("change", ["added", "normalizer", "pre_tokenizer", "model", "unknown"])
def test_another_tokenizer_is_left_to_the_library(change: str) -> None:
    parts: dict[str, Any] = json.loads(word_level_json(["<unk>", "<eos>", "a"], "<eos>"))
    assert fast_encoder(parts) is not None
    assert fast_encoder(json.loads(word_level_json(["<unk>", "a"], None))) is not None
    if change == "added":
        parts["added_tokens"] = [{"content": "a"}]
    elif change == "normalizer":
        parts["normalizer"] = {"type": "Lowercase"}
    elif change == "pre_tokenizer":
        parts["pre_tokenizer"] = {"type": "Whitespace"}
    elif change == "model":
        parts["model"]["type"] = "WordPiece"
    else:
        del parts["model"]["vocab"]["<unk>"]
    assert fast_encoder(parts) is None


def test_a_text_that_spells_a_beginning_does_not_begin_with_it() -> None:
    tokenizer = train_tokenizer("words", ["<s> a </s> <pad>\n"])
    assert tokenizer.bos_token_id is None
    assert tokenizer.pad_token_id is None
