"""Untrusted tokenizers: what would take hours or gigabytes is refused; failures of the library are errors of ours."""

from __future__ import annotations

import base64
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from clearstory.errors import BadInput, CorruptFile
from clearstory.text import limited_backend
from clearstory.text.tokenizer_limits import check_growth, check_tokenizer_json, flat_steps
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

CHARACTERS: dict[str, Any] = json.loads(train_tokenizer("characters", ["aeno!. "]).contents)


def tokenizer(**parts: Any) -> Tokenizer:
    """A character tokenizer with other parts."""
    return Tokenizer(json.dumps({**CHARACTERS, **parts}))


def replaced(pattern: str, content: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def normalized(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def charsmap(replacement: bytes) -> dict[str, Any]:
    """A table of SentencePiece with one unit of trie and one replacement."""
    data = struct.pack("<II", 4, 0) + replacement + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


TEN = replaced(".", "." * 10)
SPECIAL = {"SpecialToken": {"id": "a", "type_id": 0}}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [SPECIAL] * 2000,
    "pair": [],
    "special_tokens": {"a": {"id": "a", "ids": [1], "tokens": ["a"]}},
}
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "seven times ten": (normalized(*[TEN] * 7), "normalizer can make a text more than 1,000 times longer"),
    "in turn": (normalized(*[replaced("a", "eee"), replaced("e", "aaa")] * 4), "more than 1,000 times"),
    "by a regex": (normalized(*[replaced(".", "aaaa", "Regex")] * 6), "more than 1,000 times"),
    "between characters": (normalized(*[replaced("", "aaaa", "Regex")] * 6), "more than 1,000 times"),
    "after lower case": (normalized(replaced("a", "A" * 40), {"type": "Lowercase"}, replaced("a", "n" * 40)), "1,000"),
    "prepended": (normalized(*[{"type": "Prepend", "prepend": "a" * 100}] * 20), "more than 1,000 times"),
    "one long text": (normalized(replaced("a", "a" * 5000)), "more than 1,000 times"),
    "nested": (
        {"normalizer": {"type": "Sequence", "normalizers": [normalized(*[TEN] * 7)["normalizer"]]}},
        "1,000 times",
    ),
    "a decoder": ({"decoder": {"type": "Sequence", "decoders": [replaced("a", "a" * 10)] * 7}}, "decoder can make"),
    "many steps": (normalized(*[{"type": "NFC"}] * 500), "more than 200 steps"),
    "a table": (normalized(charsmap(b"a" * 5000)), "more than 1,000 times"),
    "a damaged table": (normalized({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "charsmap is damaged"),
    "a table of other bytes": (normalized(charsmap(b"\xff\xfe")), "charsmap is damaged"),
    "no base64": (normalized({"type": "Precompiled", "precompiled_charsmap": "§"}), "charsmap is damaged"),
    "a template": ({"post_processor": TEMPLATE}, "adds more than 1,000 tokens"),
    "a long token": ({"model": {**CHARACTERS["model"], "vocab": {"a" * 200_000: 0}}}, "token of 200,000 characters"),
    "a huge id": ({"model": {**CHARACTERS["model"], "vocab": {"a": 0, "e": 4_000_000_000}}}, "an id of 4,000,000,000"),
    "long words": (
        {"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a", "max_input_chars_per_word": 10**9}},
        "words of up to 1,000,000,000 characters",
    ),
    "a long pattern": ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a" * 20_000}}}, "20,000 characters"),
    "no model": ({"model": None}, "has no 'model'"),
    "dropout": ({"model": {**CHARACTERS["model"], "dropout": 5}}, "damaged or of a newer version"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tokenizer_is_refused_when_it_is_opened(name: str, tmp_path: Path) -> None:
    parts, sentence = HOSTILE[name]
    (tmp_path / "tokenizer.json").write_text(json.dumps({**CHARACTERS, **parts}))
    with pytest.raises(CorruptFile, match=sentence) as error:
        Tokenizer.open(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    "contents",
    [
        "[" * 100_000,
        '{"model": ' * 5000 + "1" + "}" * 5000,
        json.dumps({**CHARACTERS, "added_tokens": [{}] * 250_000}),
        json.dumps(CHARACTERS).replace('"a"', '"\\ud800"'),
        "[" * 3_000_000,
    ],
    ids=["brackets", "nested", "added tokens", "half a surrogate pair", "many brackets"],
)
def test_contents_that_no_tokenizer_has_are_refused(contents: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(contents)
    with pytest.raises(CorruptFile, match=r"is not valid JSON|more than the limit for tokenizers"):
        Tokenizer.open(tmp_path)


REGEXES = ["(a+)+$", "(a|a)*!", "(a*)*n"]


@pytest.mark.parametrize("pattern", REGEXES)
def test_a_regular_expression_without_end_is_an_error(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_backend, "SECONDS", 0.5)
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    for parts in ({"pre_tokenizer": split}, normalized(replaced(pattern, "n", "Regex"))):
        hostile = tokenizer(**parts)
        assert hostile.encode("e") == [hostile.ids["e"]]
        with pytest.raises(BadInput, match=r"the tokenizer (fails on this text|takes more than)"):
            hostile.encode("a" * 3000 + "e!n")


def test_a_call_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(BadInput, match=r"takes more than 0\.1 s"):
        limited_backend.call_within(lambda: time.sleep(0.5), 0.1)
    assert limited_backend.call_within(lambda: 7, 5.0) == 7


@pytest.mark.parametrize(
    "steps",
    [
        [{"type": "Prepend", "prepend": "▁"}, replaced(" ", "▁")],  # Llama 2
        [{"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}, replaced(" {2,}", " ", "Regex")],  # ALBERT
        [{"type": "BertNormalizer"}],
        [replaced(chr(ord("a") + at), f"<{at}>" * 4) for at in range(20)],
        [{"type": "NFC"}, {"type": "ByteLevel"}],
        [charsmap("ﷺ".encode()), {"type": "Strip"}, replaced(" {2,}", "▁", "Regex")],  # T5
    ],
)
def test_the_steps_of_published_tokenizers_pass(steps: list[dict[str, Any]]) -> None:
    check_growth(list(flat_steps(normalized(*steps)["normalizer"], "normalizer")), "normalizer")


def test_a_bound_is_never_below_the_growth_that_the_library_shows() -> None:
    steps = [replaced("a", "een"), replaced("e", "ooo"), replaced("no", "aaaa", "Regex"), replaced("oo", ". . ")]
    grown = tokenizer(**normalized(*steps))._backend.normalizer.normalize_str("a" * 50)
    assert len(grown) / 50 < 1000
    check_tokenizer_json({**CHARACTERS, **normalized(*steps)})


@pytest.mark.parametrize("form", ["Regex", "String"])
def test_a_text_that_a_normalizer_makes_much_longer_is_refused_before_it_is_encoded(form: str) -> None:
    grows = tokenizer(normalizer=replaced("", "n" * 900, form))
    assert len(grows.encode("a")) == 1 + 2 * 900 or form == "String"
    with pytest.raises(BadInput, match="20,000 characters into more than 170,000"):
        grows.encode("a" * 20_000)


def test_an_added_token_without_characters_is_refused() -> None:
    with pytest.raises(CorruptFile, match="without characters"):
        tokenizer(added_tokens=[{"id": 9, "content": "", "special": True}]).encode("a")


def test_unigram_pieces_of_thousands_of_characters_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_backend, "SECONDS", 0.1)
    monkeypatch.setattr(limited_backend, "CHARACTERS_PER_SECOND", 10**9)
    pieces = [["<unk>", 0.0], *(["a" * size, -1.0] for size in range(1, 2000))]
    slow = tokenizer(model={"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": False}, added_tokens=[])
    with pytest.raises(BadInput, match=r"more than 0\.1 s"):
        slow.encode("a" * 6000)


def test_wordpiece_with_very_long_words_is_refused() -> None:
    with pytest.raises(CorruptFile, match="words of up to 9,999 characters"):
        check_tokenizer_json({"model": {"vocab": {"a": 0}, "max_input_chars_per_word": 9999}})


def test_words_that_are_each_matched_slowly_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_backend, "SECONDS", 0.1)
    monkeypatch.setattr(limited_backend, "CHARACTERS_PER_SECOND", 10**9)
    split = {"type": "Split", "pattern": {"Regex": "(?:(?:a+a+)+n|^)"}, "behavior": "Isolated", "invert": False}
    slow = tokenizer(pre_tokenizer=split)
    with pytest.raises(BadInput, match=r"more than 0\.1 s|fails on this text"):
        slow.encode(("a" * 20 + ".") * 60)
