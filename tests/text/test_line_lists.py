"""Line lists: a warning for lists that are split by position, none for prose, poems, plays and code."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from clearstory.text.corpus import Corpus
from clearstory.text.line_lists import is_line_list
from clearstory.text.settings import DataSettings

SYLLABLES = ("ka", "lo", "mi", "ren", "ta", "vo", "sha", "el", "dor", "in")
RNG = random.Random(1)


def word(length: int = 3) -> str:
    return "".join(RNG.choice(SYLLABLES) for _ in range(RNG.randint(2, length)))


def sentence(words: int) -> str:
    return " ".join(word() for _ in range(words)).capitalize()


LISTS = {
    "names": [word() for _ in range(400)],
    "full names": [f"{word().title()} {word().title()}" for _ in range(400)],
    "titles": [f"The {word().title()} of {word().title()} and {word().title()}" for _ in range(400)],
    "addresses": [f"{n} {word().title()} Street, {word().title()}" for n in range(400)],
    "entries in alphabetical order": sorted(f"{word()} {sentence(9).lower()}" for _ in range(400)),
    "formulas": ["".join(RNG.choice("CNO=()12c") for _ in range(30)) + "C" for _ in range(400)],
    "numbers": [str(RNG.random()) for _ in range(400)],
    "Chinese names": ["".join(chr(RNG.randrange(0x4E00, 0x9000)) for _ in range(3)) for _ in range(400)],
    "with line ends of Windows": [f"{word()}\r" for _ in range(400)],
}

WRAPPED = [sentence(12) if n % 5 else sentence(11).lower() + "." for n in range(400)]
STANZAS = [line for n in range(100) for line in (sentence(5), sentence(6), sentence(5), sentence(6), "")]
TEXTS = {
    "wrapped prose": WRAPPED,
    "a paragraph on each line": [". ".join(sentence(12) for _ in range(6)) + "." for _ in range(400)],
    "a sentence on each line": [sentence(8) + "." for _ in range(400)],
    "lyrics": STANZAS,
    "a poem without stanzas": [sentence(7) + RNG.choice([",", ";", ".", "", ""]) for _ in range(400)],
    "haiku": [line for _ in range(100) for line in (sentence(3), sentence(4), sentence(3), "")],
    "a play": [line for _ in range(100) for line in (f"{word().upper()}:", sentence(8) + ",", sentence(7) + ".", "")],
    "code": [line for n in range(100) for line in (f"def f{n}(x):", "    y = x + 1", "    return y", "")],
    "includes": [f"#include <{word()}.h>" for _ in range(400)],
    "C": [line for n in range(200) for line in (f"int f{n}(int x) {{", "x++;", "}")],
    "a word on each line": [RNG.choice(["the", "of", "and", word(2)]) for _ in range(4000)],
    "wrapped Chinese": ["".join(chr(RNG.randrange(0x4E00, 0x9000)) for _ in range(40)) for _ in range(400)],
    "few lines": [word() for _ in range(30)],
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_are_recognized(name: str) -> None:
    assert is_line_list("\n".join(LISTS[name]) + "\n")


@pytest.mark.parametrize("name", TEXTS)
def test_running_texts_are_not_lists(name: str) -> None:
    assert not is_line_list("\n".join(TEXTS[name]) + "\n")


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_list_that_is_split_by_position_is_reported(ending: str, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("\n".join(["Maximilian", *LISTS["names"]]) + ending)
    warning = (
        "names.txt: 401 lines of at most 10 characters; it is read as one document and split by position; --data.lines "
        "makes each line a document"
    )
    assert Corpus.open(file).note == warning.replace("10", str(max(10, *map(len, LISTS["names"]))))
    assert Corpus.open(file, DataSettings(lines=True)).note is None
    assert Corpus.open(file, DataSettings(validation=0.0)).note is None  # it is not split
    (tmp_path / "more.txt").write_text("Another file.")
    assert Corpus.open(tmp_path).note is None  # each file is a document


def test_real_names_are_a_list_and_shakespeare_is_none(data: Path) -> None:
    note = str(Corpus.open(data / "names" / "names.txt.gz").note)
    assert note.startswith("names.txt.gz: 32,033 lines of at most 15 characters; it is read as one document and split")
    assert Corpus.open(data / "names" / "names.txt.gz", DataSettings(lines=True)).size == 32_033
    for name in ("tinyshakespeare/input.txt.gz", "wikitext2/valid.txt.gz", "lambada/development.txt.gz"):
        assert not is_line_list(gzip.decompress((data / name).read_bytes()).decode()[: 1 << 20])
