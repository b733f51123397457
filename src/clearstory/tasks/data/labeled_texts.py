"""Texts with labels: one label, several, or a number for each text or pair of texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput
from clearstory.tasks.data.columns import TextColumns, find_named, has_flags, plain, sample_values
from clearstory.tasks.data.data_files import (
    RECORD_FILES,
    TREE_FILES,
    WORD_FILES,
    DataFile,
    LabelFolder,
    find_data_files,
    find_label_folders,
)
from clearstory.tasks.data.examples import LabeledData, LabeledText
from clearstory.tasks.data.labels import (
    Labels,
    are_ids,
    as_number,
    check_numbers,
    check_types,
    choose_problem,
    is_index,
    is_missing,
    label_text,
    names_beside,
    order_names,
    read_label_names,
    resolve_names,
    split_labels,
)
from clearstory.tasks.data.records import LabelRecord, RecordTable, read_table, read_text
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.text_columns import choose_text_columns, describe_columns, part_of_record
from clearstory.tasks.data.trees import FINE, has_trees, read_trees
from clearstory.text.files import content_suffix, read_lines
from clearstory.text.read_notes import ReadNotes

UNSUPERVISED = "unsup"
"""The folder of reviews without a label in the IMDB data set."""


def read_labeled_texts(
    sources: Iterable[str | Path] | str | Path,
    settings: LabelSettings | None = None,
    *,
    known_labels: Sequence[str] | None = None,
) -> LabeledData[LabeledText]:
    """Texts with their labels, from csv, tsv, jsonl, parquet, `datasets` folders, trees or a folder for each label.

    `known_labels`: names of the labels that a model or the training data has, in the order of their ids; others are an
    error. Raises BadInput, with file and line.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "reviews.csv")
    >>> _ = file.write_text("review,label\\nA joy.,positive\\nDull.,negative\\n")
    >>> data = read_labeled_texts(file)
    >>> data.label_names, data.examples[0].text, data.examples[0].labels, data.notes
    (('negative', 'positive'), 'A joy.', ('positive',), ("text from 'review', label from 'label'",))
    """
    settings = settings or LabelSettings()
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    notes = ReadNotes()
    folders = [expand_home(source) for source in sources if expand_home(source).is_dir()]
    labeled = [label for folder in folders for label in find_label_folders(folder)]
    if labeled:
        data = _from_label_folders(labeled, settings, notes)
    else:
        files = find_data_files(sources, settings.reading, (*RECORD_FILES, *TREE_FILES))
        trees = [file for file in files if has_trees(file.path)]
        words = next((file.path for file in files if content_suffix(file.path) in WORD_FILES), None)
        if words is not None:
            raise BadInput(f"{words} has words with tags, not texts with labels; use --task tag")
        if trees and len(trees) < len(files):
            other = next(file.path for file in files if file not in trees)
            raise BadInput(f"{trees[0].path} has trees, and {other} has none; give files of one kind")
        data = _from_trees(trees, settings, notes) if trees else _from_records(files, settings, notes, known_labels)
    data = replace(data, notes=(*data.notes, *notes.sentences()), name=_name(sources))
    return _with_known_labels(data, known_labels)


def read_labeled_pairs(
    sources: Sequence[str], settings: LabelSettings, known: Sequence[str] | None = None
) -> LabeledData[LabeledText]:
    """Pairs of texts with labels or numbers. Raises BadInput for an example without a second text."""
    data = read_labeled_texts(sources, settings, known_labels=known)
    single = next((example for example in data.examples if example.pair is None), None)
    if single is not None:
        read = f" ({data.notes[0]})" if data.notes else ""
        raise BadInput(
            f"{single.location or data.name} has one text, and --task pairs needs two{read}; name the column of the "
            "second with --pair-column, or pass --task classify"
        )
    return data


def _from_records(
    files: list[DataFile], settings: LabelSettings, notes: ReadNotes, known: Sequence[str] | None
) -> LabeledData[LabeledText]:
    table = read_table(files, settings, notes)
    columns = choose_text_columns(table, settings)
    described = [describe_columns(table, columns)]
    names, declared = _declared_names(table, columns, files, settings, described)
    records = _labeled_records(table, columns, names, described)
    values = [_label_value(record, columns) for record in records]
    located = [(record.location, value) for record, value in zip(records, values, strict=True)]
    check_types(located, columns.labels[0])
    if settings.problem == "auto":
        check_numbers(located, columns.labels[0])
    problem = choose_problem(values, settings.problem, names or tuple(known or ()))
    examples = [_example(record, columns) for record in records]
    if problem == "regression":
        return LabeledData(_with_values(examples, values), (), "regression", tuple(described))
    found = [
        (location, split_labels(value) if problem == "multi" else _one_label(value, location, columns))
        for location, value in located
    ]
    resolved = resolve_names(found, names, declared) if names else [labels for _, labels in found]
    names = names or order_names(label for labels in resolved for label in labels)
    _check_repeated(names, resolved, table, columns)
    if problem == "multi":
        described.append("several labels for each text")
    examples = [replace(example, labels=labels) for example, labels in zip(examples, resolved, strict=True)]
    return LabeledData(tuple(examples), names, "multi" if problem == "multi" else "single", tuple(described))


def _declared_names(
    table: RecordTable, columns: TextColumns, files: Sequence[DataFile], settings: LabelSettings, notes: list[str]
) -> tuple[Labels, str]:
    """Names of the labels in the order of their ids, and their source; () if they are given only by the values."""
    if settings.labels:
        return read_label_names(settings.labels), "--labels"
    if len(columns.labels) > 1:
        return columns.labels, "the columns"
    column = columns.labels[0]
    if column in table.class_names:
        return table.class_names[column], "the data set"
    values = [label_text(value) for value in sample_values(table, column) if not is_missing(value)]
    beside = names_beside(file.path for file in files)
    ids = {label for value in values for label in split_labels(value)}
    if beside is not None and ids and are_ids(ids, beside[1]):
        notes.append(f"label names from {beside[0].name}")
        return beside[1], beside[0].name
    texts = find_named(table.columns, ("labeltext", "labelname"))
    if texts is not None and texts != column and all(map(is_index, values)):
        pairs = {
            (int(label_text(record.values[column])), label_text(record.values.get(texts)))
            for record in table.records
            if is_index(label_text(record.values.get(column)))
        }
        if sorted(number for number, _ in pairs) == list(range(len(pairs))):
            notes.append(f"label names from {texts!r}")
            return tuple(name for _, name in sorted(pairs)), repr(texts)
    return (), ""


def _labeled_records(table: RecordTable, columns: TextColumns, names: Labels, notes: list[str]) -> list[LabelRecord]:
    """The records with their parts, without those whose label is -1, by which `datasets` says that there is none, and
    without a part (as the test part of a benchmark) in which no record has a label.
    """
    records = table.records
    if columns.split is not None:
        records = [
            record._replace(part=part_of_record(record.values.get(columns.split), record.location))
            for record in records
        ]

    agreed = plain(columns.labels[0]) == "goldlabel"  # SNLI has - where its annotators did not agree

    def is_unknown(record: LabelRecord) -> bool:
        label = label_text(record.values.get(columns.labels[0]))
        return (bool(names) and "-1" not in names and label == "-1") or (agreed and label == "-")

    def unlabeled(record: LabelRecord) -> bool:
        return is_missing(record.values.get(columns.labels[0])) or is_unknown(record)

    parts = {record.part for record in records}
    dropped = [
        part
        for part in sorted(parts - {"train", ""})
        if len(parts) > 1 and all(unlabeled(record) for record in records if record.part == part)
    ]
    if dropped:
        notes.append(f"the {' and '.join(dropped)} split has no labels and is ignored")
    records = [record for record in records if record.part not in dropped]
    kept = [record for record in records if not is_unknown(record)]
    if len(kept) < len(records):
        mark = "-" if agreed else "-1"
        notes.append(f"{len(records) - len(kept):,} texts with {mark} in place of a label are ignored")
    return kept


def _label_value(record: LabelRecord, columns: TextColumns) -> object:
    """The value of the label column, or the names of the columns that have a 1."""
    if len(columns.labels) == 1:
        return record.values.get(columns.labels[0])
    chosen = []
    for column in columns.labels:
        value = record.values.get(column)
        if not has_flags([value]):
            raise BadInput(
                f"{record.location}: {column!r} is {str(value)[:20]!r}; a column for each of several labels has 0 or 1"
            )
        chosen += [column] if label_text(value) in ("1", "true") else []
    return chosen


def _one_label(value: object, location: str, columns: TextColumns) -> Labels:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if is_missing(value):
        raise BadInput(
            f"{location} has no label in {columns.labels[0]!r}; add it or remove the row, or use --problem multi "
            "where a text can have none"
        )
    if isinstance(value, list):
        raise BadInput(f"{location} has {len(value)} labels; use --problem multi for several labels")
    return (label_text(value),)


def _example(record: LabelRecord, columns: TextColumns) -> LabeledText:
    text = read_text(record, columns.text)
    pair = None if columns.pair is None else read_text(record, columns.pair)
    return LabeledText(text, pair, location=record.location, part=record.part)


def _with_values(examples: Sequence[LabeledText], values: Sequence[object]) -> tuple[LabeledText, ...]:
    found = []
    for example, value in zip(examples, values, strict=True):
        number = as_number(value)
        if number is None:
            raise BadInput(
                f"{example.location}: the value is {str(value)[:40]!r}, not a number like the others; correct it, or "
                "use --problem single for labels"
            )
        found.append(replace(example, value=number))
    return tuple(found)


def _check_repeated(names: Labels, resolved: Sequence[Labels], table: RecordTable, columns: TextColumns) -> None:
    """Raise BadInput if nearly every text has another label, so that the column has no labels."""
    if len(resolved) > 20 and len(names) * 2 > len(resolved) and columns.labels[0] not in table.class_names:
        raise BadInput(
            f"{table.name} has {len(names):,} different values in {columns.labels[0]!r} for {len(resolved):,} texts, "
            "too many for labels; choose another column with --label-column, or --problem regression for numbers"
        )


def _from_trees(files: Sequence[DataFile], settings: LabelSettings, notes: ReadNotes) -> LabeledData[LabeledText]:
    examples = [example for file in files for example in read_trees(file.path, settings, notes, file.part)]
    if not examples:
        raise BadInput(f"{files[0].path} is empty; give a file of bracketed trees")
    binary = settings.trees.startswith("binary-")
    what = "sentences" if settings.trees.endswith("sentences") else "phrases, each once,"
    note = f"{len(examples):,} {what} of trees, labels 0 to {1 if binary else 4}"
    return LabeledData(tuple(examples), FINE[:2] if binary else FINE, "single", (note,))


def _from_label_folders(
    folders: Sequence[LabelFolder], settings: LabelSettings, notes: ReadNotes
) -> LabeledData[LabeledText]:
    """A text of each file; the name of its folder is its label."""
    examples, left_out = [], 0
    for folder in folders:
        if folder.label == UNSUPERVISED:
            left_out += len(folder.files)
            continue
        for file in folder.files:
            text = "\n".join(read_lines(file, settings.errors, settings.encoding, notes)).strip()
            if not text:
                raise BadInput(f"{file} is empty; remove it")
            examples.append(LabeledText(text, labels=(folder.label,), location=str(file), part=folder.part))
    names = read_label_names(settings.labels) or order_names(label for each in examples for label in each.labels)
    found = resolve_names([(each.location, each.labels) for each in examples], names, "--labels")
    examples = [replace(example, labels=labels) for example, labels in zip(examples, found, strict=True)]
    described = [f"a file for each text, the names of {len(names)} folders are its labels"]
    described += [f"{left_out:,} files of the folder {UNSUPERVISED} have no label and are ignored"] if left_out else []
    return LabeledData(tuple(examples), names, "single", tuple(described))


def _with_known_labels(data: LabeledData[LabeledText], known: Sequence[str] | None) -> LabeledData[LabeledText]:
    """The data with the labels of a model or of training. Raises BadInput for a label that is not among them."""
    if not known or data.kind == "regression":
        return data
    found = resolve_names([(each.location, each.labels) for each in data.examples], known, "training")
    examples = tuple(replace(each, labels=labels) for each, labels in zip(data.examples, found, strict=True))
    return replace(data, examples=examples, label_names=tuple(known))


def _name(sources: Sequence[str | Path]) -> str:
    name = Path(sources[0]).name or str(sources[0])
    return name if len(sources) == 1 else f"{name} and {len(sources) - 1} more"
