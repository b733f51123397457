"""The columns of labeled texts: given by settings, found by their usual names, or recognized by their values."""

from __future__ import annotations

from collections.abc import Sequence

from clearstory.errors import BadInput
from clearstory.tasks.data.columns import (
    LABELS,
    PAIRS,
    SPLITS,
    TAGS,
    TEXTS,
    TOKENS,
    TextColumns,
    choose_column,
    find_named,
    find_pair,
    has_flags,
    is_label,
    is_text,
    sample_values,
)
from clearstory.tasks.data.data_files import PARTS
from clearstory.tasks.data.labels import as_number
from clearstory.tasks.data.records import RecordTable
from clearstory.tasks.data.settings import LabelSettings


def choose_text_columns(table: RecordTable, settings: LabelSettings) -> TextColumns:
    """The columns with the text, the second text of a pair, the labels and the split.

    Raises BadInput for a column that is not there, and where no column or more than one can be meant.
    """
    tokens, tags = find_named(table.columns, TOKENS), find_named(table.columns, TAGS)
    if tokens is not None and tags is not None and is_label_list(table, tokens) and is_label_list(table, tags):
        raise BadInput(
            f"{table.name} has words with tags, not texts with labels ({tokens!r}, {tags!r}); use --task tag"
        )
    split = find_split_column(table, settings)
    left = [column for column in table.columns if column != split]
    text = choose_column(table, settings.text_column, "--text-column") if settings.text_column else None
    pair = choose_column(table, settings.pair_column, "--pair-column") if settings.pair_column else None
    labels = _named_labels(table, settings)
    left = [column for column in left if column not in (text, pair, *labels)]
    if text is None:
        text, found = _find_text(table, left, labels)
        pair = pair or found
    if not labels:
        labels = _find_labels(table, [column for column in left if column not in (text, pair)])
    if not labels:
        raise _without_labels(table, text, pair)
    if text is None or text in labels:
        raise BadInput(
            f"{table.name} has no column with texts besides the label {labels[0]!r}; name it with --text-column"
        )
    return TextColumns(text, pair, labels, split)


def find_split_column(table: RecordTable, settings: LabelSettings) -> str | None:
    """The column with the part of each example: the given column, or one with a usual name and values."""
    if settings.split_column:
        return choose_column(table, settings.split_column, "--split-column")
    found = find_named(table.columns, SPLITS)
    if found is None or not table.has_header:
        return None
    return found if all(str(value).strip().lower() in PARTS for value in sample_values(table, found)) else None


def part_of_record(value: object, location: str) -> str:
    """The part of the data set that the value of a split column names."""
    part = PARTS.get(str(value).strip().lower())
    if part is None:
        raise BadInput(f"{location}: the split is {str(value)[:40]!r}; supported: train, validation (or dev) and test")
    return part


def describe_columns(table: RecordTable, columns: TextColumns) -> str:
    """The columns that are read, and those that are not, as one sentence."""

    def named(column: str) -> str:
        return repr(column) if table.has_header else f"column {column}"

    text = f"text from {named(columns.text)}"
    if columns.pair is not None:
        text = f"pairs of texts from {named(columns.text)} and {named(columns.pair)}"
    labels = ", ".join(map(named, columns.labels))
    read = {columns.text, columns.pair, columns.split, *columns.labels}
    others = [named(column) for column in table.columns if column not in read]
    split = "" if columns.split is None else f", splits from {named(columns.split)}"
    ignored = f"; not read: {', '.join(others[:6])}{' …' if len(others) > 6 else ''}" if others else ""
    header = "" if table.has_header else " (no header)"
    return f"{text}, label{'s' * (len(columns.labels) > 1)} from {labels}{split}{header}{ignored}"


def _named_labels(table: RecordTable, settings: LabelSettings) -> tuple[str, ...]:
    """The label columns of the settings; several are joined by commas."""
    name = settings.label_column
    if not name:
        return ()
    if name in table.columns or "," not in name:
        return (choose_column(table, name, "--label-column"),)
    return tuple(choose_column(table, each.strip(), "--label-column") for each in name.split(","))


def _find_text(table: RecordTable, left: Sequence[str], labels: Sequence[str]) -> tuple[str | None, str | None]:
    """The text column and that of the second text of a pair."""
    if table.has_header:
        pair = find_pair(left, PAIRS)
        if pair is not None:
            return pair
        named = find_named(left, TEXTS)
        if named is not None and not is_label_list(table, named):
            return named, None
    texts = [column for column in left if is_text(sample_values(table, column))]
    if not labels:
        texts = [column for column in texts if not _is_short_label(table, column, texts)]
    if not texts:  # words or names
        texts = [column for column in left if _has_words(table, column)]
        texts = texts if len(texts) == 1 else []
    if len(texts) == 2 and not table.has_header:
        return texts[0], texts[1]
    if len(texts) > 1:
        known = ", ".join(map(repr, texts))
        raise BadInput(
            f"{table.name} has several columns of texts ({known}); choose one with --text-column, and the second text "
            "of pairs with --pair-column"
        )
    return (texts[0], None) if texts else (None, None)


def _is_short_label(table: RecordTable, column: str, texts: Sequence[str]) -> bool:
    """Whether a column of texts is rather the label of a longer one."""
    return len(texts) > 1 and is_label(sample_values(table, column))


def _has_words(table: RecordTable, column: str) -> bool:
    """Whether a column has words that are not labels."""
    values = sample_values(table, column)
    return all(isinstance(value, str) and as_number(value) is None for value in values) and not is_label(values)


def is_label_list(table: RecordTable, column: str) -> bool:
    """Whether the values of a column are lists, which are not texts."""
    return any(isinstance(value, list) for value in sample_values(table, column))


def _find_labels(table: RecordTable, left: Sequence[str]) -> tuple[str, ...]:
    """The label column, by its usual name or as the only one with values that can be labels."""
    named = find_named(left, LABELS) if table.has_header else None
    if named is not None:
        return (named,)
    found = [column for column in left if is_label(sample_values(table, column))]
    if len(found) > 1 and table.has_header and all(has_flags(sample_values(table, column)) for column in found):
        return tuple(found)
    varied = [column for column in found if len({str(value) for value in sample_values(table, column)}) > 1]
    found = varied or found
    if len(found) > 1:
        known = ", ".join(map(repr, found))
        raise BadInput(f"{table.name} has several columns that can be labels ({known}); choose one with --label-column")
    return tuple(found)


def _without_labels(table: RecordTable, text: str | None, pair: str | None) -> BadInput:
    """The error for data without labels, which suggests possible uses of the data."""
    known = table.listed_columns
    if pair is not None:
        return BadInput(
            f"{table.name} has pairs of texts and no labels (its columns are {known}); name the label with "
            "--label-column, train sentence vectors on the pairs with --task embed, or translate with clearstory train"
        )
    what = "texts without labels" if text is not None else "no column of labels"
    return BadInput(
        f"{table.name} has {what} (its columns are {known}); name the label with --label-column, or continue training "
        "on the text with --task lm"
    )
