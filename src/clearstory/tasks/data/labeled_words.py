"""Words with tags, from CoNLL of 2 to 10 columns, CoNLL-U, jsonl, parquet, `datasets` folders and character spans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from clearstory.tasks.data.examples import LabeledData, LabeledWords
from clearstory.tasks.data.settings import LabelSettings


def read_labeled_words(
    sources: Iterable[str | Path] | str | Path,
    settings: LabelSettings | None = None,
    *,
    known_labels: Sequence[str] | None = None,
) -> LabeledData[LabeledWords]:
    """Sentences with a tag for each word; tags of entities are made BIO, and what was repaired is counted in the notes.

    `settings.label_column` is the column of CoNLL: a name (upos, xpos, deprel …) or its number from 1.
    """
    raise NotImplementedError
