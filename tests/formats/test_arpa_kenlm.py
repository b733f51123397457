"""ARPA files and counts against KenLM 0.3.0: its log10 probabilities and verdicts, kept here as numbers."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import pytest

import clearstory
from clearstory.errors import CorruptFile
from clearstory.formats.arpa.read import read_arpa
from clearstory.formats.folders import open_model
from clearstory.recipes.conversion.convert import convert
from clearstory.recipes.inference.evaluate import evaluate

SMALL = """\\data\\
ngram 1=5
ngram 2=4
ngram 3=1

\\1-grams:
-1.5\t<unk>
-99\t<s>\t-0.25
-0.6\t</s>
-0.4\ta\t-0.5
-0.7\tb\t-0.125

\\2-grams:
-0.2\t<s> a\t-0.3
-0.3\ta b
-0.1\tb </s>
-0.9\ta </s>

\\3-grams:
-0.05\t<s> a b

\\end\\
"""

SENTENCES = {
    "a b": [-0.2, -0.05, -0.1],
    "b a a": [-0.95, -0.525, -0.9, -0.9],
    "z b": [-1.75, -0.7, -0.1],
    "": [-0.85],
    "b\ta  b": [-0.95, -0.525, -0.3, -0.1],
    "b\x0bb": [-0.95, -0.825, -0.1],
    "a <UNK> b": [-0.2, -2.3, -0.7, -0.1],
    "a <unk> b": [-0.2, -2.3, -0.7, -0.1],
    "a <eos> b": [-0.2, -2.3, -0.7, -0.1],
    "a\u00a0b": [-1.75, -0.6],
}
"""log10 P of each word and of the sentence's end."""


def written(folder: Path, text: str | bytes, name: str = "a.arpa") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def log10(opened: Any, *texts: str) -> float:
    return -evaluate(opened, texts=texts).score.nats / math.log(10)


def test_sentences_cost_what_they_cost_in_kenlm_however_they_are_split(tmp_path: Path) -> None:
    opened = open_model(written(tmp_path, SMALL))
    for sentence, expected in SENTENCES.items():
        for text in filter(None, (sentence, sentence + "\n", sentence + "\r\n")):
            found = evaluate(opened, texts=[text])
            assert -found.score.nats / math.log(10) == pytest.approx(sum(expected), abs=1e-5)
            assert found.score.tokens == len(expected)
    # Three files of one or two lines, and one file of the same lines; the last line with and without its line feed.
    parts = ["a b\nb a a\n", "z b", "\nb\ta  b\n"]
    total = sum(sum(SENTENCES[line]) for line in ("a b", "b a a", "z b", "", "b\ta  b"))
    files = [written(tmp_path, part, f"{number}.txt") for number, part in enumerate(parts)]
    for one in (evaluate(opened, files), evaluate(opened, texts=["a b\nb a a\nz b\n\nb\ta  b"])):
        assert one.score.tokens == 15
        assert -one.score.nats / math.log(10) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u2003", "\u2028", "\x1c", "\x85", "\u200b"])
def test_other_white_space_is_part_of_a_word(tmp_path: Path, space: str) -> None:
    word = f"p{space}q"
    text = (
        "\\data\\\nngram 1=5\nngram 2=3\n\n\\1-grams:\n-1.5\t<unk>\n-99\t<s>\t-0.25\n-0.6\t</s>\n"
        f"-0.4\t{word}\t-0.5\n-0.7\tb\t-0.125\n\n"
        f"\\2-grams:\n-0.2\t<s> {word}\n-0.3\t{word} b\n-0.1\tb </s>\n\n\\end\\\n"
    )
    opened = open_model(written(tmp_path, text))
    assert log10(opened, f"{word} b") == pytest.approx(-0.2 - 0.3 - 0.1, abs=1e-5)
    assert log10(opened, f"b {word}\n") == pytest.approx(-0.95 - 0.525 - 1.1, abs=1e-5)
    again = convert(tmp_path / "a.arpa", tmp_path / "b.arpa")
    assert again.note is None
    assert log10(open_model(again.path), f"{word} b") == pytest.approx(-0.6, abs=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "sentence", "expected"),
    [
        ("-0.3\ta b", "-inf\ta b", "b a b", -math.inf),
        ("-1.5\t<unk>", "-inf\t<unk>", "z", -math.inf),
        ("-99\t<s>", "-inf\t<s>", "a b", -0.35),
        ("-1.5\t<unk>\n", "", "z b", -100.25 - 0.8),
        ("<unk>", "<UNK>", "z b", -2.55),
        ("<s> a b\n", "<s> a b\t0\n", "a b", -0.35),
        ("<s>\t-0.25", "<s>", "z", -2.1),
        ("\n\n\\2-grams", "\n\\2-grams", "a b", -0.35),
        ("\\end\\\n", "\\end\\", "a b", -0.35),
        ("\\end\\\n", "\\end\\\n \n\n", "a b", -0.35),
        ("\n", "\r\n", "a b", -0.35),
        ("a\t-0.5", "a\t0.5", "b a a", -0.95 - 0.525 + 0.1 - 0.9),
    ],
)
def test_what_kenlm_reads_is_read_alike(
    tmp_path: Path, before: str, after: str, sentence: str, expected: float
) -> None:
    text = SMALL.replace(before, after).replace("1=5", "1=4" if "<unk>\n" in before else "1=5")
    assert log10(open_model(written(tmp_path, text)), sentence) == pytest.approx(expected, abs=1e-4)


def test_a_byte_order_mark_and_gzip_under_any_name_are_read(tmp_path: Path) -> None:
    for data in (b"\xef\xbb\xbf" + SMALL.encode(), gzip.compress(SMALL.encode())):
        assert log10(open_model(written(tmp_path, data)), "a b") == pytest.approx(-0.35, abs=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("<s> a b\n", "<s> a b\t-0.1\n", "the file is truncated"),
        ("-0.6\t</s>", "-0.6\tc", "no </s>"),
        ("-99\t<s>\t-0.25", "-99\tc", "no <s>"),
        ("\\end\\\n", "\\end\\\nmore\n", "continues after"),
        ("\\end\\\n", "", "truncated"),
        ("\\end\\", "\\4-grams:\n-0.1\ta a a a\n\\end\\", "expected here"),
        ("-0.3\ta b", "1e-9\ta b", "must not be above 0"),
        ("-99\t<s>", "99\t<s>", "must not be above 0"),
        ("-0.3\ta b", "inf\ta b", "not a finite number"),
        ("-0.3\ta b", "nan\ta b", "not a finite number"),
        ("a\t-0.5", "a\t-inf", "not a finite number"),
        ("1=5", "1=4", "expected here"),
        ("1=5", "1=6", "end after 5"),
        ("2=4", "2=5", "end after 4"),
        ("2=4", "2=3", "expected here"),
        ("b\t-0.125", "a\t-0.125", "already"),
        ("-0.3\ta b", "-0.3\ta c", "not among the 1-grams"),
        ("<s> a b", "b a b", "not among the 2-grams"),
    ],
)
def test_what_kenlm_refuses_is_refused(tmp_path: Path, before: str, after: str, says: str) -> None:
    with pytest.raises(CorruptFile, match=says):
        read_arpa(written(tmp_path, SMALL.replace(before, after, 1)))


LINES = """the cat sat on the mat .
the dog sat on the log .
a cat and a dog sat .

the mat is on the log , and the cat is on the mat .
a dog is a dog .
"""


def test_counts_of_everything_give_lmplz_s_probabilities(tmp_path: Path) -> None:
    # lmplz -o 3 --discount_fallback
    expected = {
        "the cat is a dog .": [-0.63765, -0.63868, -0.46701, -1.02026, -0.17994, -0.59412, -0.10728],
        "a zebra sat on the mat .": [-0.90944, -1.77231, -1.17943, -0.68489, -0.19031, -0.49579, -0.32696, -0.10728],
        "": [-0.93357],
        "the the the": [-0.63765, -1.64733, -1.3463, -1.33841],
    }
    trained = clearstory.train(
        str(written(tmp_path, LINES, "lines.txt")),
        model={"name": "ngram", "order": 3},
        tokenizer="words",
        data={"validation": 0, "cache": tmp_path / "cache"},
        out=tmp_path / "run",
    )
    assert (trained.bits_per_byte, trained.nats_per_token) == (None, None)
    for sentence, each in expected.items():
        assert log10(tmp_path / "run", sentence + "\n") == pytest.approx(sum(each), abs=1e-4)
    assert log10(tmp_path / "run", *expected) == pytest.approx(sum(map(sum, expected.values())), abs=3e-4)


def test_reserved_words_are_unknown_in_the_folder_and_in_the_file(tmp_path: Path) -> None:
    text = LINES + "a <UNK> b <s> c </s>\n<unk> <eos> x<s>y the</s> d\u00a0e\x1cf\n" * 2
    clearstory.train(
        str(written(tmp_path, text, "lines.txt")),
        model={"name": "ngram", "order": 3},
        tokenizer="words",
        data={"validation": 0, "cache": tmp_path / "cache"},
        out=tmp_path / "run",
    )
    converted = convert(tmp_path / "run", tmp_path / "x.arpa")
    assert converted.note is None
    assert converted.max_nats_difference is not None
    assert converted.max_nats_difference < 1e-5
    for each in (text, "<s>", "</s> <UNK>", "<eos>\n\n x<s>y", "d\u00a0e", "d e\x1cf"):
        assert log10(tmp_path / "x.arpa", each) == pytest.approx(log10(tmp_path / "run", each), abs=1e-5)


@pytest.mark.slow
def test_wikitext_2_counted_as_a_whole_has_lmplz_s_perplexity(data: Path, tmp_path: Path) -> None:
    clearstory.train(
        str(data / "wikitext2" / "train.txt.gz"),
        model={"name": "ngram"},
        tokenizer="words",
        data={"validation": 0, "cache": tmp_path / "cache"},
        out=tmp_path / "run",
    )
    score = evaluate(tmp_path / "run", data / "wikitext2" / "valid.txt.gz").score
    assert score.tokens == 217_646
    # lmplz -o 5, with the word <unk> of the text replaced, which lmplz refuses
    assert score.perplexity == pytest.approx(234.86207, abs=1e-3)
