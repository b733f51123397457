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
        """The part of the data set that it belongs to, "" where nothing says so."""


@dataclass(frozen=True)
class LabeledText:
    """A text, or a pair of texts, with its labels or its value.

    Args:
        text: the text, or the first of a pair.
        pair: the second text of a pair.
        labels: names of its labels: one, or any number where an example can have several.
        value: the number to predict, where the labels are numbers (regression).
        location: file and line, for messages: "train.tsv, line 12".
        part: the part of the data set that the example belongs to ("train", "validation", "test"), where its file or a
            column says so.
    """

    text: str
    pair: str | None = None
    labels: tuple[str, ...] = ()
    value: float | None = None
    location: str = ""
    part: str = ""


@dataclass(frozen=True)
class LabeledWords:
    """The words of a sentence with a tag for each; `scheme` of the data says whether tags are BIO.

    `no_space_after` says after which words no space follows in the text; empty if the file does not say.
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
    """Two texts that belong together, with a third that does not or with a number that says how similar the two are."""

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
    """Examples of one kind, the names of all labels in the order of their ids, and how the files were read.

    Args:
        examples: the examples, in the order of the files.
        label_names: names of the labels or tags, in the order of their ids; () for numbers and for pairs.
        kind: what each example has.
        notes: sentences for the user: which columns were read, what was repaired or left out.
        scheme: "bio" where tags are the chunks of entities in BIO; "" where each tag is for itself, as parts of speech.
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
    """Training, validation and test data; `test` is None if none is given, `notes` say how they were split."""

    train: LabeledData[Example]
    validation: LabeledData[Example]
    test: LabeledData[Example] | None = None
    notes: Sequence[str] = ()
