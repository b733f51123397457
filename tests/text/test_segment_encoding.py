"""Segments, and tables of characters and bytes, give the ids of the tokenizers library."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clearstory.errors import BadInput
from clearstory.text import segment_encoding
from clearstory.text.pretokenizers import BYTE_LEVEL, BYTE_LEVEL_NO_REGEX, CL100K, PRETOKENIZERS, sequence, split_step
from clearstory.text.segment_encoding import (
    JOINED_LINE_ENDS,
    SEPARATE_LINE_ENDS,
    SPACE,
    SegmentIds,
    pattern_for,
)
from clearstory.text.token_dataset import encode_text
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

TRAINING = (
    "The cat sat on the mat, and isn't it 'tis 1234 times?\n\n  Indented (text) --- x = [1, 22, 333];\r\n"
    "HTTPServer's naïve café Straße, привет мир. 春はあけぼの。やうやう\n"
    "Σίσυφος ὀδός… “Quoted,” he said.\n\tTabs\t\tand   spaces/\n/paths"
)

CL100K_STEPS = sequence(split_step(CL100K), BYTE_LEVEL_NO_REGEX)


@cache
def tokenizer(name: str) -> Tokenizer:
    """A trained tokenizer of one of the kinds, or a BPE of that pre-tokenizer."""
    if name in ("characters", "bytes", "words", "wordpunct"):
        return train_tokenizer(name, [TRAINING])
    if name.startswith(("unigram", "wordpiece")):
        return train_tokenizer(f"{name.partition('-')[0]}:400", [TRAINING] * 4, uncased=name.endswith("uncased"))
    parts: dict[str, Any] = json.loads(train_tokenizer("bpe:500", [TRAINING] * 4).contents)
    if name == "cl100k":
        parts["pre_tokenizer"] = CL100K_STEPS
    elif name != "added":
        pretokenizer = PRETOKENIZERS[name]
        parts["pre_tokenizer"], parts["normalizer"] = pretokenizer.pre_tokenizer, pretokenizer.normalizer
        parts["model"]["ignore_merges"] = pretokenizer.ignore_merges
    else:
        flags = {"single_word": False, "lstrip": True, "rstrip": False, "normalized": False, "special": False}
        parts["added_tokens"] += [{"id": 500 + at, "content": name, **flags} for at, name in enumerate(["<t>", " cat"])]
    return Tokenizer(json.dumps(parts))


SEGMENTED = [*PRETOKENIZERS, "cl100k", "added", "unigram", "wordpiece", "wordpiece-uncased"]
NAMES = [*SEGMENTED, "characters", "bytes", "words", "wordpunct"]

PIECES = [
    *" \t\n\r\x0b\x0c\x00\x1c\x7f\x85\xa0\u2003\u2028\u3000'’.,!?/_-+<>()[]aZ19éßſΣς½²٣Ⅷ中はガ",
    *("\u0301", "\u0338", "\u200d", "\ufeff", "😀", "e\u0301", "\u1e9b\u0323", "\u212b", "\u037e", "ﬁ", "İ", "…\n"),
    *("\r\n", "\n\n", "  ", "   ", "'s", "'LL", "don't", "'ſ", "cat", " cat", "The", "123456", "中文\n", ",\n\n"),
    *("\n/", "<|endoftext|>", "[CLS]", "[MASK]", "<unk>", "<eos>", "<t>"),
]

hostile = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def by_library(tokenizer: Tokenizer, text: str) -> list[int]:
    """The library's ids of a text; special tokens that it spells are characters."""
    return tokenizer.encode_plain(text, add_special_tokens=False)[1]


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(texts=st.lists(hostile | anything, max_size=3))
@example(texts=[TRAINING])
@example(texts=["x 'tis,\n\n  y z\u0301", "a\u3000 b\x0bc\n/d", "中。\n文\n\n ", "<t> <t>the cat<t>", " \n \u2003"])
def test_arrays_are_the_ids_of_the_library(name: str, texts: list[str]) -> None:
    arrays = tokenizer(name).encode_arrays(texts)
    assert [ids.tolist() for ids in arrays] == [by_library(tokenizer(name), text) for text in texts]
    assert {ids.dtype for ids in arrays} <= {tokenizer(name).id_dtype}


CHARACTERS = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]


def varied_characters() -> list[str]:
    """All characters, but of ideographs, syllables of Hangul, private and unassigned ones every 50th: Unicode makes no
    difference among these, and they are four in five.
    """
    many = ("CJK UNIFIED", "HANGUL SYLLABLE", "TANGUT")
    alike = [
        one
        for one in CHARACTERS
        if unicodedata.category(one) in ("Cn", "Co") or unicodedata.name(one, "").startswith(many)
    ]
    return sorted({*CHARACTERS} - {*alike} | {*alike[::50]})


@pytest.mark.parametrize(
    ("name", "every"),
    [(name, False) for name in NAMES] + [pytest.param(name, True, marks=pytest.mark.slow) for name in NAMES],
)
def test_every_character_is_encoded_as_by_the_library(name: str, every: bool) -> None:
    # Of all characters, others for each tokenizer.
    characters = varied_characters() if every else CHARACTERS[NAMES.index(name) :: 500]
    text = "".join(f"a{one}{one} {one}b,{one}\n{one}1 .{one}" for one in characters)
    assert tokenizer(name).encode_arrays([text])[0].tolist() == by_library(tokenizer(name), text)


@pytest.mark.parametrize("name", SEGMENTED)
def test_long_texts_are_encoded_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tokenizer(name)
    expected = by_library(one, TRAINING * 30)
    monkeypatch.setattr(segment_encoding, "CHUNK", 100)
    monkeypatch.setattr(segment_encoding, "CACHED_SEGMENTS", 20)
    monkeypatch.setattr(segment_encoding, "CACHED_CHARACTERS", 5)
    assert one.encode_arrays([TRAINING * 30])[0].tolist() == expected


@pytest.mark.parametrize("name", NAMES)
def test_texts_without_spaces_and_without_end_are_encoded_as_by_the_library(name: str) -> None:
    for text in (
        "a" * 5000,
        " " * 5000,
        "\n" * 5000,
        "中" * 3000,
        ".'" * 2000,
        "é" * 3000,
        "9" * 3000,
        "x\u0301" * 2000,
    ):
        assert tokenizer(name).encode_arrays([text])[0].tolist() == by_library(tokenizer(name), text)


@pytest.mark.parametrize("pattern", [SEPARATE_LINE_ENDS, JOINED_LINE_ENDS])
@given(text=hostile | anything)
def test_segments_have_no_gaps(pattern: re.Pattern[str], text: str) -> None:
    assert "".join(pattern.findall(text)) == text


def test_white_space_is_what_the_library_takes_for_it() -> None:
    from tokenizers import Regex, pre_tokenizers

    every = "".join(chr(code) for code in range(0x4000))  # beyond, there is none in any version of Unicode
    spaces = pre_tokenizers.Split(Regex(r"\s+"), "removed", invert=True).pre_tokenize_str(every)
    assert "".join(piece for piece, _ in spaces) == "".join(re.findall(f"[{SPACE}]", every))


def test_the_cache_is_bounded() -> None:
    ids_of = SegmentIds(lambda text: [len(text)], "I")
    for number in range(segment_encoding.CACHED_SEGMENTS + 1000):
        assert ids_of[f"w{number}"] == np.uint32(len(str(number)) + 1).tobytes()
    assert len(ids_of) == 1000
    assert ids_of["x" * 100] == np.uint32(100).tobytes()
    assert "x" * 100 not in ids_of


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": {**BYTE_LEVEL, "add_prefix_space": True}},
        {"pre_tokenizer": BYTE_LEVEL_NO_REGEX},
        {"pre_tokenizer": split_step("a+")},
        {"pre_tokenizer": {"type": "Metaspace"}},
        {"pre_tokenizer": None},
        {"normalizer": {"type": "NFKC"}},
        {"model": {"dropout": 0.1}},
        {"normalizer": {"type": "NFC"}, "added_tokens": [{"content": "K"}]},
    ],
)
def test_other_tokenizers_are_left_to_the_library(change: dict[str, Any]) -> None:
    assert pattern_for({"pre_tokenizer": BYTE_LEVEL, "normalizer": None, "model": {}, **change}) is None


@pytest.mark.parametrize("name", NAMES)
def test_unpaired_surrogates_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="surrogate"):
        tokenizer(name).encode_arrays(["a \ud800 b"])
    with pytest.raises(BadInput, match="surrogate"):
        tokenizer(name).encode("a \ud800 b")


def test_a_data_set_of_many_short_texts_is_that_of_the_library() -> None:
    texts = [line for line in TRAINING.split("\n") for _ in range(3)] + [""] * 3
    one = tokenizer("gpt-2")
    dataset = encode_text(one, texts)
    expected = [[*by_library(one, text), one.eos_token_id] for text in texts]
    assert dataset.ids.tolist() == [id for ids in expected for id in ids]
    assert np.diff(dataset.starts).tolist() == [len(ids) for ids in expected]
    assert dataset.bytes == dataset.text_bytes
