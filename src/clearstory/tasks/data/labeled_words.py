"""Words with tags, from CoNLL of 2 to 10 columns, CoNLL-U, jsonl, parquet, `datasets` folders and character spans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, nearest
from clearstory.tasks.data.chunk_tags import (
    OUTSIDE,
    TagRepairs,
    bio_names,
    find_scheme,
    is_chunk_scheme,
    marks_chunks,
    to_bio,
)
from clearstory.tasks.data.columns import TAGS, TEXTS, TOKENS, choose_column, find_named, is_header, sample_values
from clearstory.tasks.data.conll import read_conll
from clearstory.tasks.data.data_files import RECORD_FILES, WORD_FILES, DataFile, find_data_files
from clearstory.tasks.data.examples import LabeledData, LabeledWords
from clearstory.tasks.data.labels import are_ids, label_text, order_names, read_label_names
from clearstory.tasks.data.records import LabelRecord, RecordTable, read_table
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.data.spans import read_spans, tag_words
from clearstory.tasks.data.text_columns import find_split_column, part_of_record
from clearstory.tasks.data.trees import has_trees
from clearstory.text.files import content_suffix, read_lines
from clearstory.text.read_notes import ReadNotes

SPANS = ("spans", "entities", "label", "labels", "ner")

SENTENCES = ("sentence#", "sentenceid", "sentid", "sentence", "sentenceidx", "sentencenumber")
"""Columns with the sentence of a word, in a table with one word per row."""


@dataclass
class _TaggedRead:
    """The sentences of each file as they are read, and notes on how."""

    files: list[list[LabeledWords]] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    empty_words: int = 0
    extended_spans: int = 0


def read_labeled_words(
    sources: Iterable[str | Path] | str | Path,
    settings: LabelSettings | None = None,
    *,
    known_labels: Sequence[str] | None = None,
) -> LabeledData[LabeledWords]:
    """Sentences with a tag for each word; entity tags are converted to BIO, and repairs are counted in the notes.

    `settings.label_column` is the column of CoNLL: a name (upos, xpos, deprel …) or its number from 1. `known_labels`:
    names of the tags of a model or the training data; others are an error. Raises BadInput, with file and line.

    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "people.conll")
    >>> _ = file.write_text("Ada I-PER\\nLovelace I-PER\\ncodes O\\n")
    >>> data = read_labeled_words(file)
    >>> data.examples[0].tags, data.label_names
    (('B-PER', 'I-PER', 'O'), ('O', 'B-PER', 'I-PER'))
    """
    settings = settings or LabelSettings()
    sources = [sources] if isinstance(sources, str | Path) else list(sources)
    read, notes = _TaggedRead(), ReadNotes()
    files = find_data_files(sources, settings.reading, (*WORD_FILES, *RECORD_FILES))
    trees = next((file.path for file in files if has_trees(file.path)), None)
    if trees is not None:
        raise BadInput(f"{trees} has trees of labeled phrases, not words with tags; use --task classify")
    words = [file for file in files if not _has_records(file)]
    for file in words:
        sentences = read_conll(file.path, settings, notes)
        read.notes[sentences.described] = None
        read.empty_words += sentences.empty_words
        read.files.append(
            [
                LabeledWords(words, tags, location, file.part, no_space)
                for location, words, tags, no_space in sentences.sentences
            ]
        )
    if len(words) < len(files):
        table = read_table([file for file in files if file not in words], settings, notes)
        read.files.append([])
        _read_records(table, settings, read)
    name = Path(sources[0]).name + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    data = _finish(read, settings, known_labels)
    return replace(data, notes=(*data.notes, *notes.sentences()), name=name)


def _has_records(file: DataFile) -> bool:
    """Whether a file has a sentence in each record; a .tsv file without a header has a word on each line."""
    suffix = content_suffix(file.path)
    if suffix != ".tsv":
        return suffix in RECORD_FILES
    lines = list(islice(read_lines(file.path, "replace"), 500))
    return bool(lines) and is_header(lines[0].rstrip("\r").split("\t")) and all(line.strip() for line in lines[:-1])


def _read_records(table: RecordTable, settings: LabelSettings, read: _TaggedRead) -> None:
    """Sentences of records: tokens and tags, or a text and its spans, or a word in each."""
    split = find_split_column(table, settings)

    def part(record: LabelRecord) -> str:
        return record.part if split is None else part_of_record(record.values.get(split), record.location)

    tokens = settings.text_column and choose_column(table, settings.text_column, "--text-column")
    tags = settings.label_column and choose_column(table, settings.label_column, "--label-column")
    tokens = tokens or find_named(table.columns, TOKENS)
    if tokens is None or _has_spans(table, tags):
        _read_span_records(table, settings, read, tags, part)
        return
    tags = tags or _find_tags(table, [column for column in table.columns if column != tokens])
    if tags is None:
        known = table.listed_columns
        raise BadInput(f"{table.name} has no column of tags, only {known}; name it with --label-column")
    read.names = table.class_names.get(tags, ())
    read.notes[f"words from {tokens!r}, tags from {tags!r}"] = None
    sentence = find_named(table.columns, SENTENCES)
    if (
        sentence is not None
        and sentence not in (tokens, tags)
        and not isinstance(table.records[0].values[tokens], list)
    ):
        _read_word_records(table, (sentence, tokens, tags), read, part)
        return
    for record in table.records:
        words, labels = _as_list(record, tokens, str), _as_list(record, tags, label_text)
        if len(words) != len(labels):
            raise BadInput(
                f"{record.location} has {len(words)} words in {tokens!r} and {len(labels)} tags in {tags!r}; give a "
                "tag for each word"
            )
        if not words:
            raise BadInput(f"{record.location} has no words in {tokens!r}; remove the row")
        kept = [(word, tag) for word, tag in zip(words, labels, strict=True) if word.strip()]
        read.empty_words += len(words) - len(kept)
        if kept:
            read.files[-1].append(
                LabeledWords(tuple(w for w, _ in kept), tuple(t for _, t in kept), record.location, part(record))
            )


def _find_tags(table: RecordTable, left: Sequence[str]) -> str | None:
    """The column of tags by its usual names; of several, one whose tags mark chunks."""
    named = [column for name in TAGS if (column := find_named(left, [name])) is not None]
    for column in named:
        values = sample_values(table, column)
        if marks_chunks(str(tag) for value in values for tag in (value if isinstance(value, list) else [value])):
            return column
    return named[0] if named else None


def _read_word_records(table: RecordTable, columns: tuple[str, str, str], read: _TaggedRead, part: Any) -> None:
    """A word in each row; a new sentence begins where the column of sentences has another value."""
    sentence, tokens, tags = columns
    current: Any = None
    rows: list[tuple[str, str]] = []
    first = table.records[0]

    def end() -> None:
        if rows:
            read.files[-1].append(
                LabeledWords(tuple(w for w, _ in rows), tuple(t for _, t in rows), first.location, part(first))
            )
            rows.clear()

    for record in table.records:
        value = record.values.get(sentence)
        if str(value or "").strip() and value != current:
            end()
            current = value
        first = record if not rows else first
        word, tag = (str(record.values.get(column) or "").strip() for column in (tokens, tags))
        if word and not tag:
            raise BadInput(f"{record.location}: {word[:30]!r} has no tag in {tags!r}; add it")
        read.empty_words += not word
        rows += [(word, tag)] if word else []
    end()


def _as_list(record: LabelRecord, column: str, name: Callable[[Any], str]) -> list[str]:
    """The items of a list, or of a text with spaces between them."""
    value = record.values.get(column)
    if isinstance(value, str):
        value = value.split()
    if not isinstance(value, list) or any(isinstance(each, list | dict) or each is None for each in value):
        raise BadInput(
            f"{record.location}: {column!r} is {type(value).__name__}, not a list; give one item for each word"
        )
    return [name(each) for each in value]


def _has_spans(table: RecordTable, tags: str | None) -> bool:
    """Whether records have a text with spans of characters, even if they have tokens too."""
    column = tags or find_named(table.columns, SPANS)
    if column is None or find_named(table.columns, TEXTS) is None:
        return False
    values = [item for value in sample_values(table, column) if isinstance(value, list) for item in value]
    return bool(values) and all(isinstance(item, dict | list) for item in values)


def _read_span_records(
    table: RecordTable, settings: LabelSettings, read: _TaggedRead, spans: str | None, part: Any
) -> None:
    text = settings.text_column and choose_column(table, settings.text_column, "--text-column")
    text = text or find_named(table.columns, TEXTS)
    spans = spans or find_named([column for column in table.columns if column != text], SPANS)
    if text is None or spans is None or not any(isinstance(value, list) for value in sample_values(table, spans)):
        known = table.listed_columns
        labels = "; texts with labels are for --task classify" if text is not None else ""
        raise BadInput(
            f"{table.name} has neither words with tags nor a text with spans (its columns are {known}); name them with "
            f"--text-column and --label-column{labels}"
        )
    read.notes[f"text from {text!r}, spans from {spans!r}; words are split at spaces and punctuation"] = None
    for record in table.records:
        value = record.values.get(text)
        if not isinstance(value, str) or not value.strip():
            raise BadInput(f"{record.location}: the text in {text!r} is empty; remove the row")
        found = read_spans(record.values.get(spans), value, record.location)
        words, tags, no_space, extended = tag_words(value, found)
        read.extended_spans += extended
        read.files[-1].append(LabeledWords(words, tags, record.location, part(record), no_space))


def _finish(read: _TaggedRead, settings: LabelSettings, known: Sequence[str] | None) -> LabeledData[LabeledWords]:
    """Names for ids, BIO for chunks, and the order of the tags."""
    if not any(read.files):
        raise BadInput("the data has no words; give a file with words and tags")
    notes = list(read.notes)
    if read.empty_words:
        notes.append(f"{read.empty_words:,} tag{'s' * (read.empty_words != 1)} without a word ignored")
    if read.extended_spans:
        notes.append(f"{read.extended_spans:,} spans that begin or end within a word were extended to whole words")
    names = read_label_names(settings.labels) or read.names
    distinct = {tag for file in read.files for sentence in file for tag in sentence.tags}
    files = read.files
    if names and not distinct <= set(names) and are_ids(distinct, names):
        files = [[replace(each, tags=tuple(names[int(tag)] for tag in each.tags)) for each in file] for file in files]
    elif names:
        for file in files:
            _check_known(file, names, "--labels" if settings.labels else "the data set")
    elif all(tag.isdecimal() for tag in distinct):
        notes.append("tags are ids without names and are evaluated separately; name them with --labels")
    distinct = {tag for file in files for sentence in file for tag in sentence.tags}
    chunks = marks_chunks(tag for file in files for sentence in file for tag in sentence.tags)
    chunks = chunks or (distinct == {OUTSIDE} and is_chunk_scheme(known or names))
    if chunks:
        files = [_chunks_as_bio(file, notes) for file in files]
        distinct = {tag for file in files for sentence in file for tag in sentence.tags}
        names = names if distinct <= set(names) else bio_names(distinct)
    sentences = tuple(sentence for file in files for sentence in file)
    if known:
        _check_known(sentences, known, "training")
    names = tuple(known or names or order_names(distinct))
    return LabeledData(sentences, names, "tags", tuple(notes), "bio" if chunks else "")


def _chunks_as_bio(file: Sequence[LabeledWords], notes: list[str]) -> list[LabeledWords]:
    """The sentences of a file with BIO tags; changes are added to the notes."""
    repairs = TagRepairs(find_scheme(each.tags for each in file))
    found = [replace(each, tags=to_bio(each.tags, repairs, each.location, each.words)) for each in file]
    if repairs.note and repairs.note not in notes:
        notes.append(repairs.note)
    return found


def _check_known(sentences: Sequence[LabeledWords], names: Sequence[str], where: str) -> None:
    """Raise BadInput for a tag that is not among the names."""
    known = set(names)
    for sentence in sentences:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            if tag not in known:
                some = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
                close = nearest(tag, names)
                suggestion = f"{close} " if close.startswith("did you mean") else ""
                raise BadInput(
                    f"{sentence.location}: the tag {tag[:30]!r} of {word[:30]!r} is not one of the {len(names)} tags "
                    f"of {where} ({some}); {suggestion}correct it, or remove the sentence"
                )
