"""The word-and-punctuation tokenizer: NLTK's tokens, the library's ids, transformers' ids."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer
from clearstory.text.wordpunct_tokenizer import OTHER_CHARACTERS, TOKEN, is_wordpunct

TEXT = "\"True,\" he said -- it's naïve (isn't it?)\n\nЭто да: <unk> e\u0301t\u0301é ...\n"
TOKENIZER = train_tokenizer("wordpunct", [TEXT * 2])


def theirs(text: str) -> list[int]:
    ids: list[int] = TOKENIZER._backend.encode(text, add_special_tokens=False).ids
    return ids


def tokens(text: str) -> list[str]:
    names = {id: token for token, id in TOKENIZER.ids.items()}
    return [names[id] for id in TOKENIZER.encode(text)]


def test_the_tokens_are_those_of_nltk() -> None:
    # NLTK 3.9, WordPunctTokenizer().tokenize: re.findall(r"\w+|[^\w\s]+", text)
    line = "\"True,\" he said -- it's naïve (isn't it?)"
    assert tokens(line) == [
        '"',
        "True",
        ',"',
        "he",
        "said",
        "--",
        "it",
        "'",
        "s",
        "naïve",
        "(",
        "isn",
        "'",
        "t",
        "it",
        "?)",
    ]
    assert tokens(line) == re.findall(r"\w+|[^\w\s]+", line)
    assert tokens("\n\nhe\n") == ["<eos>", "<eos>", "he", "<eos>"]
    assert tokens("<unk> <eos> cat") == ["<unk>", "<unk>", "<unk>", "<unk>", "<unk>"]  # <eos> typed is <, eos, >
    assert TOKENIZER.eos_ends_lines
    assert TOKENIZER.kind == "wordpunct"


PARTS = ["he", "it", "'", ",", '"', "<eos>", "<unk>", "<e", "os>", " ", "\n", "\t", "\r", "\x1c", "\xa0", "\u3000",
         "é", "e\u0301", "²", "_", "да", "ि", "🙂", "日本", "𝟙"]  # fmt: skip


@settings(deadline=None)
@given(text=st.lists(st.sampled_from(PARTS)).map("".join))
def test_the_fast_encoder_equals_the_library(text: str) -> None:
    assert TOKENIZER._fast_encode is not None
    assert TOKENIZER.encode(text) == TOKENIZER.encode_batch([text])[0] == theirs(text)


def test_python_and_the_library_agree_on_the_characters_of_the_fast_path() -> None:
    every = (chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000)
    common = [each for each in every if OTHER_CHARACTERS.search(each) is None]
    assert len(common) > 40_000
    for before, after in (("a", "b"), ("'", ""), ("'", "'")):  # they join letters, or punctuation marks, or neither
        text = "\n".join(f"{before}{each}{after}" for each in common if each != "\n")
        split = TOKENIZER._backend.pre_tokenizer.pre_tokenize_str(text)
        assert [token for token, _ in split] == [token for token in TOKEN.findall(text) if token != "\n"]


def test_transformers_opens_it_with_the_same_ids(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    TOKENIZER.save(tmp_path)
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (TEXT, "he, she\nand it's", "déjà 日本 🙂\n"):
        assert opened(text, add_special_tokens=False)["input_ids"] == TOKENIZER.encode(text)
        assert opened.decode(TOKENIZER.encode(text), clean_up_tokenization_spaces=False) == TOKENIZER.decode(
            TOKENIZER.encode(text)
        )
    assert Tokenizer.open(tmp_path).encode(TEXT) == TOKENIZER.encode(TEXT)


def test_the_most_frequent_tokens_come_first_and_a_size_limits_them() -> None:
    small = train_tokenizer("wordpunct:4", ["b, a, b, c"])
    assert small.ids == {"<unk>": 0, "<eos>": 1, ",": 2, "b": 3}
    assert small.decode(small.encode("b, b\nb")) == "b, b\nb"
    assert not is_wordpunct(json.loads(train_tokenizer("words", ["a"]).contents))
