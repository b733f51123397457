"""Pairs and triplets of texts, pairs of words with a score, and analogies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clearstory.errors import BadInput
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.similarity import read_analogies, read_similarity


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def write_objects(folder: Path, objects: list[dict[str, object]]) -> Path:
    return write(folder, "a.jsonl", "".join(json.dumps(each) + "\n" for each in objects))


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.tsv", "A man eats.\tSomeone eats.\nA cat sits.\tAn animal sits.\n", "pairs"),
        ("a.csv", "anchor,positive,negative\nA man eats.,Someone eats.,A car.\n", "triplets"),
        ("a.csv", "sentence1,sentence2,score\nA man eats.,Someone eats.,4.5\n", "scores"),
        ("a.txt", "car automobile 3.92\ncord smile 0.02\n", "scores"),
        ("a.txt", "car\tautomobile\t3.92\r\ncord\tsmile\t0.02\r\n", "scores"),
        ("a.csv", "question1,question2,is_duplicate\nHow far is it?,What distance?,1\n", "pairs"),
    ],
)
def test_kinds_of_pairs(tmp_path: Path, name: str, text: str, kind: str) -> None:
    assert read_similarity(write(tmp_path, name, text)).kind == kind


def test_lists_of_positives_and_negatives_make_examples_of_each(tmp_path: Path) -> None:
    path = write_objects(tmp_path, [{"query": "q one", "pos": ["p one", "p two"], "neg": ["n one"]}])
    found = [(each.anchor, each.positive, each.negative) for each in read_similarity(path).examples]
    assert found == [("q one", "p one", "n one"), ("q one", "p two", "n one")]


def test_entailed_pairs_are_positives_and_contradictions_negatives(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"},
        {"premise": "It rains.", "hypothesis": "It may thunder.", "label": "neutral"},
        {"premise": "It rains.", "hypothesis": "It is dry.", "label": "contradiction"},
    ]
    data = read_similarity(write_objects(tmp_path, rows))
    assert data.kind == "triplets"
    assert [(each.positive, each.negative) for each in data.examples] == [("It is wet.", "It is dry.")]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "left,right,other\nA man.,A person.,A car.\n")
    settings = LabelSettings(text_column="left", pair_column="right", negative_column="other")
    example = read_similarity(path, settings).examples[0]
    assert (example.anchor, example.positive, example.negative) == ("A man.", "A person.", "A car.")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "text,label\nA good one.,1\nA bad one.,0\n", "--task classify"),
        ("a.csv", "sentence1,sentence2,score\nA man.,A boy.,high\n", "line 2: the score in 'score' is 'high'"),
        ("a.csv", "anchor,positive\nA man.,\n", "line 2: the text in 'positive' is empty"),
        ("a.conll", "Ada B-PER\n", "has no pairs of texts"),
    ],
)
def test_what_has_no_pairs_is_one_sentence(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_similarity(write(tmp_path, name, text))


def test_analogies_have_sections(tmp_path: Path) -> None:
    found = read_analogies(
        write(tmp_path, "a.txt", ": capitals\nAthens Greece Oslo Norway\n: plural\ncat cats dog dogs\n")
    )
    assert [(each.fourth, each.section) for each in found] == [("Norway", "capitals"), ("dogs", "plural")]
    with pytest.raises(BadInput, match=r"a.txt, line 1 has 3 words; an analogy has four"):
        read_analogies(write(tmp_path, "a.txt", "Athens Greece Oslo\n"))
