"""Bracketed trees of the Stanford Sentiment Treebank (Socher et al. 2013): a label from 0 to 4 for every phrase.

(3 (2 It) (4 (2 's) (4 lovely)))   0 very negative, 1 negative, 2 neutral, 3 positive, 4 very positive
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from clearstory.errors import BadInput
from clearstory.tasks.data.data_files import RECORD_FILES, TREE_FILES, WORD_FILES
from clearstory.tasks.data.examples import LabeledText
from clearstory.tasks.data.settings import LabelSettings
from clearstory.text.files import content_suffix, read_lines
from clearstory.text.label_files import TREE
from clearstory.text.read_notes import ReadNotes

PIECE = re.compile(r"\(|\)|[^\s()]+")

BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LCB-": "{", "-RCB-": "}", "-LSB-": "[", "-RSB-": "]"}

FINE = tuple("01234")
BINARY = {"0": "0", "1": "0", "3": "1", "4": "1"}
"""Mapping of the five labels to two, 0 negative and 1 positive; neutral phrases are dropped."""


def has_trees(path: Path) -> bool:
    """Whether a file has bracketed trees: by its name, or, for a .txt file, by its first line."""
    suffix = content_suffix(path)
    if suffix in RECORD_FILES or suffix in WORD_FILES:
        return False
    return suffix in TREE_FILES or TREE.match(next(read_lines(path, "replace"), "")) is not None


def read_trees(path: Path, settings: LabelSettings, notes: ReadNotes, part: str = "") -> Iterator[LabeledText]:
    """The phrases of a file's trees, or its sentences, with their labels. A phrase that occurs several times with the
    same label is one example.

    Raises BadInput, with the line, for a line that is not a tree.
    """
    phrases = settings.trees in ("phrases", "binary-phrases")
    binary = settings.trees in ("binary-phrases", "binary-sentences")
    known: set[tuple[str, str]] = set()
    for number, line in enumerate(read_lines(path, settings.errors, settings.encoding, notes), start=1):
        if not line.strip():
            continue
        location = f"{path}, line {number:,}"
        nodes = parse_tree(line, location)
        for label, text in nodes if phrases else nodes[-1:]:
            named = BINARY.get(label) if binary else label
            if named is None or (phrases and (text, named) in known):
                continue
            known.add((text, named))
            yield LabeledText(text, labels=(named,), location=location, part=part)


def parse_tree(line: str, location: str = "the tree") -> list[tuple[str, str]]:
    """Label and text of every node of a tree, children before their parents; the last is the whole sentence.

    >>> parse_tree("(3 (2 It) (4 (2 's) (4 lovely)))")
    [('2', 'It'), ('2', "'s"), ('4', 'lovely'), ('4', "'s lovely"), ('3', "It 's lovely")]
    """
    found: list[tuple[str, str]] = []
    open_nodes: list[tuple[str, list[str]]] = []
    pieces = PIECE.findall(line)
    after_bracket = False
    for index, piece in enumerate(pieces):
        if piece == "(":
            after_bracket = True
        elif after_bracket:
            if piece not in FINE:
                raise BadInput(f"{location}: {piece[:20]!r} is not a label of a tree; labels are 0, 1, 2, 3 and 4")
            open_nodes.append((piece, []))
            after_bracket = False
        elif piece == ")":
            if not open_nodes or not open_nodes[-1][1]:
                raise BadInput(f"{location} has an unmatched closing bracket; give a bracketed tree on each line")
            label, words = open_nodes.pop()
            found.append((label, " ".join(words)))
            if open_nodes:
                open_nodes[-1][1].append(found[-1][1])
            elif index < len(pieces) - 1:
                raise BadInput(f"{location} has text after its tree; give one bracketed tree on each line")
        elif open_nodes:
            open_nodes[-1][1].append(BRACKETS.get(piece, piece))
        else:
            raise BadInput(f"{location} is not a bracketed tree such as (3 (2 It) (4 works))")
    if open_nodes or after_bracket or not found:
        raise BadInput(f"{location} has a tree that is not closed; give a bracketed tree on each line")
    return found
