"""Document: one piece of text, the unit that corpora are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One document: a file, a line of jsonl, a row of a table, a chapter.

    A long file comes in parts with the same name; `part` counts from 0. A document always begins with part 0.
    """

    name: str
    text: str
    part: int = 0
