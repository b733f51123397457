"""Pairs and triplets of texts for sentence vectors; pairs of words with their similarity; word analogies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from clearstory.durable.paths import expand_home
from clearstory.errors import BadInput
from clearstory.tasks.data.columns import (
    ANCHORS,
    NEGATIVES,
    SCORES,
    choose_column,
    find_named,
    find_pair,
    is_text,
    plain,
)
from clearstory.tasks.data.columns import sample_values as values_of
from clearstory.tasks.data.data_files import RECORD_FILES, TREE_FILES, WORD_FILES, DataFile, find_data_files
from clearstory.tasks.data.examples import LabeledData, SimilarityExample
from clearstory.tasks.data.labels import are_ids, as_number, label_text, read_label_names
from clearstory.tasks.data.records import LabelRecord, RecordTable, read_table, read_text
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.text_columns import find_split_column, part_of_record
from clearstory.text.files import content_suffix, read_lines
from clearstory.text.read_notes import ReadNotes

ENTAILMENT, CONTRADICTION = "entailment", "contradiction"


@dataclass(frozen=True)
class Analogy:
    """`first` is to `second` as `third` is to `fourth`; `section` is the relation."""

    first: str
    second: str
    third: str
    fourth: str
    section: str = ""
    location: str = ""


@dataclass(frozen=True)
class SimilarityColumns:
    """Names of the columns of anchors, positives, negatives and scores."""

    anchor: str
    positive: str
    negative: str | None = None
    score: str | None = None

    def described(self, has_header: bool) -> str:
        """The columns as one sentence."""
        named = [
            f"{what} from {repr(column) if has_header else f'column {column}'}"
            for what, column in (
                *(("anchor", self.anchor), ("positive", self.positive)),
                *(("negative", self.negative), ("score", self.score)),
            )
            if column is not None
        ]
        return ", ".join(named) + ("" if has_header else " (no header)")


def read_similarity(
    sources: Iterable[str | Path] | str | Path, settings: LabelSettings | None = None
) -> LabeledData[SimilarityExample]:
    """Anchors with positives, triplets, or pairs with a score, of sentences or words.

    Of pairs labeled entailment, neutral and contradiction, the entailed become positives, and the contradictions
    negatives of the same anchor. Raises BadInput, with file and line.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "words.txt")
    >>> _ = file.write_text("gem\\tjewel\\t3.94\\nnoon\\tstring\\t0.04\\n")
    >>> data = read_similarity(file)
    >>> data.kind, data.examples[0].anchor, data.examples[0].positive, data.examples[0].score
    ('scores', 'gem', 'jewel', 3.94)
    """
    settings = settings or LabelSettings()
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    notes = ReadNotes()
    files = find_data_files(sources, settings.reading, (*RECORD_FILES, ".txt"))
    for file in files:
        if content_suffix(file.path) in (*WORD_FILES, *TREE_FILES):
            raise BadInput(
                f"{file.path} has no pairs of texts; give csv, tsv, jsonl or parquet with two texts in each row"
            )
    columns: SimilarityColumns | None = None
    table = _read_spaced(files[0], settings, notes) if len(files) == 1 else None
    table = table or read_table(files, settings, notes)
    columns = _choose_columns(table, settings)
    described = [columns.described(table.has_header)]
    split = find_split_column(table, settings)
    records = table.records
    if split is not None:
        records = [
            record._replace(part=part_of_record(record.values.get(split), record.location)) for record in records
        ]
    if _has_entailment(table, columns, settings):
        examples = _from_entailment(table, records, columns, settings)
        columns = replace(columns, score=None)
        described.append(f"{len(examples):,} entailed pairs; contradictions are negatives, neutral pairs are ignored")
    else:
        examples = [each for record in records for each in _from_record(record, columns)]
    if not examples:
        raise BadInput(f"{table.name} has no pairs; give two texts in each row")
    kind = "pairs"
    if columns.score is not None:
        kind = "scores"
    elif all(each.negative is not None for each in examples):
        kind = "triplets"
    name = Path(sources[0]).name + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    all_notes = (*described, *notes.sentences())
    return LabeledData(tuple(examples), (), kind, all_notes, name=name)  # type: ignore[arg-type]  # one of three kinds


def read_analogies(path: str | Path) -> list[Analogy]:
    """Analogies of a file with four words on a line and `: section` lines between them, as questions-words.txt.

    Raises BadInput, with the line, for another number of words, and for a section without analogies.
    """
    path = expand_home(path)
    if not path.is_file():
        raise BadInput(f"there is no file {path}; give a file of analogies, four words per line")
    found: list[Analogy] = []
    section, empty = "", 0  # the line of a section that has no analogies yet
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if line.startswith(":"):
            if empty:
                break
            section, empty = line[1:].strip(), number
        elif words:
            if len(words) != 4:
                raise BadInput(
                    f"{path}, line {number:,} has {len(words)} word{'s' * (len(words) != 1)}; an analogy has four "
                    "(Athens Greece Oslo Norway), and a line that begins with : names the relation"
                )
            first, second, third, fourth = words
            empty = 0
            found.append(Analogy(first, second, third, fourth, section, f"{path}, line {number:,}"))
    if empty:
        raise BadInput(f"{path}, line {empty:,}: the section {section[:60]!r} has no analogies; add some, or remove it")
    if not found:
        raise BadInput(f"{path} is empty; give a file of analogies, four words per line")
    return found


def _read_spaced(file: DataFile, settings: LabelSettings, notes: ReadNotes) -> RecordTable | None:
    """Two words and a number on each line, separated by spaces; None for another form."""
    if content_suffix(file.path) in RECORD_FILES:
        return None
    sample = [line.split() for line in islice(read_lines(file.path, "replace"), 50) if line.strip()]
    if not sample or any(len(words) != 3 or as_number(words[2]) is None for words in sample):
        return None
    records = []
    for number, line in enumerate(read_lines(file.path, settings.errors, settings.encoding, notes), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3:
            raise BadInput(f"{file.path}, line {number:,} has {len(words)} fields; give two words and their similarity")
        location = f"{file.path}, line {number:,}"
        records.append(LabelRecord(location, file.part, dict(zip(("1", "2", "3"), words, strict=True))))
    return RecordTable(("1", "2", "3"), records, has_header=False, name=str(file.path))


def _choose_columns(table: RecordTable, settings: LabelSettings) -> SimilarityColumns:
    """The columns: named by settings, by their usual names, or, without a header, by their order and values."""
    anchor, positive, negative, score = (
        choose_column(table, name, flag) if name else None
        for name, flag in (
            (settings.text_column, "--text-column"),
            (settings.pair_column, "--pair-column"),
            (settings.negative_column, "--negative-column"),
            (settings.label_column, "--label-column"),
        )
    )
    chosen = {anchor, positive, negative, score}
    left = [column for column in table.columns if column not in chosen]
    if table.has_header and anchor is None and positive is None:
        anchor, positive = find_pair(left, ANCHORS) or (None, None)
    if anchor is None or positive is None:
        texts = [column for column in left if _has_texts(table, column)]
        needed = 2 - (anchor is not None) - (positive is not None)
        if len(texts) != needed and not (len(texts) == 3 and needed == 2 and negative is None and not table.has_header):
            known = table.listed_columns
            raise BadInput(
                f"{table.name} has no two columns that are recognized as pairs of texts, only {known}; name them with "
                "--text-column and --pair-column (texts with labels are for --task classify)"
            )
        anchor = anchor or texts.pop(0)
        positive = positive or texts.pop(0)
        negative = negative or (texts[0] if texts else None)
    left = [column for column in left if column not in (anchor, positive, negative)]
    if table.has_header:
        negative = negative or find_named(left, NEGATIVES)
        score = score or (find_named(left, SCORES) if negative is None else None)
    elif score is None and negative is None:
        numbers = [column for column in left if all(as_number(value) is not None for value in values_of(table, column))]
        score = numbers[0] if len(numbers) == 1 else None
    return SimilarityColumns(anchor, positive, negative, score)


def _has_texts(table: RecordTable, column: str) -> bool:
    """Whether a column has texts, or, in a table without a header, words."""
    values = values_of(table, column)
    words = not table.has_header and all(isinstance(value, str) and as_number(value) is None for value in values)
    return words or is_text(values)


def _has_entailment(table: RecordTable, columns: SimilarityColumns, settings: LabelSettings) -> bool:
    """Whether the label of pairs is that of natural language inference.

    Raises BadInput for ids of more than two classes without names, which are not scores.
    """
    if columns.score is None:
        return False
    values = [_class_name(table, value, columns.score, settings) for value in values_of(table, columns.score)]
    if ENTAILMENT in values and set(values) <= {ENTAILMENT, CONTRADICTION, "neutral", "-", "-1"}:
        return True
    if plain(columns.score) in ("label", "goldlabel") and "2" in values and set(values) <= {"0", "1", "2", "-1"}:
        raise BadInput(
            f"{table.name} has the labels 0, 1 and 2 in {columns.score!r}, which are classes, not scores; name them "
            "with --labels, such as entailment,neutral,contradiction"
        )
    return False


def _class_name(table: RecordTable, value: Any, column: str, settings: LabelSettings) -> str:
    names = read_label_names(settings.labels) or table.class_names.get(column, ())
    label = label_text(value)
    return (names[int(label)] if are_ids([label], names) else label).lower()


def _from_entailment(
    table: RecordTable, records: Sequence[LabelRecord], columns: SimilarityColumns, settings: LabelSettings
) -> list[SimilarityExample]:
    positives: list[SimilarityExample] = []
    negatives: dict[str, list[str]] = defaultdict(list)
    column = columns.score or ""
    for record in records:
        label = _class_name(table, record.values.get(column), column, settings)
        if label == ENTAILMENT:
            positives += _from_record(record, replace(columns, score=None, negative=None))
        elif label == CONTRADICTION:
            negatives[read_text(record, columns.anchor)].append(read_text(record, columns.positive))
    complete = bool(positives) and all(negatives.get(each.anchor) for each in positives)
    if not complete:
        return positives
    taken: dict[str, int] = defaultdict(int)
    found = []
    for each in positives:
        choices = negatives[each.anchor]
        found.append(replace(each, negative=choices[taken[each.anchor] % len(choices)]))
        taken[each.anchor] += 1
    return found


def _from_record(record: LabelRecord, columns: SimilarityColumns) -> Iterable[SimilarityExample]:
    """The example of a record; one of each positive where it has a list of them."""
    anchor = read_text(record, columns.anchor)
    positives = _texts(record, columns.positive)
    negatives = [] if columns.negative is None else _texts(record, columns.negative)
    score = None
    if columns.score is not None:
        value = record.values.get(columns.score)
        score = as_number({"true": 1, "false": 0}.get(label_text(value).lower(), value))
        if score is None:
            raise BadInput(
                f"{record.location}: the score in {columns.score!r} is {str(value)[:40]!r}, not a number; correct it, "
                "or name another column with --label-column"
            )
    for positive, negative in zip_longest(positives, negatives[: len(positives)] or []):
        fallback = negatives[-1] if negatives else None
        yield SimilarityExample(anchor, positive, negative or fallback, score, record.location, record.part)


def _texts(record: LabelRecord, column: str) -> list[str]:
    """The text in a column, or those of a list in it."""
    value = record.values.get(column)
    if isinstance(value, list) and value:
        return [read_text(record._replace(values={column: each}), column) for each in value]
    return [read_text(record, column)]
