"""CoNLL-U: sentences whose words are tagged, as Universal Dependencies has them (universaldependencies.org/format).

Ten columns a word, of which FORM, UPOS, HEAD, DEPREL and MISC's SpaceAfter are read; a blank line ends a sentence, and
`# newdoc` begins a document. Ranges (1-2, the spelling of two words in one) and empty nodes (1.1) are no words of the
syntax and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clearstory.errors import BadInput
from clearstory.text.files import Errors, read_lines

CONLLU_SUFFIX = ".conllu"

COLUMNS = 10

NUMBER = re.compile(r"(\d+)([-.]\d+)?")


@dataclass(frozen=True)
class TaggedSentence:
    """Words and the tag of each; `place` says where it begins, `new` whether a document does.

    `heads` are the places, from 0, of the words that each hangs on by its `relations`, None for the root and where the
    file does not say. `glued`: whether the next word follows without a space.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    place: str = ""
    new: bool = False
    heads: tuple[int | None, ...] = ()
    dependency_relations: tuple[str, ...] = ()
    no_space_after: tuple[bool, ...] = ()

    @property
    def text(self) -> str:
        """The words with a space between."""
        return " ".join(self.words)

    @property
    def text_and_spans(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        """The text as it was written, and the characters start:stop of it that each word is.

        >>> Sentence(("Do", "n't", "go"), ("AUX", "PART", "VERB"), glued=(True, False, False)).written
        ("Don't go", ((0, 2), (2, 5), (6, 8)))
        """
        text, places = "", []
        for place, word in enumerate(self.words):
            places.append((len(text), len(text) + len(word)))
            apart = place + 1 < len(self.words) and not (self.no_space_after and self.no_space_after[place])
            text += word + " " * apart
        return text, tuple(places)


def read_conllu(path: Path, errors: Errors = "strict") -> Iterator[TaggedSentence]:
    """The sentences of a file, packed or not, in order.

    White space within a word becomes _, so that words are what stands between spaces. Raises BadInput with the line's
    number for a line that is no CoNLL-U.
    """
    rows: list[list[str]] = []
    no_space_after: list[bool] = []
    new, start, until, apart = False, 1, 0, True
    for number, line in enumerate(read_lines(path, errors), start=1):
        line = line.rstrip("\r")
        if line.startswith("#"):
            new = new or line[1:].split()[:1] == ["newdoc"]
        elif not line.strip():
            if rows:
                yield parse_sentence(rows, no_space_after, f"{path}, line {start:,}", new)
                rows, no_space_after, new = [], [], False
            start, until = number + 1, 0
        else:
            columns = line.split("\t")
            if len(columns) != COLUMNS:
                raise BadInput(
                    f"{path}, line {number:,} has {len(columns)} columns and CoNLL-U {COLUMNS}, with tabs between; "
                    "give a .conllu file of Universal Dependencies"
                )
            match = NUMBER.fullmatch(columns[0])
            if match is None or not columns[1].strip():
                raise BadInput(
                    f"{path}, line {number:,} begins with {columns[0][:20]!r} and {columns[1][:20]!r}, where CoNLL-U "
                    "has a word's number and the word"
                )
            close = "SpaceAfter=No" in columns[9].split("|")
            if match[2] is None:
                rows.append(columns)
                # Words of one spelling are written together, and what follows it as the range says.
                place = int(match[1])
                no_space_after.append(place < until or (not apart if place == until else close))
            elif match[2].startswith("-"):
                until, apart = int(match[2][1:]), not close
    if rows:
        yield parse_sentence(rows, no_space_after, f"{path}, line {start:,}", new)


def parse_sentence(rows: list[list[str]], no_space_after: list[bool], place: str, new: bool) -> TaggedSentence:
    """The sentence of these rows. Raises BadInput for a word that hangs on none of it."""
    heads = tuple(int(row[6]) - 1 if row[6].isdecimal() and row[6] != "0" else None for row in rows)
    if wrong := next(
        (row for row, head in zip(rows, heads, strict=True) if head is not None and head >= len(rows)), None
    ):
        raise BadInput(
            f"{place}: the word '{wrong[1][:20]}' hangs on word {wrong[6][:9]} of a sentence of {len(rows)}; give a "
            ".conllu file of Universal Dependencies"
        )
    return TaggedSentence(
        words=tuple("_".join(row[1].split()) for row in rows),
        tags=tuple(row[3] for row in rows),
        place=place,
        new=new,
        heads=heads,
        dependency_relations=tuple(row[7] for row in rows),
        no_space_after=tuple(no_space_after),
    )


def by_document(sentences: Iterator[TaggedSentence]) -> Iterator[list[TaggedSentence]]:
    """The sentences of each document; where a file does not say where documents begin, each sentence is one."""
    document: list[TaggedSentence] = []
    said = False
    for sentence in sentences:
        said = said or sentence.new
        if document and (sentence.new or not said):
            yield document
            document = []
        document.append(sentence)
    if document:
        yield document
