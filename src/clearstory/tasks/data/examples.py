"""Labeled examples: a text with its labels, words with their tags, an anchor with its positive; and sets of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar, runtime_checkable

Kind = Literal[
    "single", "multi", "regression", "tags", "pairs", "triplets", "scores", "targets", "conversations", "choices"
]
"""What examples have: one label, several, a number; a tag for each word; a positive, a negative too, or a score;
targets to generate; messages of users and an assistant.
"""


@runtime_checkable
class DataExample(Protocol):
    """What all examples have."""

    @property
    def text(self) -> str:
        """Its text, by which equal examples are found."""

    @property
    def location(self) -> str:
        """File and line, for messages."""

    @property
    def part(self) -> str:
        """The part of the data set to which it belongs; "" if not specified."""


@dataclass(frozen=True)
class LabeledText:
    """A text, or a pair of texts, with its labels or its value.

    Args:
        text: the text, or the first of a pair.
        pair: the second text of a pair.
        labels: names of its labels: one, or any number if an example can have several.
        value: the number to predict, if the labels are numbers (regression).
        location: file and line, for messages: "train.tsv, line 12".
        part: the part of the data set ("train", "validation", "test"), if given by the file name or a column.
    """

    text: str
    pair: str | None = None
    labels: tuple[str, ...] = ()
    value: float | None = None
    location: str = ""
    part: str = ""


@dataclass(frozen=True)
class LabeledWords:
    """The words of a sentence with a tag for each; `scheme` of the data is "bio" for BIO tags.

    `no_space_after` lists the words that are not followed by a space in the text; empty if the file does not specify
    it.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    location: str = ""
    part: str = ""
    no_space_after: tuple[bool, ...] = ()

    @property
    def text(self) -> str:
        """Words joined by spaces."""
        return " ".join(self.words)


@dataclass(frozen=True)
class SimilarityExample:
    """Two similar texts with a dissimilar third one, or two texts with a similarity score."""

    anchor: str
    positive: str
    negative: str | None = None
    score: float | None = None
    location: str = ""
    part: str = ""

    @property
    def text(self) -> str:
        """The anchor."""
        return self.anchor


@dataclass(frozen=True)
class ParallelExample:
    """A source with its targets: the translation or the summary to generate, or several of them.

    Args:
        source: the text that is read.
        targets: the references, at least one.
        lead: the first sentence of the source, where the file has it in sentences.
    """

    source: str
    targets: tuple[str, ...]
    location: str = ""
    part: str = ""
    lead: str = ""

    @property
    def text(self) -> str:
        """The source."""
        return self.source


Example = TypeVar("Example", bound=DataExample)


@dataclass(frozen=True)
class LabeledData(Generic[Example]):
    """Examples of one kind, the names of all labels in the order of their ids, and notes on the files.

    Args:
        examples: the examples, in the order of the files.
        label_names: names of the labels or tags, in the order of their ids; () for numbers and for pairs.
        kind: kind of the examples.
        notes: sentences for the user: columns, repaired and skipped rows.
        scheme: "bio" for entity tags in BIO; "" for independent tags, such as parts of speech.
        name: the name of the data, for messages.
    """

    examples: tuple[Example, ...]
    label_names: tuple[str, ...] = ()
    kind: Kind = "single"
    notes: tuple[str, ...] = ()
    scheme: Literal["", "bio"] = ""
    name: str = "the data"

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(frozen=True)
class DataSplits(Generic[Example]):
    """Training, validation and test data; `test` is None if not given, `notes` describe the split."""

    train: LabeledData[Example]
    validation: LabeledData[Example]
    test: LabeledData[Example] | None = None
    notes: Sequence[str] = ()
