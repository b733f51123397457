"""Document: one piece of text, the unit that corpora are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One document: a file, a line of it, a line of jsonl, a row of a table, a chapter.

    A long file comes in parts with the same name; `part` counts from 0. A document always begins with part 0.
    `end_bytes` is the number of bytes that were read after the text and that the token at the end of a document stands
    for: the line feed of a line that is a document, else 0. `ends` is False for a document that was cut: its last part
    is not followed by an end token.
    """

    name: str
    text: str
    part: int = 0
    end_bytes: int = 0
    ends: bool = True

    @property
    def n_bytes(self) -> int:
        """Number of bytes that were read, in UTF-8: those of the text and of its end."""
        return len(self.text.encode()) + self.end_bytes


def documents_by_line(documents: Iterable[Document]) -> Iterator[Document]:
    """Every line as a document, without its line end. A blank line is an empty document, as it is a sentence to KenLM;
    a final line feed begins no further line.

    >>> [(line.text, line.n_bytes) for line in documents_by_line([Document("names", "Ann\\r\\n\\nBo")])]
    [('Ann', 5), ('', 1), ('Bo', 2)]
    """
    number, waiting, name = 0, "", ""
    for document in documents:
        if document.part == 0:
            if waiting:
                yield line_document(name, number + 1, waiting, 0)
            number, waiting, name = 0, "", document.name
        *whole, waiting = (waiting + document.text).split("\n")
        for line in whole:
            number += 1
            yield line_document(name, number, line, 1)
    if waiting:
        yield line_document(name, number + 1, waiting, 0)


def line_document(name: str, number: int, line: str, line_feeds: int) -> Document:
    """Line `number` of a document; a carriage return at its end is a byte of the line end."""
    text = line.removesuffix("\r")
    return Document(f"{name}:{number}", text, end_bytes=line_feeds + len(line) - len(text))
