"""Files of labels, which are neither prose nor pairs: rows of a text and a label, words with tags, labeled trees."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from clearstory.text.read_notes import ReadNotes

CHUNK_TAG = re.compile(r"O|[BIESLU][-_]\S.*")

TREE = re.compile(r"\(\d+ (\(\d+ |[^\s()]+\)$).*\)$")

LABEL_COLUMNS = frozenset(("label", "labels", "class", "sentiment", "emotion", "ner_tags", "tags", "entities", "spans"))
"""Usual names of columns with labels."""

TEXT_COLUMNS = frozenset(
    ("text", "sentence", "sentence1", "review", "content", "comment", "tweet", "utterance", "tokens", "words")
)
"""Usual names of columns with the texts that have labels."""

SAMPLE_LINES = 200
"""Number of lines that are examined."""

ENOUGH_LINES = 20
"""Minimum number of lines."""


def describe_labels(values: Sequence[str]) -> str | None:
    """Description of values that are probably labels: numbers, or few repeated short values; None for texts.

    >>> describe_labels(["0", "1", "1"]), describe_labels(["good", "bad"] * 20), describe_labels(["a b", "c"])
    ('numbers (0, 1)', '2 short values (bad, good)', None)
    """
    distinct = sorted(set(values))
    some = f"({', '.join(distinct[:4])}{', …' if len(distinct) > 4 else ''})"
    if len(values) > 1 and all(map(is_number, values)):
        return f"numbers {some}"
    if len(distinct) <= 40 and len(values) >= 10 * len(distinct) and max(map(len, distinct)) <= 60:
        return f"{len(distinct)} short value{'s' * (len(distinct) > 1)} {some}"
    return None


def label_column(columns: Iterable[str]) -> str | None:
    """The first column with a usual name of labels."""
    return next((column for column in columns if column.strip().lower() in LABEL_COLUMNS), None)


def is_label_header(columns: Iterable[str]) -> bool:
    """Whether the first row of a table names a column of texts and one of their labels.

    >>> is_label_header(["text", "Label"]), is_label_header(["label", "Etikett"])
    (True, False)
    """
    columns = list(columns)
    return label_column(columns) is not None and any(column.strip().lower() in TEXT_COLUMNS for column in columns)


def note_labels(path: Path, columns: Iterable[str], notes: ReadNotes | None) -> None:
    """Add a note that the labels of a table are ignored."""
    labels = label_column(columns)
    if labels is not None and notes is not None:
        notes.remarks.append(
            f"{path.name} has labels in '{labels}', which are ignored; clearstory finetune trains a model on them"
        )


def is_number(text: str) -> bool:
    """Whether a text is a number, or several with commas between them."""
    try:
        return all(float(part) == float(part) for part in text.split(","))
    except ValueError:
        return False


def find_labeled_lines(lines: Sequence[str]) -> tuple[str, str] | None:
    """The kind of labeled examples in the lines of a text and their task; None for prose.

    >>> find_labeled_lines(["Ada B-PER", "codes O", "daily O", ""] * 10)
    ('words with tags', 'tag')
    >>> find_labeled_lines(["0\\tIt drags.", "1\\tA joy."] * 20)
    ('texts with labels (2 short values (0, 1))', 'classify')
    >>> find_labeled_lines(["It drags.", "A joy."] * 20) is None
    True
    """
    lines = [line.strip("\r\n") for line in lines[:SAMPLE_LINES] if line.strip()]
    if len(lines) < ENOUGH_LINES:
        return None
    if all(TREE.match(line) for line in lines):
        return "trees of labeled phrases", "classify"
    rows = [re.split(r"[ \t]+", line.strip()) for line in lines if not line.startswith("#")]
    tags = [row[-1] for row in rows if 1 < len(row) <= 10 and CHUNK_TAG.fullmatch(row[-1])]
    if rows and len(tags) >= 0.95 * len(rows) and any(tag != "O" for tag in tags):
        return "words with tags", "tag"
    fields = [line.split("\t") for line in lines]
    if len(fields[0]) in (2, 3) and all(len(row) == len(fields[0]) for row in fields):
        for column in zip(*fields, strict=True):
            values = [value.strip() for value in column]
            found = describe_labels(values)
            if found is not None and len(set(values)) * 10 <= len(values):
                return f"texts with labels ({found.replace('numbers', f'{len(set(values))} short values')})", "classify"
    return None
