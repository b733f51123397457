"""Tags of chunks, such as entities: BIO, BIOES, BILOU and IO become BIO, and broken sequences are repaired.

B- begins a chunk, I- continues it, O is outside of all; E- (L-) ends a chunk and S- (U-) is one of a single word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from clearstory.errors import BadInput

OUTSIDE = "O"

CHUNK_TAG = re.compile(r"([BIESLU])[-_](\S.*)|O")

SINGLE, END = ("S", "U"), ("E", "L")


@dataclass
class TagRepairs:
    """Changes in the conversion of tags to BIO.

    Args:
        scheme: the scheme of the data: BIO, IO (no B-), IOB1, BIOES or BILOU.
        begun: I- (or E-) tags that start a chunk and were changed to B-, with their counts.
        first: location and word of the first of these.
    """

    scheme: str = "BIO"
    begun: Counter[str] = field(default_factory=Counter)
    first: str = ""

    @property
    def note(self) -> str:
        """The changes in one sentence; "" if there are none."""
        if self.scheme in ("IO", "IOB1"):
            return f"tags are {self.scheme}, made BIO"
        total = self.begun.total()
        found = [] if self.scheme == "BIO" else [f"tags are {self.scheme}, made BIO"]
        if total:
            kinds = ", ".join(f"{tag} {count:,}" for tag, count in self.begun.most_common(4))
            found.append(
                f"{total:,} tag{'s' * (total != 1)} that continue{'s' * (total == 1)} no chunk became B- ({kinds}; the "
                f"first in {self.first})"
            )
        return "; ".join(found)


def is_chunk_scheme(tags: Iterable[str]) -> bool:
    """Whether tags mark chunks: all are O or have a prefix such as B-, and some have one.

    >>> is_chunk_scheme({"O", "B-PER", "I-PER"}), is_chunk_scheme({"NOUN", "VERB"}), is_chunk_scheme({"O"})
    (True, False, False)
    """
    tags = set(tags)
    return tags != {OUTSIDE} and bool(tags) and all(CHUNK_TAG.fullmatch(tag) for tag in tags)


def marks_chunks(tags: Iterable[str]) -> bool:
    """Whether most of the tags of words mark chunks, so that others are mistakes.

    >>> marks_chunks(["B-PER", "O", "O", "X"]), marks_chunks(["NOUN", "VERB", "O"])
    (True, False)
    """
    counts = Counter(tags)
    chunks = [tag for tag in counts if CHUNK_TAG.fullmatch(tag)]
    return is_chunk_scheme(chunks) and sum(counts[tag] for tag in chunks) * 2 >= counts.total()


def find_scheme(sentences: Iterable[Sequence[str]]) -> str:
    """The scheme of the tags of sentences. In IOB1 a chunk begins with I-, and with B- only after one of its type.

    >>> find_scheme([["I-PER", "B-PER", "O"]]), find_scheme([["B-PER", "I-PER", "O", "I-LOC"]])
    ('IOB1', 'BIO')
    """
    prefixes: set[str] = set()
    begun = inside = 0  # chunks that begin with B- after another tag, and those that begin with I-
    for tags in sentences:
        before = ""
        for tag in tags:
            if tag != OUTSIDE:
                prefixes.add(tag[0])
                begun += tag[0] == "B" and before != tag[2:]
                inside += tag[0] == "I" and before != tag[2:]
            before = "" if tag == OUTSIDE else tag[2:]
    if prefixes & {"U", "L"}:
        return "BILOU"
    if prefixes & {"S", "E"}:
        return "BIOES"
    if "B" not in prefixes:
        return "IO"
    return "IOB1" if inside and not begun else "BIO"


def to_bio(tags: Sequence[str], repairs: TagRepairs, location: str = "", words: Sequence[str] = ()) -> tuple[str, ...]:
    """The tags of a sentence as BIO. An I- that does not continue a chunk starts one, as in conlleval and seqeval.

    >>> repairs = TagRepairs()
    >>> to_bio(["O", "I-PER", "I-PER", "I-LOC", "S-LOC", "E-LOC"], repairs)
    ('O', 'B-PER', 'I-PER', 'B-LOC', 'B-LOC', 'B-LOC')
    >>> repairs.begun.total()
    3
    """
    found: list[str] = []
    open_type: str | None = None
    for index, tag in enumerate(tags):
        match = CHUNK_TAG.fullmatch(tag)
        if match is None:
            word = words[index] if words else tag
            raise BadInput(
                f"{location}: the tag {tag[:30]!r} of {word[:30]!r} is not O, B-TYPE or I-TYPE as the others are; "
                "correct it"
            )
        if tag == OUTSIDE:
            found.append(OUTSIDE)
            open_type = None
            continue
        prefix, type_ = match[1], match[2]
        begins = prefix == "B" or prefix in SINGLE
        if not begins and open_type != type_:
            begins = True
            repairs.begun[tag] += 1
            if not repairs.first:
                repairs.first = f"{location}, {words[index][:30]!r}" if words else location
        found.append(f"{'B' if begins else 'I'}-{type_}")
        open_type = None if prefix in SINGLE or prefix in END else type_
    return tuple(found)


def bio_names(tags: Iterable[str]) -> tuple[str, ...]:
    """O, and B- and I- of every type that occurs, in the order of their ids.

    >>> bio_names(["O", "B-PER", "I-LOC"])
    ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER')
    """
    types = sorted({tag[2:] for tag in tags if tag != OUTSIDE})
    return (OUTSIDE, *(f"{prefix}-{type_}" for type_ in types for prefix in "BI"))
