"""Sentences: where one ends and the next begins, for objectives that ask whether one follows another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from clearstory.text.documents import Document

# A line's end; a mark that ends a sentence, with what closes quotes and brackets behind it, before white space;
# the marks of Chinese and Japanese, which need none.
SENTENCE_END = re.compile(r"\n\s*|[.!?…][\"'”’»)\]]*\s+|[。！？][」』”’）]*\s*")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each with the white space behind it: joined, they are the text again.

    A sentence ends with its line, or with a mark that ends one unless a small letter follows. Abbreviations before a
    capital are taken for ends (Mr. Smith): what is learnt needs pieces of running text, not perfect ones.

    >>> sentences("He came. She left at 5 p.m. sharp!\\nThe end")
    ['He came. ', 'She left at 5 p.m. sharp!\\n', 'The end']
    """
    found, begin = [], 0
    for match in SENTENCE_END.finditer(text):
        end = match.end()
        ends = "\n" in match[0] or not text[end : end + 1].islower()
        if ends and text[begin:end].strip():
            found.append(text[begin:end])
            begin = end
    return [*found, text[begin:]] if begin < len(text) else found


def documents_by_sentence(documents: Iterable[Document]) -> Iterator[Document]:
    """Every sentence as a document of its own, with an empty one wherever a document of the source ends.

    So that a file of sentences can be written and read like any other; the last part of a long document that is read in
    parts waits for what follows it.
    """
    waiting, name, begun = "", "", False
    for document in documents:
        if document.part == 0 and begun:
            yield from ([Document(name, waiting)] if waiting else [])
            yield Document(name, "")
            waiting = ""
        name, begun = document.name, True
        *whole, waiting = split_sentences(waiting + document.text) or [""]
        yield from (Document(name, sentence) for sentence in whole)
    if begun:
        yield from ([Document(name, waiting)] if waiting else [])
        yield Document(name, "")
