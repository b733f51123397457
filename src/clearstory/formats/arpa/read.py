"""Read n-gram models from ARPA files, .arpa and .arpa.gz.

    \\data\\             number of n-grams of each order
    \\2-grams:          log10 P(b | a)  TAB  a b  TAB  log10 backoff weight of the context "a b"

In ARPA files a sentence starts after <s>, which is never predicted, and ends with </s>. Clearstory uses one token for
both: it ends a line and precedes the next one. <s> as a context and </s> as a predicted word are read as one token
</s>, and saved models write both. N-grams with <s> after the first position, or </s> before the last, can never match
and are dropped.

As in KenLM, these are errors: a file without <s> or </s>, backoff weights in the longest order (the file was cut),
text after \\end\\, positive log probabilities, counts that do not match. A byte order mark and comments before \\data\\
are accepted. Log P may be -inf.

The file is untrusted input: counts, contexts and numbers are checked, and errors name the line.
"""

from __future__ import annotations

import codecs
import gzip
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from clearstory.errors import CorruptFile
from clearstory.formats.arpa.lines import Floats, Integers, LineReader, shorten
from clearstory.models.ngram.config import MAX_ORDER, MAX_ROWS, NGramConfig
from clearstory.models.ngram.estimation import SmoothedOrder
from clearstory.models.ngram.lookup import find_keys
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.word_tokenizer import UNKNOWN, word_level_json

if TYPE_CHECKING:
    from clearstory.models.ngram.model import NGram

BOS, EOS = "<s>", "</s>"

UNKNOWN_LOG10 = -100.0
"""log10 P of the unknown word if a file has no <unk>: KenLM's default."""

EOS_ID = 1
"""Id of the token that ends a line and starts the next."""

MAX_VOCAB = 2**24


def is_arpa(path: Path) -> bool:
    """Whether a file's name ends in .arpa or .arpa.gz."""
    return path.name.endswith((".arpa", ".arpa.gz"))


def is_gzip(path: Path) -> bool:
    """Whether a file begins like a gzip file, or is called one."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b" or path.suffix == ".gz"


def read_arpa(path: Path) -> tuple[NGram, Tokenizer]:
    """The model of a file, and a word tokenizer. Raises CorruptFile with the line and the reason."""
    from clearstory.models.ngram.model import NGram  # imports torch

    config, orders, tokenizer = read_arpa_orders(path)
    return NGram(replace(config, sizes=())).fill(orders), tokenizer


def read_arpa_orders(path: Path) -> tuple[NGramConfig, list[SmoothedOrder], Tokenizer]:
    """The config, tables and word tokenizer of a file. Raises CorruptFile with the line and the reason."""
    try:
        with gzip.open(path, "rb") if is_gzip(path) else open(path, "rb") as file:
            reader = ArpaReader(LineReader(path, file))
            sizes = reader.read_header()
            orders = [reader.read_unigrams(sizes[0], is_longest=len(sizes) == 1)]
            for order, size in enumerate(sizes[1:], start=2):
                orders.append(reader.read_section(order, size, orders, is_longest=order == len(sizes)))
            reader.read_end()
    except (EOFError, OSError, zlib.error) as error:
        raise CorruptFile(f"{path} cannot be decompressed ({error}); copy it again") from None
    config = NGramConfig(
        vocab=len(reader.words),
        order=len(sizes),
        smoothing="given",
        bos_token_id=EOS_ID,
        counts=False,
        sizes=tuple(len(order.log_probs) for order in orders[1:]),
    )
    special_tokens = {"unk_token": UNKNOWN, "eos_token": EOS, "bos_token": None, "pad_token": None}
    return config, orders, Tokenizer(word_level_json(reader.words, EOS), special_tokens)


@dataclass
class ArpaReader:
    """Parser of an ARPA file.

    Args:
        lines: the file.
        words: the vocabulary in the order of ids.
        ids: ids by word; while the file is read, the id of <s> is the size of the vocabulary.
    """

    lines: LineReader
    words: list[str] = field(default_factory=list)
    ids: dict[bytes, int] = field(default_factory=dict)

    def fail(self, reason: str) -> NoReturn:
        """Raise CorruptFile for the current line."""
        self.lines.fail(self.lines.line, reason)

    def read_header(self) -> list[int]:
        """The number of n-grams of each order. Lines before \\data\\ are comments."""
        while (line := self.lines.next_line().removeprefix(codecs.BOM_UTF8)) != b"\\data\\":
            if not line:
                self.fail("the file ends without \\data\\; it is not an ARPA file, or truncated")
        sizes: list[int] = []
        while (line := self.lines.next_line()).startswith(b"ngram"):
            match = re.fullmatch(rb"ngram\s+(\d{1,3})\s*=\s*(\d{1,15})", line)
            if match is None or int(match[1]) != len(sizes) + 1:
                self.lines.fail(
                    self.lines.line, f"the number of {len(sizes) + 1}-grams is expected here, not {shorten(line)}"
                )
            sizes.append(int(match[2]))
            if sizes[-1] > MAX_ROWS or sizes[0] > MAX_VOCAB or len(sizes) > MAX_ORDER:
                self.fail(
                    f"{shorten(line)} is above the maximum of {MAX_VOCAB:,} words, {MAX_ROWS:,} n-grams of an "
                    "order or "
                    f"order {MAX_ORDER}"
                )
        if not sizes:
            self.fail("\\data\\ announces no n-grams")
        self.check_section_start(1, line)
        return sizes

    def check_section_start(self, order: int, line: bytes) -> None:
        """Raise CorruptFile unless a line starts the section of this order."""
        if line != b"\\%d-grams:" % order:
            self.fail(f"\\{order}-grams: is expected here, not {shorten(line) or 'the end of the file'}")

    def read_end(self) -> None:
        """Check the last line."""
        if (line := self.lines.next_line()) != b"\\end\\":
            self.fail(f"\\end\\ is expected here, not {shorten(line) or 'the end of the file'}; the file is truncated")
        if line := self.lines.next_line():
            self.fail(
                f"the file continues after \\end\\, with {shorten(line)}; remove what does not belong to the model"
            )

    def read_unigrams(self, size: int, is_longest: bool) -> SmoothedOrder:
        """The 1-grams: the vocabulary, with the unknown word first and </s> second."""
        lines, log_prob_blocks, backoff_blocks = [], [], []
        for columns, block_log_probs, block_backoffs, at in self.lines.read_ngrams(1, size):
            self.check_backoffs(1, block_backoffs, at, is_longest)
            lines += columns[0]
            log_prob_blocks.append(block_log_probs)
            backoff_blocks.append(block_backoffs)
        file_log_probs, file_backoffs = np.concatenate(log_prob_blocks), np.concatenate(backoff_blocks)
        first = self.lines.line - size + 1
        rows = self.unigram_rows(lines, first)
        bos, eos, unknown = (rows.get(word.encode()) for word in (BOS, EOS, UNKNOWN))
        if bos is None or eos is None:
            self.fail(f"the 1-grams have no {BOS if bos is None else EOS}, which every sentence model has")
        special = {BOS.encode(), EOS.encode(), UNKNOWN.encode()}
        vocabulary = [UNKNOWN.encode(), EOS.encode(), *(word for word in rows if word not in special)]
        try:
            self.words = [word.decode("utf-8") for word in vocabulary]
        except UnicodeDecodeError:
            bad = next(row for word, row in rows.items() if not is_utf8(word))
            self.lines.fail(first + bad, f"the word {shorten(lines[bad])} is not UTF-8; convert the file to UTF-8")
        self.ids = {word: id for id, word in enumerate(vocabulary)}
        sources = np.array([rows.get(word, -1) for word in vocabulary])
        log_probs, backoffs = file_log_probs[sources], file_backoffs[sources]
        backoffs[EOS_ID] = file_backoffs[bos]
        if unknown is None:
            log_probs[0], backoffs[0] = UNKNOWN_LOG10, 0.0
        # An id of its own, so that its position in longer n-grams can be checked.
        self.ids[BOS.encode()] = len(vocabulary)
        return SmoothedOrder(None, log_probs * math.log(10), backoffs * math.log(10))

    def unigram_rows(self, lines: Sequence[bytes], first: int) -> dict[bytes, int]:
        """The row of each word. Raises CorruptFile for a word that occurs twice."""
        rows: dict[bytes, int] = {}
        for row, word in enumerate(lines):
            word = UNKNOWN.encode() if word == b"<UNK>" else word
            if word in rows:
                self.lines.fail(first + row, f"the word {shorten(word)} occurs in line {first + rows[word]:,} already")
            rows[word] = row
        return rows

    def read_section(self, order: int, size: int, shorter: Sequence[SmoothedOrder], is_longest: bool) -> SmoothedOrder:
        """The n-grams of one order from 2, sorted by key."""
        self.check_section_start(order, self.lines.next_line())
        vocab = len(self.words)
        key_blocks, log_prob_blocks, backoff_blocks, line_blocks = [], [], [], []
        for columns, block_log_probs, block_backoffs, first in self.lines.read_ngrams(order, size):
            ids = self.word_ids(columns, first)
            self.check_backoffs(order, block_backoffs, first, is_longest)
            keep = ~((ids[1:] == vocab).any(0) | (ids[:-1] == EOS_ID).any(0))
            ids[ids == vocab] = EOS_ID
            rows = self.context_rows(ids, shorter)
            if (missing := np.flatnonzero(keep & (rows < 0))).size:
                words = b" ".join(column[missing[0]] for column in columns[:-1])
                self.lines.fail(
                    first + int(missing[0]), f"its context {shorten(words)} is not among the {order - 1}-grams"
                )
            key_blocks.append((rows * vocab + ids[-1])[keep])
            log_prob_blocks.append(block_log_probs[keep])
            backoff_blocks.append(block_backoffs[keep])
            line_blocks.append(np.flatnonzero(keep) + first)
        keys, log_probs, backoffs, lines = (
            np.concatenate(each or [np.empty(0)]) for each in (key_blocks, log_prob_blocks, backoff_blocks, line_blocks)
        )
        by_key = np.argsort(keys, kind="stable")
        if (repeated := np.flatnonzero(np.diff(keys[by_key]) == 0)).size:
            earlier, later = lines[by_key[repeated[0]]], lines[by_key[repeated[0] + 1]]
            self.lines.fail(int(later), f"the same {order}-gram occurs in line {int(earlier):,} already")
        sorted_backoffs = None if is_longest else backoffs[by_key] * math.log(10)
        return SmoothedOrder(keys[by_key].astype(np.int64), log_probs[by_key] * math.log(10), sorted_backoffs)

    def check_backoffs(self, order: int, backoffs: Floats, first: int, is_longest: bool) -> None:
        """Raise CorruptFile for a backoff weight in the longest order, which has no longer n-grams to back off from."""
        if is_longest and (weighted := np.flatnonzero(backoffs)).size:
            self.lines.fail(
                first + int(weighted[0]),
                f"a {order}-gram has a backoff weight, but there are no {order + 1}-grams: the file is truncated; get "
                "the complete file",
            )

    def word_ids(self, columns: Sequence[Sequence[bytes]], first: int) -> Integers:
        """Ids of a block of n-grams, (order, N). Raises CorruptFile for a word that is not among the 1-grams."""
        ids = np.empty((len(columns), len(columns[0])), np.int64)
        for position, column in enumerate(columns):
            try:
                ids[position] = list(map(self.ids.__getitem__, column))
            except KeyError:
                bad = next(index for index, word in enumerate(column) if word not in self.ids)
                self.lines.fail(first + bad, f"the word {shorten(column[bad])} is not among the 1-grams")
        return ids

    def context_rows(self, ids: Integers, shorter: Sequence[SmoothedOrder]) -> Integers:
        """The row of each n-gram's context in the table of the next shorter order, (N,); -1 if it is missing."""
        rows: Integers = ids[0]
        for table, column in zip(shorter[1:], ids[1:-1], strict=True):
            assert table.keys is not None
            wanted = np.where(rows >= 0, rows * len(self.words) + column, -1)
            rows = find_keys(table.keys, wanted)
        return rows


def is_utf8(word: bytes) -> bool:
    """Whether the bytes are valid UTF-8."""
    return word.decode("utf-8", "replace").encode() == word
