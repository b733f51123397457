"""Entities that BIO tags mark, and their precision, recall and F1, as CoNLL 2003 and seqeval count them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearstory.evaluation.classification import f1_score

OUTSIDE = "O"


def find_entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of a sentence: type, first word, and the word after the last one.

    A tag continues the entity before it if both have the same type and it is I- or E-, after B- or I-; another tag but
    O begins an entity, whatever its prefix.

    >>> find_entities(["B-PER", "I-PER", "O", "I-LOC", "I-PER", "B-PER"])
    [('PER', 0, 2), ('LOC', 3, 4), ('PER', 4, 5), ('PER', 5, 6)]
    """
    entities: list[tuple[str, int, int]] = []
    before = (OUTSIDE, "")
    for at, tag in enumerate(tags):
        prefix, kind = tag[:1], tag[2:]
        if tag != OUTSIDE:
            continues = kind == before[1] and prefix in "IE" and before[0] in "BI"
            start = entities.pop()[1] if continues else at
            entities.append((kind, start, at + 1))
        before = (prefix, kind)
    return entities


def entity_types(labels: Sequence[str]) -> tuple[str, ...]:
    """The types of entities that tags mark, in alphabetical order.

    >>> entity_types(["O", "B-PER", "I-PER", "B-LOC"])
    ('LOC', 'PER')
    """
    return tuple(sorted({label[2:] for label in labels if label != OUTSIDE}))


def entity_metrics(counts: Any, _: Any = None) -> dict[str, float]:
    """f1, precision and recall over the entities of all types, from counts of true positives, predictions and
    references per sentence and type, (N, types, 3).
    """
    right, guessed, true = counts.sum((0, 1))
    return {
        "f1": f1_score(right, guessed, true),
        "precision": float(right / guessed) if guessed else 0.0,
        "recall": float(right / true) if true else 0.0,
    }
