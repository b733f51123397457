"""Public data sets are read by their names alone, with the sizes that their pages give."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearstory.tasks.data.labeled_texts import read_labeled_texts
from clearstory.tasks.data.labeled_words import read_labeled_words
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.similarity import read_analogies, read_similarity


@pytest.mark.parametrize(
    ("name", "size", "kind", "n_labels"),
    [
        ("sst/sst2-train.tsv.gz", 6921, "single", 2),
        ("sst/sst5-dev.tsv.gz", 1095, "single", 5),
        ("goemotions/dev.tsv.gz", 5426, "multi", 28),
        ("poem-sentiment/train.tsv.gz", 892, "single", 4),
        ("poem-sentiment", 1101, "single", 4),
    ],
)
def test_labeled_texts(data: Path, name: str, size: int, kind: str, n_labels: int) -> None:
    if not (data / name).exists():
        pytest.skip(f"{data / name} is not there; CLEARSTORY_DATA names the folder of data")
    found = read_labeled_texts(data / name)
    assert (len(found), found.kind, len(found.label_names)) == (size, kind, n_labels)


def test_trees_have_the_sentences_of_the_tables(data: Path) -> None:
    if not (data / "sst").exists():
        pytest.skip(f"{data / 'sst'} is not there; CLEARSTORY_DATA names the folder of data")
    trees = read_labeled_texts(data / "sst/dev.trees.gz", LabelSettings(trees="binary-sentences"))
    table = read_labeled_texts(data / "sst/sst2-dev.tsv.gz")
    assert [(each.text, each.labels) for each in trees.examples] == [
        (each.text, each.labels) for each in table.examples
    ]


@pytest.mark.parametrize(
    ("name", "size", "words", "scheme"),
    [
        ("wnut17/dev.conll.gz", 1009, 15733, "bio"),
        ("wikigold", 1696, 39007, "bio"),
        ("btc/a.conll.gz", 1000, 16612, "bio"),
        ("crossner/ai.train.conll.gz", 100, 3782, "bio"),
        ("uner-english-ewt", 2001, 25149, "bio"),
        ("ud-english-ewt/dev.conllu.gz", 2001, 25147, ""),
    ],
)
def test_labeled_words(data: Path, name: str, size: int, words: int, scheme: str) -> None:
    if not (data / name).exists():
        pytest.skip(f"{data / name} is not there; CLEARSTORY_DATA names the folder of data")
    found = read_labeled_words(data / name)
    assert (len(found), sum(len(each.words) for each in found.examples), found.scheme) == (size, words, scheme)


def test_word_similarity_and_analogies(data: Path) -> None:
    files = sorted(data.glob("word-similarity/EN-*.txt"))
    if not files:
        pytest.skip(f"{data / 'word-similarity'} is not there; CLEARSTORY_DATA names the folder of data")
    found = {path.stem: read_similarity(path) for path in files}
    assert {name: len(found[name]) for name in ("EN-RG-65", "EN-WS-353-ALL", "EN-SimVerb-3500")} == {
        "EN-RG-65": 65,
        "EN-WS-353-ALL": 353,
        "EN-SimVerb-3500": 3500,
    }
    assert {each.kind for each in found.values()} == {"scores"}
    analogies = read_analogies(data / "word-analogies/questions-words.txt.gz")
    assert (len(analogies), len({each.section for each in analogies})) == (19544, 14)
