"""Columns: which column has the text, the pair, the label and the split, by its name or by its values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from clearstory.errors import BadInput, nearest
from clearstory.tasks.data.labels import is_index
from clearstory.text.label_files import describe_labels, is_number

if TYPE_CHECKING:
    from clearstory.tasks.data.records import RecordTable

TEXTS = (
    "text", "sentence", "review", "content", "comment", "tweet", "verse", "utterance", "document", "body", "message",
    "phrase", "reviewtext", "commenttext", "headline", "description", "query", "question", "title", "input", "sms",
)  # fmt: skip
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text1", "text2"),
    ("texta", "textb"), ("sentencea", "sentenceb"), ("sent1", "sent2"), ("s1", "s2"), ("question", "sentence"),
    ("question", "passage"), ("query", "passage"), ("query", "document"), ("context", "response"),
    ("anchor", "positive"), ("word1", "word2"), ("#1string", "#2string"),
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "category", "categories", "sentiment", "target", "emotion", "emotions", "intent",
    "topic", "polarity", "score", "rating", "stars", "star", "classindex", "relatednessscore", "similarity",
    "goldlabel", "isduplicate", "quality", "tag", "y", "airlinesentiment", "value",
)  # fmt: skip
SPLITS = ("split", "partition", "subset", "datasplit")
TOKENS = ("tokens", "words", "token", "word")
TAGS = ("nertags", "ner", "tags", "postags", "upos", "pos", "labels", "label", "tag", "chunktags", "xpos")
ANCHORS = (
    ("anchor", "positive"), ("query", "positive"), ("query", "pos"), ("question", "answer"), ("query", "answer"),
    ("query", "passage"), ("query", "document"), ("title", "body"), ("source", "target"), *PAIRS,
)  # fmt: skip
NEGATIVES = ("negative", "neg", "negatives", "hardnegative")
SCORES = ("score", "similarity", "similarityscore", "relatednessscore", "label")

KNOWN = {
    *TEXTS, *LABELS, *SPLITS, *TOKENS, *TAGS, *NEGATIVES, *SCORES,
    *(name for pair in (*PAIRS, *ANCHORS) for name in pair),
}  # fmt: skip
ALSO = {"id", "idx", "index", "guid", "uid", "name", "author", "date", "time", "user", "source", "url", "lang"}

SAMPLE_VALUES = 2000


@dataclass(frozen=True)
class TextColumns:
    """Names of the columns of labeled texts; each of several labels can have its own column."""

    text: str
    pair: str | None
    labels: tuple[str, ...]
    split: str | None = None


def plain(name: str) -> str:
    """A name in small letters, without what separates its words.

    >>> plain("Sentence_1"), plain("isDuplicate")
    ('sentence1', 'isduplicate')
    """
    return re.sub(r"[\s_\-.]+", "", name.lower())


def is_header(names: Sequence[str], rows: Sequence[Sequence[str]] = ()) -> bool:
    """Whether the first row of a table has the names of its columns.

    It has if at least one is a usual name, no value of the rows below, and none is a number or a sentence; or if it
    is text above a column of numbers, or above labels that do not include it.

    >>> is_header(["id", "verse"]), is_header(["0", "to water,"]), is_header(["tweet id", "mood"], [["7", "sad"]])
    (True, False, True)
    """
    names = [name.strip() for name in names]
    if any(not name or is_number(name) or len(name) > 60 for name in names):
        return False
    below = {field.strip() for row in rows for field in row}
    if any(plain(name) in KNOWN and name not in below for name in names):
        return True
    if {plain(name) for name in names} <= ALSO:
        return True
    columns = list(zip(*(row for row in rows if len(row) == len(names)), strict=True))
    return 1 < len(names) == len(set(names)) and any(
        all(map(is_number, values)) or (_are_repeated(values) and name not in values)
        for name, values in zip(names, columns, strict=False)
    )


def _are_repeated(values: Sequence[str]) -> bool:
    """Whether each of few values occurs again, as labels do."""
    distinct = len(set(values))
    return 1 < distinct <= 40 and distinct * 2 <= len(values) and all(values.count(each) > 1 for each in set(values))


def choose_column(table: RecordTable, name: str, flag: str) -> str:
    """The column given by a setting, by name or by number from 1. Raises BadInput if there is none."""
    if name in table.columns:
        return name
    if is_index(name) and 1 <= int(name) <= len(table.columns):
        return table.columns[int(name) - 1]
    same = [column for column in table.columns if plain(column) == plain(name)]
    if len(same) == 1:
        return same[0]
    if not table.has_header:
        raise BadInput(
            f"{table.name} has no column {name!r}: its first line is not a header; give one of its "
            f"{len(table.columns)} columns by number, such as {flag} {len(table.columns)}"
        )
    known = table.listed_columns
    close = nearest(name, table.columns)
    suggestion = f"{close} " if close.startswith("did you mean") else ""
    raise BadInput(f"{table.name} has no column {name!r}, only {known}; {suggestion}choose one with {flag}")


def find_named(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of the names that is a column's."""
    by_name = {plain(column): column for column in columns}
    return next((by_name[name] for name in names if name in by_name), None)


def find_pair(columns: Iterable[str], pairs: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The first pair of names that are both columns'."""
    by_name = {plain(column): column for column in columns}
    return next(((by_name[one], by_name[two]) for one, two in pairs if one in by_name and two in by_name), None)


def sample_values(table: RecordTable, column: str) -> list[Any]:
    """The values of a column in the first records."""
    return [record.values.get(column) for record in table.records[:SAMPLE_VALUES]]


def is_text(values: Sequence[Any]) -> bool:
    """Whether values are texts, not numbers, identifiers or labels."""
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values) or not texts or all(map(is_number, texts)):
        return False
    # Chinese or Thai has no spaces; identifiers are ASCII.
    sentences = sum(" " in text.strip() or not text.isascii() for text in texts)
    return sentences * 3 >= len(texts)


def is_label(values: Sequence[Any]) -> bool:
    """Whether values are labels or scores: numbers that are not just counted, few short texts, or lists."""
    if all(isinstance(value, list) for value in values):
        return bool(values)
    if any(isinstance(value, list | dict) for value in values):
        return False
    texts = [str(value).strip() for value in values]
    if len(texts) > 1 and all(map(is_number, texts)):
        return len(texts) < 4 or not is_counted(texts)
    few = len(set(texts)) * 3 <= len(texts) or (len(texts) <= 20 and len(set(texts)) < len(texts))
    return describe_labels(texts) is not None or (few and max(map(len, texts), default=99) <= 40)


def is_counted(texts: Sequence[str]) -> bool:
    """Whether numbers are the numbers of rows: whole, and nearly all of them one above the last.

    >>> is_counted(["0", "1", "2", "3"]), is_counted(["0", "1", "1", "0"])
    (True, False)
    """
    if not all(text.isascii() and text.isdecimal() and len(text) < 20 for text in texts):
        return False
    numbers = [int(text) for text in texts]
    follow = sum(after == before + 1 for before, after in pairwise(numbers))
    return follow >= 0.9 * (len(numbers) - 1) or len(set(numbers)) == len(numbers) > 20


def has_flags(values: Sequence[Any]) -> bool:
    """Whether values are 0 and 1, as in a column for each of several labels."""
    return {str(value).strip().lower() for value in values} <= {"0", "1", "true", "false"}
