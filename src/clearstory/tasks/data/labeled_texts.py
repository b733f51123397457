"""Texts with labels: one label, several, or a number for each text or pair of texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from clearstory.tasks.data.examples import LabeledData, LabeledText
from clearstory.tasks.data.settings import LabelSettings


def read_labeled_texts(
    sources: Iterable[str | Path] | str | Path,
    settings: LabelSettings | None = None,
    *,
    known_labels: Sequence[str] | None = None,
) -> LabeledData[LabeledText]:
    """Texts with their labels, from csv, tsv, jsonl, parquet, `datasets` folders, trees or a folder for each label.

    `known_labels`: names of the labels that a model or the training data has, in the order of their ids; others are an
    error. Raises BadInput, with file and line.
    """
    raise NotImplementedError
