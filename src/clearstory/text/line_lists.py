"""Line lists: whether a text is a list, such as names, one on each line, rather than running text.

A list that is split by position, its last tenth held out, is not split at random: an alphabetical list is validated on
the letters at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from clearstory.text.document import Document

LEAST_LINES = 100

LONGEST_LINE = 300

SAMPLE = 1 << 20
"""Number of characters that are examined."""

NO_SPACES = "\u0e00"
"""From here on are the scripts without spaces between words, such as Thai, Chinese and Japanese."""


class LineListDetector:
    """Examines documents as they are read; `is_list` is then true for a single document that is a list of short lines.

    >>> detector = LineListDetector()
    >>> names = "".join(f"Bob{n}\\n" for n in range(1000))
    >>> documents = list(detector.watch([Document("names", names)]))
    >>> detector.is_list, detector.sentence("names.txt").partition(";")[0]
    (True, 'names.txt: 1,000 lines of at most 6 characters')
    """

    def __init__(self) -> None:
        self.is_list = False
        self.n_lines = 1
        self.longest = 0
        self.ends_in_line_feed = False

    def watch(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The same documents. Only the first part of the first one is examined in detail."""
        for number, document in enumerate(documents):
            if number == 0:
                self.is_list = is_line_list(document.text[:SAMPLE])
            elif document.part == 0:
                self.is_list = False  # several documents
            if self.is_list:
                lines = document.text.split("\n")
                self.n_lines += len(lines) - 1  # the end of a part continues in the next
                self.ends_in_line_feed = not lines[-1]
                self.longest = max(self.longest, *map(len, lines))
                self.is_list = self.longest <= LONGEST_LINE
            yield document

    def sentence(self, name: str) -> str:
        """The warning for a list."""
        n_lines = self.n_lines - self.ends_in_line_feed
        return (
            f"{name}: {n_lines:,} lines of at most {self.longest:,} characters; it is read as one document and split "
            "by position; --data.lines makes each line a document"
        )


def is_line_list(text: str) -> bool:
    """Whether the lines of a text are entries of a list: words, names, titles, addresses, formulas, numbers.

    Prose is broken within sentences; poems, plays and code have blank or indented lines, and many of their lines end in
    a punctuation mark or are repeated. An alphabetical order shows a list of longer entries.
    """
    shape = LineShape.of(text)
    if shape.n_lines < LEAST_LINES or shape.longest > LONGEST_LINE:
        return False
    if shape.blank > 0.01 or shape.indented > 0.02 or shape.punctuated > 0.15 or shape.distinct < 0.4:
        return False
    return shape.words <= 3 or (shape.words <= 8 and shape.capitalized > 0.6) or (shape.words <= 15 and shape.sorted)


@dataclass(frozen=True)
class LineShape:
    """Measures of the lines of a text.

    Args:
        n_lines: number of lines that are not blank.
        longest: characters of the longest line.
        words: median number of words of a line.
        blank: blank lines as a share of all.
        indented: share of lines that begin with white space or a sign of comments and directives.
        punctuated: share of lines that end in a punctuation mark of sentences or code.
        capitalized: share of words that begin with an upper-case letter or a digit.
        distinct: share of lines that are different.
        sorted: whether the lines are in alphabetical order.
    """

    n_lines: int
    longest: int
    words: float
    blank: float
    indented: float
    punctuated: float
    capitalized: float
    distinct: float
    sorted: bool

    @classmethod
    def of(cls, text: str) -> LineShape:
        """The statistics of a text; a last line without a line feed can be incomplete and is skipped."""
        every = [line.rstrip("\r") for line in text.split("\n")[:-1]]
        lines = [line for line in every if line.strip()]
        count = max(1, len(lines))
        initials = [word[0] for line in lines for word in line.split()]
        folded = [line.casefold() for line in lines]
        in_order = sum(one <= other for one, other in pairwise(folded))
        return cls(
            n_lines=len(lines),
            longest=max(map(len, lines), default=0),
            words=median(map(count_words, lines)) if lines else 0,
            blank=1 - len(lines) / max(1, len(every)),
            indented=sum(line[0].isspace() or line[0] in "#/" for line in lines) / count,
            punctuated=sum(line.rstrip()[-1] in LINE_ENDS for line in lines) / count,
            capitalized=sum(letter.isupper() or letter.isdigit() for letter in initials) / max(1, len(initials)),
            distinct=len(set(lines)) / count,
            sorted=in_order >= 0.95 * (count - 1),
        )


LINE_ENDS = frozenset(".,;:!?…。，、；：！？{}()\"'”’»-—")
"""Punctuation marks at the ends of lines of prose, verse and code."""


def count_words(line: str) -> float:
    """Number of words of a line; in scripts without spaces, of about three characters each."""
    dense = sum(letter >= NO_SPACES for letter in line) if not line.isascii() else 0
    return max(len(line.split()), dense / 3)
