"""CoNLL-U: sentences whose words are tagged, as Universal Dependencies has them (universaldependencies.org/format).

Ten columns a word, of which FORM and UPOS are read; a blank line ends a sentence, and `# newdoc` begins a document.
Ranges (1-2, the spelling of two words in one) and empty nodes (1.1) are no words of the syntax and left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clearstory.errors import BadInput
from clearstory.text.files import Errors, lines

SUFFIX = ".conllu"

COLUMNS = 10

NUMBER = re.compile(r"(\d+)([-.]\d+)?")


@dataclass(frozen=True)
class Sentence:
    """Words and the tag of each; `place` says where it begins, `new` whether a document does."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    place: str = ""
    new: bool = False

    @property
    def text(self) -> str:
        """The words with a space between."""
        return " ".join(self.words)


def read_conllu(path: Path, errors: Errors = "strict") -> Iterator[Sentence]:
    """The sentences of a file, packed or not, in order.

    White space within a word becomes _, so that words are what stands between spaces. Raises BadInput with the line's
    number for a line that is no CoNLL-U.
    """
    words: list[str] = []
    tags: list[str] = []
    new, start = False, 1
    for number, line in enumerate(lines(path, errors), start=1):
        line = line.rstrip("\r")
        if line.startswith("#"):
            new = new or line[1:].split()[:1] == ["newdoc"]
        elif not line.strip():
            if words:
                yield Sentence(tuple(words), tuple(tags), f"{path}, line {start:,}", new)
                words, tags, new = [], [], False
            start = number + 1
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
            if match[2] is None:
                words.append("_".join(columns[1].split()))
                tags.append(columns[3])
    if words:
        yield Sentence(tuple(words), tuple(tags), f"{path}, line {start:,}", new)


def by_document(sentences: Iterator[Sentence]) -> Iterator[list[Sentence]]:
    """The sentences of each document; where a file does not say where documents begin, each sentence is one."""
    document: list[Sentence] = []
    said = False
    for sentence in sentences:
        said = said or sentence.new
        if document and (sentence.new or not said):
            yield document
            document = []
        document.append(sentence)
    if document:
        yield document
