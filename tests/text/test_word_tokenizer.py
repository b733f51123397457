"""The fast word encoder gives the ids of the tokenizers library."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.word_tokenizer import fast_encoder, word_level_json, words_by_frequency

WORDS = train_tokenizer("words", ["a b <unk> a <eos> e\u0301 a\n\nc b"])


def theirs(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer._backend.encode(text, add_special_tokens=False).ids
    return ids


PARTS = [*"abcé \n\t\r\x0b\x1c\xa0\u3000", "<eos>", "<unk>", "<e", "os>", "<s>"]


@settings(deadline=None)
@given(text=st.lists(st.sampled_from(PARTS)).map("".join))
def test_the_fast_encoder_equals_the_library(text: str) -> None:
    assert WORDS._fast_encode is not None
    assert WORDS.encode(text) == WORDS.encode_batch([text])[0] == theirs(WORDS, text)
    assert WORDS._fast_encode(text) == theirs(WORDS, text)


def test_ascii_white_space_separates_words_as_in_the_library() -> None:
    every = "a".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    assert WORDS.encode(every) == theirs(WORDS, every)
    assert len(WORDS.encode(every)) == 8  # six characters separate seven words; the line feed is a token itself


def test_words_are_ordered_by_frequency_and_ties_alphabetically() -> None:
    assert words_by_frequency(["b a\x1ca c", "c <eos> <unk>"], "<eos>") == ["c", "a\x1ca", "b"]


@pytest.mark.parametrize("word", ["<unk>", "<UNK>", "<s>", "</s>", "<eos>"])
def test_reserved_words_of_a_text_are_unknown_words(word: str) -> None:
    tokenizer = train_tokenizer("words", [f"a {word} b{word} {word}\n"])
    assert tokenizer.ids.keys() == {"<unk>", "<eos>", "a", f"b{word}"}
    assert tokenizer.encode(f"b{word} {word}\n") == [tokenizer.ids[f"b{word}"], 0, 1]
    assert tokenizer.decode(tokenizer.encode(f"a b{word}\n\n a")) == f"a b{word}\n\na"
    assert tokenizer._fast_encode is not None
    assert theirs(tokenizer, f"{word}\n{word} {word}{word}") == tokenizer.encode(f"{word}\n{word} {word}{word}")


@pytest.mark.parametrize("change", ["added", "normalizer", "pre_tokenizer", "model", "unknown"])
def test_other_tokenizers_have_no_fast_encoder(change: str) -> None:
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


def test_special_tokens_in_the_training_text_get_no_role() -> None:
    tokenizer = train_tokenizer("words", ["<s> a </s> <pad>\n"])
    assert tokenizer.bos_token_id is None
    assert tokenizer.pad_token_id is None
