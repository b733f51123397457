"""Sentences of words to be tagged, from files of words (CoNLL, CoNLL-U), tables, text files and texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clearstory.durable.paths import find_named_file
from clearstory.errors import BadInput
from clearstory.tasks.data.columns import TEXTS, TOKENS, choose_column, find_named
from clearstory.tasks.data.conll import read_conll_words
from clearstory.tasks.data.data_files import RECORD_FILES, WORD_FILES, find_data_files
from clearstory.tasks.data.records import read_table, read_text
from clearstory.tasks.data.settings import LabelSettings
from clearstory.tasks.word_windows import spans_of_words
from clearstory.text.character_encodings import Errors
from clearstory.text.files import content_suffix, read_lines
from clearstory.text.read_notes import ReadNotes


@dataclass(frozen=True)
class Sentence:
    """A text and its words, with the characters [start, stop) of each, and its file and line for messages."""

    text: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    location: str = ""


def split_words(text: str, location: str = "") -> Sentence:
    """Split a text into words at white space.

    >>> split_words("Ada  left").spans
    ((0, 3), (5, 9))
    """
    spans = tuple(word.span() for word in re.finditer(r"\S+", text))
    return Sentence(text, tuple(text[start:stop] for start, stop in spans), spans, location)


def join_words(words: Sequence[str], location: str = "") -> Sentence:
    """Words that are given one by one, with the text in which they are joined by spaces.

    >>> join_words(["Ada", "left"]).text
    'Ada left'
    """
    return Sentence(" ".join(words), tuple(words), tuple(spans_of_words(words)), location)


def read_sentences(source: str | Path, errors: Errors = "strict", text_field: str = "text") -> list[Sentence]:
    """The sentences of a file, or the non-empty lines of a text.

    If the file has words (CoNLL, CoNLL-U, or a column such as tokens), these are used without their tags; otherwise
    words are separated by white space. Raises BadInput for a Path that does not exist.
    """
    path = find_named_file(source)
    if path is None:
        return [split_words(line) for line in str(source).splitlines() if line.split()]
    settings, suffix = LabelSettings(errors=errors), content_suffix(path)
    if suffix in WORD_FILES:
        return [join_words(words, location) for location, words in read_conll_words(path, settings, ReadNotes())]
    if suffix in RECORD_FILES:
        return read_records(path, settings, text_field)
    lines = enumerate(read_lines(path, errors), start=1)
    return [split_words(line.removesuffix("\r"), f"{path}, line {number:,}") for number, line in lines if line.split()]


def read_records(path: Path, settings: LabelSettings, text_field: str) -> list[Sentence]:
    """The sentences of a table, one in each record: a list of words, or a text."""
    table = read_table(find_data_files((path,), settings.reading, RECORD_FILES), settings, ReadNotes())
    tokens = find_named(table.columns, TOKENS) if text_field == "text" else None
    if tokens is not None and isinstance(table.records[0].values.get(tokens), list):
        found = []
        for record in table.records:
            words = record.values.get(tokens)
            if not isinstance(words, list) or any(isinstance(each, list | dict) or each is None for each in words):
                raise BadInput(f"{record.location}: {tokens!r} is not a list of words; give one, or remove the record")
            kept = [word for each in words if (word := str(each).strip())]
            found.append(join_words(kept, record.location))
        return found
    usual = find_named(table.columns, TEXTS) if text_field == "text" else None
    column = usual or choose_column(table, text_field, "--text-field")
    return [split_words(read_text(record, column), record.location) for record in table.records]
