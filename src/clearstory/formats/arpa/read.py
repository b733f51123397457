"""ARPA: n-gram models as text, the way SRILM, KenLM and others exchange them; .arpa and .arpa.gz.

    \\data\\             how many n-grams of each order
    \\2-grams:          log10 P(b | a)  TAB  a b  TAB  log10 of what "a b" as a context leaves to the shorter one

Words are divided by white space. In such a file a sentence is read after <s>, which is never foreseen, and </s> ends
it. Here one token is both: it ends a line, and the next line is read after it. So <s> as a context and </s> as a word
become one token </s>, and a model saved from here is written with both. Of a file's n-grams those with <s> anywhere but
first, or </s> anywhere but last, can never be reached, and are left out.

Nothing that a file says is believed: counts, contexts and numbers are compared, and what is wrong is told by its line.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from clearstory.errors import CorruptFile
from clearstory.formats.arpa.lines import Lines, Rows, shown
from clearstory.models.ngram.config import MOST_ORDER, MOST_ROWS, NGramConfig
from clearstory.models.ngram.lookup import find_keys
from clearstory.models.ngram.model import NGram
from clearstory.models.ngram.smoothing import SmoothedOrder
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.word_tokenizer import UNKNOWN, word_level_json

BEGIN, END = "<s>", "</s>"

UNKNOWN_LOG10 = -100.0
"""log10 P of an unknown word where a file has no <unk>; KenLM's default."""

MOST_VOCAB = 2**24


def is_arpa(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.name.endswith((".arpa", ".arpa.gz"))


def read_arpa(path: Path) -> tuple[NGram, Tokenizer]:
    """The model of a file, and a tokenizer of its words. Raises CorruptFile with the line and the reason."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            reader = Reader(Lines(path, file))
            sizes = reader.header()
            unigrams = reader.words(sizes[0])
            parts = [unigrams]
            for order, size in enumerate(sizes[1:], start=2):
                parts.append(reader.section(order, size, parts, longest=order == len(sizes)))
            reader.end()
    except (EOFError, OSError, zlib.error) as error:
        raise CorruptFile(f"{path} cannot be unpacked ({error}); copy it anew") from None
    config = NGramConfig(vocab=len(reader.names), order=len(sizes), smoothing="given", bos_token_id=reader.begin, counts=False)
    end = END if reader.ends is not None else None
    roles = {"unk_token": UNKNOWN, "eos_token": end, "bos_token": None, "pad_token": None}
    tokenizer = Tokenizer(word_level_json(reader.names, end), roles)
    return NGram(config).fill(parts), tokenizer


@dataclass
class Reader:
    """A file while it is read, and the words it knows."""

    lines: Lines
    names: list[str] = field(default_factory=list)
    ids: dict[bytes, int] = field(default_factory=dict)
    ends: int | None = None  # the token that ends a line, and after which the next is read
    begin: int | None = None  # the same, where the file has <s>

    def header(self) -> list[int]:
        """How many n-grams of each order there are said to be. Lines before \\data\\ are someone's remarks."""
        while (line := self.lines.next()) != b"\\data\\":
            if not line:
                self.lines.wrong(self.lines.line, "the file ends without \\data\\; it is no ARPA file, or cut off")
        sizes: list[int] = []
        while (line := self.lines.next()).startswith(b"ngram"):
            said = re.fullmatch(rb"ngram\s+(\d{1,3})\s*=\s*(\d{1,15})", line)
            if said is None or int(said[1]) != len(sizes) + 1:
                self.lines.wrong(
                    self.lines.line, f"here it must say how many {len(sizes) + 1}-grams there are: {shown(line)}"
                )
            sizes.append(int(said[2]))
            if sizes[-1] > MOST_ROWS or sizes[0] > MOST_VOCAB or len(sizes) > MOST_ORDER:
                self.lines.wrong(self.lines.line, f"more than this house holds: {shown(line)}")
        if not sizes:
            self.lines.wrong(self.lines.line, "\\data\\ says of no order how many n-grams there are")
        self.opens(1, line)
        return sizes

    def opens(self, order: int, line: bytes) -> None:
        """Compare the line that begins a section with what must stand there."""
        if line != b"\\%d-grams:" % order:
            self.lines.wrong(
                self.lines.line, f"here \\{order}-grams: must begin, and it says {shown(line) or 'nothing'}"
            )

    def end(self) -> None:
        """Compare the last line."""
        if (line := self.lines.next()) != b"\\end\\":
            self.lines.wrong(
                self.lines.line, f"here \\end\\ must stand, and it says {shown(line) or 'nothing'}; the file is cut off"
            )
        self.lines.finish()

    def words(self, size: int) -> SmoothedOrder:
        """The 1-grams: every word there is, and the unknown one."""
        lines, numbers, weights = [], [], []
        for columns, probabilities, contexts, _ in self.lines.blocks(1, size):
            lines += columns[0]
            numbers.append(probabilities)
            weights.append(contexts)
        logs, left = np.concatenate(numbers), np.concatenate(weights)
        first = self.lines.line - size + 1
        places: dict[bytes, int] = {}
        for place, word in enumerate(lines):
            word = UNKNOWN.encode() if word == b"<UNK>" else word
            if word in places:
                self.lines.wrong(
                    first + place, f"the word {shown(word)} has stood in line {first + places[word]:,} already"
                )
            places[word] = place
        begin, end, unknown = (places.get(word.encode()) for word in (BEGIN, END, UNKNOWN))
        special = {BEGIN.encode(), END.encode(), UNKNOWN.encode()}
        others = [word for word in places if word not in special]
        ends = [] if begin is None and end is None else [END.encode()]
        ordered = [UNKNOWN.encode(), *ends, *others]
        try:
            self.names = [word.decode("utf-8") for word in ordered]
        except UnicodeDecodeError:
            bad = next(place for word, place in places.items() if not decodes(word))
            self.lines.wrong(first + bad, f"the word {shown(lines[bad])} is not UTF-8; write the file anew as UTF-8")
        self.ids = {word: id for id, word in enumerate(ordered)}
        rows = np.array([places.get(word, -1) for word in ordered])
        found = np.where(rows >= 0, logs[rows], -99.0 if unknown is not None else UNKNOWN_LOG10)
        own = np.where(rows >= 0, left[rows], 0.0)
        if ends:
            self.ends = 1
            own[1] = left[begin] if begin is not None else own[1]
            found[1] = logs[end] if end is not None else -99.0
        if unknown is None:
            found[0] = UNKNOWN_LOG10
        if begin is not None:
            self.begin = 1
            # From here on <s> is a word of its own, so that one can see where it stands.
            self.ids[BEGIN.encode()] = len(ordered)
        return SmoothedOrder(None, found * math.log(10), own * math.log(10))

    def section(self, order: int, size: int, shorter: Sequence[SmoothedOrder], longest: bool) -> SmoothedOrder:
        """The n-grams of one order from 2."""
        self.opens(order, self.lines.next())
        vocab = len(self.names)
        keys, numbers, weights, lines = [], [], [], []
        for columns, probabilities, contexts, first in self.lines.blocks(order, size):
            ids = np.empty((order, len(probabilities)), np.int64)
            for place, column in enumerate(columns):
                try:
                    ids[place] = list(map(self.ids.__getitem__, column))
                except KeyError:
                    bad = next(at for at, word in enumerate(column) if word not in self.ids)
                    self.lines.wrong(first + bad, f"the word {shown(column[bad])} is not among the 1-grams")
            stays = np.ones(len(probabilities), dtype=bool)
            if self.ends is not None:
                stays = ~((ids[1:] == vocab).any(0) | (ids[:-1] == self.ends).any(0))
                ids[ids == vocab] = self.ends
            rows = self.contexts(ids, shorter)
            if (lost := np.flatnonzero(stays & (rows < 0))).size:
                words = b" ".join(column[lost[0]] for column in columns[:-1])
                self.lines.wrong(first + int(lost[0]), f"its context {shown(words)} is not among the {order - 1}-grams")
            keys.append((rows * vocab + ids[-1])[stays])
            numbers.append(probabilities[stays])
            weights.append(contexts[stays])
            lines.append(np.flatnonzero(stays) + first)
        key, log, left, line = (np.concatenate(each or [np.empty(0)]) for each in (keys, numbers, weights, lines))
        by = np.argsort(key, kind="stable")
        if (twice := np.flatnonzero(np.diff(key[by]) == 0)).size:
            one, two = line[by[twice[0]]], line[by[twice[0] + 1]]
            self.lines.wrong(int(two), f"the same {order}-gram has stood in line {int(one):,} already")
        logs = log[by] * math.log(10)
        return SmoothedOrder(key[by].astype(np.int64), logs, None if longest else left[by] * math.log(10))

    def contexts(self, ids: Rows, shorter: Sequence[SmoothedOrder]) -> Rows:
        """The rows of the n-grams without their last words, in the table one shorter."""
        rows: Rows = ids[0]
        for part, column in zip(shorter[1:], ids[1:-1], strict=True):
            assert part.keys is not None
            wanted = np.where(rows >= 0, rows * len(self.names) + column, -1)
            rows = find_keys(torch.from_numpy(part.keys), torch.from_numpy(wanted)).numpy()
        return rows


def decodes(word: bytes) -> bool:
    """Whether it is UTF-8."""
    return word.decode("utf-8", "replace").encode() == word
