"""CoNLL-U: sentences with tagged words, the format of Universal Dependencies (universaldependencies.org/format).

Each word has ten columns, of which FORM, UPOS, HEAD, DEPREL and SpaceAfter in MISC are read; a blank line ends a
sentence, and `# newdoc` begins a document. Multiword ranges (1-2) and empty nodes (1.1) are not syntactic words and are
skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clearstory.errors import BadInput
from clearstory.text.character_encodings import UTF8, Errors
from clearstory.text.files import read_lines
from clearstory.text.read_notes import ReadNotes

CONLLU_SUFFIX = ".conllu"

COLUMNS = 10

UPOS = 3
"""Index of the column with the universal part of speech."""

NUMBER = re.compile(r"(\d+)([-.]\d+)?")


@dataclass(frozen=True)
class TaggedSentence:
    """Words of a sentence and their tags; `location` is its file and line for messages, `new` whether it begins a
    document.

    `heads` are the indices, from 0, of each word's head and `dependency_relations` the relations to it; a head is None
    for the root and if the file does not give it. `no_space_after`: whether the next word follows without a space.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    location: str = ""
    new: bool = False
    heads: tuple[int | None, ...] = ()
    dependency_relations: tuple[str, ...] = ()
    no_space_after: tuple[bool, ...] = ()

    @property
    def text(self) -> str:
        """Words joined by spaces."""
        return " ".join(self.words)

    @property
    def text_and_spans(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Text as originally written, and the character span [start, stop) of each word.

        >>> sentence = TaggedSentence(("Do", "n't", "go"), ("AUX", "PART", "VERB"), no_space_after=(True, False, False))
        >>> sentence.text_and_spans
        ("Don't go", ((0, 2), (2, 5), (6, 8)))
        """
        text, spans = "", []
        for index, word in enumerate(self.words):
            spans.append((len(text), len(text) + len(word)))
            separated = index + 1 < len(self.words) and not (self.no_space_after and self.no_space_after[index])
            text += word + " " * separated
        return text, tuple(spans)


def read_conllu(
    path: Path, errors: Errors = "strict", encoding: str = UTF8, notes: ReadNotes | None = None, tag_column: int = UPOS
) -> Iterator[TaggedSentence]:
    """Sentences of a file, compressed or not, in order. `tag_column` is the index of the column with the tags.

    White space inside a word becomes _, so that words can be joined by spaces. Raises BadInput, with the line number,
    for an invalid line.
    """
    rows: list[list[str]] = []
    no_space_after: list[bool] = []
    new, start, until, apart = False, 1, 0, True
    for number, line in enumerate(read_lines(path, errors, encoding, notes), start=1):
        line = line.rstrip("\r")
        if line.startswith("#"):
            new = new or line[1:].split()[:1] == ["newdoc"]
        elif not line.strip():
            if rows:
                yield parse_sentence(rows, no_space_after, f"{path}, line {start:,}", new, tag_column)
                rows, no_space_after, new = [], [], False
            start, until = number + 1, 0
        else:
            columns = line.split("\t")
            if len(columns) != COLUMNS:
                raise BadInput(
                    f"{path}, line {number:,} has {len(columns)} tab-separated columns, and CoNLL-U has {COLUMNS}; "
                    "give a .conllu file of Universal Dependencies"
                )
            match = NUMBER.fullmatch(columns[0])
            if match is None or not columns[1].strip():
                raise BadInput(
                    f"{path}, line {number:,} begins with {columns[0][:20]!r} and {columns[1][:20]!r}; in CoNLL-U "
                    "these are the word's number and the word"
                )
            close = "SpaceAfter=No" in columns[9].split("|")
            if match[2] is None:
                rows.append(columns)
                # Words of a multiword range are written together; the range says whether a space follows.
                word_number = int(match[1])
                no_space_after.append(word_number < until or (not apart if word_number == until else close))
            elif match[2].startswith("-"):
                until, apart = int(match[2][1:]), not close
    if rows:
        yield parse_sentence(rows, no_space_after, f"{path}, line {start:,}", new, tag_column)


def parse_sentence(
    rows: list[list[str]], no_space_after: list[bool], location: str, new: bool, tag_column: int = UPOS
) -> TaggedSentence:
    """The sentence of these rows. Raises BadInput for a head outside the sentence."""
    heads = tuple(int(row[6]) - 1 if row[6].isdecimal() and row[6] != "0" else None for row in rows)
    if wrong := next(
        (row for row, head in zip(rows, heads, strict=True) if head is not None and head >= len(rows)), None
    ):
        raise BadInput(
            f"{location}: the word '{wrong[1][:20]}' has the head {wrong[6][:9]} in a sentence of {len(rows)} words; "
            "give a .conllu file of Universal Dependencies"
        )
    return TaggedSentence(
        words=tuple("_".join(row[1].split()) for row in rows),
        tags=tuple(row[tag_column] for row in rows),
        location=location,
        new=new,
        heads=heads,
        dependency_relations=tuple(row[7] for row in rows),
        no_space_after=tuple(no_space_after),
    )


def by_document(sentences: Iterator[TaggedSentence]) -> Iterator[list[TaggedSentence]]:
    """Sentences of each document; without `# newdoc` marks, each sentence is a document."""
    document: list[TaggedSentence] = []
    has_marks = False
    for sentence in sentences:
        has_marks = has_marks or sentence.new
        if document and (sentence.new or not has_marks):
            yield document
            document = []
        document.append(sentence)
    if document:
        yield document
