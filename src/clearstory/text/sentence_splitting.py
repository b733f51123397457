"""Sentence splitting, for next-sentence prediction."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from clearstory.text.document import Document

# A line end; or a final punctuation mark with closing quotes and brackets, before white space;
# or a Chinese or Japanese full stop, which needs no white space.
SENTENCE_END = re.compile(r"\n\s*|[.!?…][\"'”’»)\]]*\s+|[。！？][」』”’）]*\s*")


def split_sentences(text: str) -> list[str]:
    """Sentences of a text, each with the white space after it: joined, they are the text.

    A sentence ends at a line end, or at a punctuation mark unless a lower-case letter follows. An abbreviation before a
    capital letter counts as an end (Mr. Smith): next-sentence prediction needs pieces of running text, not exact
    sentences.

    >>> split_sentences("He came. She left at 5 p.m. sharp!\\nThe end")
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
    """Every sentence as a document, with an empty document where a document of the source ends.

    The last sentence of one part of a long document is completed by the next part.
    """
    waiting, name, begun, end_bytes = "", "", False, 0
    for document in documents:
        if document.part == 0 and begun:
            yield from ([Document(name, waiting)] if waiting else [])
            yield Document(name, "", end_bytes=end_bytes)
            waiting = ""
        name, begun, end_bytes = document.name, True, document.end_bytes
        *whole, waiting = split_sentences(waiting + document.text) or [""]
        yield from (Document(name, sentence) for sentence in whole)
    if begun:
        yield from ([Document(name, waiting)] if waiting else [])
        yield Document(name, "", end_bytes=end_bytes)
