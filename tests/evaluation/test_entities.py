"""Entities of tags and their F1, against numbers worked out by hand and against seqeval where it is installed."""

from __future__ import annotations

import random

import numpy as np
import pytest

from clearstory.evaluation.entities import entity_metrics, find_entities


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O B-P I-P O", [("P", 1, 3)]),
        ("B-P B-P I-P", [("P", 0, 1), ("P", 1, 3)]),
        ("I-P I-P O I-L", [("P", 0, 2), ("L", 3, 4)]),
        ("B-P I-L I-L", [("P", 0, 1), ("L", 1, 3)]),
        ("S-P B-P I-P E-P I-P", [("P", 0, 1), ("P", 1, 4), ("P", 4, 5)]),
        ("B-P-Q I-P-Q", [("P-Q", 0, 2)]),
        ("O O", []),
    ],
)
def test_entities_of_tags(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert find_entities(tags.split()) == expected


def test_metrics_by_hand() -> None:
    """Two sentences, types L and P: 3 right of 5 predicted and of 4 that there are."""
    counts = np.array([[[1, 2, 1], [1, 1, 2]], [[0, 1, 0], [1, 1, 1]]])
    found = entity_metrics(counts)
    assert found == pytest.approx({"precision": 3 / 5, "recall": 3 / 4, "f1": 2 * 3 / 9})
    assert entity_metrics(np.zeros((2, 1, 3), int)) == {"f1": 0.0, "precision": 0.0, "recall": 0.0}


def test_entities_are_those_of_seqeval() -> None:
    get_entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    draw = random.Random(0)
    tags = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("P", "L"))]
    for _ in range(300):
        sentence = draw.choices(tags, k=8)
        expected = [(kind, start, stop + 1) for kind, start, stop in get_entities(sentence)]
        assert find_entities(sentence) == expected
