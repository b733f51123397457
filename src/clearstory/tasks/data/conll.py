"""CoNLL: a word on each line with its tag in another column, a blank line between sentences; 2 to 10 columns.

Columns are separated by tabs or by spaces. `-DOCSTART-` lines and comments (`# text = …`) are not words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from clearstory.errors import BadInput, nearest
from clearstory.tasks.data.chunk_tags import marks_chunks
from clearstory.tasks.data.labels import is_index
from clearstory.tasks.data.settings import LabelSettings
from clearstory.text.conllu import COLUMNS, CONLLU_SUFFIX, read_conllu
from clearstory.text.files import content_suffix, read_lines
from clearstory.text.read_notes import ReadNotes

DOCUMENT_START = "-DOCSTART-"

GLOBAL_COLUMNS = "# global.columns ="

CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
"""Names of the ten columns of CoNLL-U."""

WORD_COLUMNS = ("form", "word", "token")
"""Usual names of the column with the words, in files with column names."""

Line = tuple[int, list[str]]
"""Number of a line, and its columns."""


@dataclass
class ConllSentences:
    """Sentences of a file as (location, words, tags), with a description of the columns.

    Args:
        described: the columns of words and tags, for the note.
        empty_words: number of lines with a tag but without a word.
    """

    sentences: list[tuple[str, tuple[str, ...], tuple[str, ...], tuple[bool, ...]]] = field(default_factory=list)
    described: str = ""
    empty_words: int = 0


def read_conll(path: Path, settings: LabelSettings, notes: ReadNotes) -> ConllSentences:
    """The sentences of a CoNLL or CoNLL-U file.

    The words are in the first column that has no numbers of lines, the tags in the last column with B-, I- and O, or,
    without such a column, in the last one; `settings.text_column` and `settings.label_column` name others.

    Raises BadInput, with the line, for a line of another length than the first.
    """
    if content_suffix(path) == CONLLU_SUFFIX:
        return _read_conllu(path, settings, notes)
    blocks, names = _read_blocks(path, settings, notes)
    if not blocks:
        raise BadInput(f"{path} is empty; give a file with a word and its tag on each line")
    width = len(blocks[0][0][1])
    if width == COLUMNS and not names and blocks[0][0][1][0] == "1" and settings.label_column is None:
        return _read_conllu(path, settings, notes)
    lines = [line for block in blocks for line in block]
    odd = [line for line in lines if len(line[1]) != width]
    if len(odd) * 3 >= len(lines) or width > COLUMNS * 3:
        raise BadInput(
            f"{path} is text, not words with tags{f' (see line {odd[0][0]:,})' if odd else ''}; give a word and its "
            "tag on each line, or continue training on the text with --task lm"
        )
    for number, fields in odd:
        raise BadInput(
            f"{path}, line {number:,} has {len(fields)} column{'s' * (len(fields) != 1)}, and line {lines[0][0]:,} has "
            f"{width}; each line has a word and its tags, and a blank line ends a sentence"
        )
    if width < 2:
        raise BadInput(
            f"{path} has one column, not words with tags; give a word and its tag on each line, or continue training "
            "on the text with --task lm"
        )
    word_column, tag_column = _choose_columns(path, blocks, names, settings)
    words = [fields[word_column] for _, fields in lines]
    if sum(" " in word.strip() for word in words) * 2 > len(words):
        raise BadInput(
            f"{path} has a text on each line, not words with tags; texts with labels are for --task classify"
        )
    if all("/" in word.strip("/") for word in words):
        raise BadInput(f"{path} has words joined to their tags ({words[0][:20]}); give a word and its tag on each line")
    found = ConllSentences(described=f"words from column {word_column + 1}, tags from column {tag_column + 1}")
    if names:
        found.described = f"words from '{names[word_column]}', tags from '{names[tag_column]}'"
    for block in blocks:
        kept = [(fields[word_column].strip(), fields[tag_column].strip()) for _, fields in block]
        found.empty_words += sum(not word for word, _ in kept)
        kept = [(word, tag) for word, tag in kept if word]
        location = f"{path}, line {block[0][0]:,}"
        if any(not tag for _, tag in kept):
            word = next(word for word, tag in kept if not tag)
            raise BadInput(f"{location}: {word[:30]!r} has no tag in the sentence that begins here; add it")
        if kept:
            found.sentences.append((location, tuple(w for w, _ in kept), tuple(t for _, t in kept), ()))
    return found


def read_conll_words(path: Path, settings: LabelSettings, notes: ReadNotes) -> list[tuple[str, tuple[str, ...]]]:
    """The words and the location of each sentence of a CoNLL or CoNLL-U file; tags are not read."""
    if content_suffix(path) == CONLLU_SUFFIX:
        return [(each.location, each.words) for each in read_conllu(path, settings.errors, settings.encoding, notes)]
    blocks, names = _read_blocks(path, settings, notes)
    if not blocks:
        raise BadInput(f"{path} is empty; give a file with a word on each line")
    width = len(blocks[0][0][1])
    column = next((names.index(name) for name in WORD_COLUMNS if name in names), None)
    if column is None:
        left = (index for index in range(width) if not _counts_words(blocks[0], index))
        column = next(left, 0)
    found = []
    for block in blocks:
        for number, fields in block:
            if len(fields) <= column:
                raise BadInput(
                    f"{path}, line {number:,} has {len(fields)} column{'s' * (len(fields) != 1)}, and the words are in "
                    f"column {column + 1}; add the word, or leave the line empty between sentences"
                )
        words = tuple(word for _, fields in block if (word := fields[column].strip()))
        if words:
            found.append((f"{path}, line {block[0][0]:,}", words))
    return found


def _read_blocks(path: Path, settings: LabelSettings, notes: ReadNotes) -> tuple[list[list[Line]], list[str]]:
    """The lines of each sentence, and the names of the columns where the file has them (CoNLL-U Plus)."""
    blocks: list[list[Line]] = [[]]
    names: list[str] = []
    separator: str | None = None
    width = 0
    for number, line in enumerate(read_lines(path, settings.errors, settings.encoding, notes), start=1):
        line = line.rstrip("\r")
        if not line.strip():
            blocks.append([])
            continue
        if line.startswith(GLOBAL_COLUMNS):
            names = [name.lower() for name in line.removeprefix(GLOBAL_COLUMNS).split()]
            continue
        if separator is None and not line.startswith("#"):
            separator = "\t" if "\t" in line else " "
        fields = line.split("\t") if separator == "\t" else re.split(r"[ \t]+", line.strip(" \t"))
        if fields[0] == DOCUMENT_START:
            blocks.append([])
            continue
        if line.startswith("#") and (len(fields) != width or not width):
            continue  # a comment; a line of the usual length is the word "#"
        width = width or len(fields)
        blocks[-1].append((number, fields))
    return [block for block in blocks if block], names


def _choose_columns(
    path: Path, blocks: Sequence[Sequence[Line]], names: Sequence[str], settings: LabelSettings
) -> tuple[int, int]:
    """Indices of the columns with the words and the tags."""
    columns = list(zip(*(fields for block in blocks[:2000] for _, fields in block), strict=True))
    width = len(columns)
    tag = None if settings.label_column is None else _column_index(path, settings.label_column, names, width, "label")
    word = None if settings.text_column is None else _column_index(path, settings.text_column, names, width, "text")
    if tag is None:
        chunks = [index for index in range(width) if index != word and marks_chunks(columns[index])]
        candidates = chunks or [index for index in range(width) if index != word and set(columns[index]) == {"O"}]
        tag = candidates[-1] if candidates else width - 1
    if word is None:
        left = [index for index in range(width) if index != tag and not _counts_words(blocks[0], index)]
        named = [names.index(name) for name in WORD_COLUMNS if name in names]
        word = named[0] if named else left[0] if left else 0
    if word == tag:
        raise BadInput(f"{path}: column {tag + 1} is given for the words and for the tags; give two different columns")
    distinct = set(columns[tag])
    if settings.label_column is None and len(distinct) > 20 and len(distinct) * 3 > len(columns[tag]):
        raise BadInput(
            f"{path} has {len(distinct):,} different values in column {tag + 1} for {len(columns[tag]):,} words, too "
            f"many for tags; give the column of the tags, from 1 to {width}, with --label-column"
        )
    return word, tag


def _counts_words(block: Sequence[Line], column: int) -> bool:
    """Whether a column counts the words of a sentence from 0 or 1, as the first one of CoNLL-U does."""
    numbers = [int(fields[column]) for _, fields in block if column < len(fields) and is_index(fields[column])]
    return len(numbers) == len(block) and numbers[0] in (0, 1) and all(b == a + 1 for a, b in pairwise(numbers))


def _column_index(path: Path, name: str, names: Sequence[str], width: int, what: str) -> int:
    """Index of the column that a setting names: a number from 1, or a name where the file has names."""
    if is_index(name) and 1 <= int(name) <= width:
        return int(name) - 1
    known = list(names) or (list(CONLLU_COLUMNS) if width == COLUMNS else [])
    if name.lower() in known:
        return known.index(name.lower())
    suggestion = f"; {nearest(name.lower(), known)}" if known else ""
    raise BadInput(
        f"{path} has no column {name!r}, but {width} columns{suggestion}; name one by its number, such as "
        f"--{what}-column {width}"
    )


def _read_conllu(path: Path, settings: LabelSettings, notes: ReadNotes) -> ConllSentences:
    name = settings.label_column or "upos"
    column = _column_index(path, name, CONLLU_COLUMNS, COLUMNS, "label")
    found = ConllSentences(described=f"words from 'form', tags from '{CONLLU_COLUMNS[column]}'")
    for sentence in read_conllu(path, settings.errors, settings.encoding, notes, tag_column=column):
        if "_" in sentence.tags and CONLLU_COLUMNS[column] != "feats":
            word = sentence.words[sentence.tags.index("_")]
            raise BadInput(
                f"{sentence.location}: {word[:30]!r} has no tag in '{CONLLU_COLUMNS[column]}' in the sentence that "
                "begins here; add it, or name another column with --label-column"
            )
        found.sentences.append((sentence.location, sentence.words, sentence.tags, sentence.no_space_after))
    return found
