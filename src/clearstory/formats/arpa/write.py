"""Write n-gram models as ARPA files, which SRILM, KenLM and other tools read. The format is described in read.py."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from clearstory import durable
from clearstory.errors import CannotDo
from clearstory.formats.arpa.lines import BLOCK_LINES, Integers
from clearstory.formats.arpa.read import BOS, EOS
from clearstory.models.ngram.model import NGram
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.word_tokenizer import RESERVED, UNKNOWN

NEVER_LOG10 = -99.0
"""log10 P of words that are never predicted, such as <s>: SRILM's value."""

WHITESPACE_OR_NUL = re.compile(r"[ \t\n\r\x0b\x0c\x00]")


class ByteWriter(Protocol):
    """A file opened for writing bytes."""

    def write(self, data: bytes, /) -> object:
        """Write these bytes."""


def write_arpa(
    path: Path, model: object, tokenizer: Tokenizer | None, check: Callable[[Path], None] | None = None
) -> None:
    """Write a model to a file, under a temporary name until it is complete; gzipped if the name ends in .gz.

    `check` is called with the complete temporary file; where it raises, nothing is left at `path`. Raises CannotDo for
    a model other than an n-gram model, and for smoothing methods without backoff weights.
    """
    if not isinstance(model, NGram):
        raise CannotDo(f"ARPA can only store n-gram models, and this is a {type(model).__name__}")
    smoothing = model.config.smoothing
    if smoothing in ("laplace", "none"):
        raise CannotDo(
            f"ARPA stores backoff weights, and smoothing '{smoothing}' has none; train with kneser-ney, "
            "witten-bell or katz"
        )
    words = arpa_words(model, tokenizer)
    with durable.write_file(path) as temporary:
        if path.suffix == ".gz":
            # Without name and time, so that the same model gives the same file.
            with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as compressed:
                write_model(compressed, model, words)
        else:
            with open(temporary, "wb") as file:
                write_model(file, model, words)
        if check is not None:
            check(temporary)


def arpa_words(model: NGram, tokenizer: Tokenizer | None) -> list[str]:
    """Every token as a unique word without white space, in the order of ids; special tokens have ARPA's names.

    Words of a word tokenizer are written as they are; those that ARPA reserves get their id as a suffix. White space
    within other tokens is written as `inspect` displays it (␣ for a space). Without a tokenizer, words are <id>.
    """
    special: dict[int, str] = {}
    if tokenizer is not None and tokenizer.unk_token_id is not None:
        special[tokenizer.unk_token_id] = UNKNOWN
    if tokenizer is not None and tokenizer.eos_token_id is not None:
        special[tokenizer.eos_token_id] = EOS
    if model.config.bos_token_id is not None:
        special.setdefault(model.config.bos_token_id, EOS if EOS not in special.values() else BOS)
    used = {*RESERVED, BOS, EOS}
    plain = vocabulary_words(tokenizer)
    words = []
    for id in range(model.vocab):
        word = special.get(id)
        if word is None:
            has_token = tokenizer is not None and id < tokenizer.vocab
            if tokenizer is not None and has_token:
                word = plain[id] if id in plain else tokenizer.display_token(id)
            else:
                word = f"<{id}>"
            if not word or word in used or WHITESPACE_OR_NUL.search(word):
                word = f"{WHITESPACE_OR_NUL.sub('_', word)}<{id}>"
            used.add(word)
        words.append(word)
    return words


def vocabulary_words(tokenizer: Tokenizer | None) -> dict[int, str]:
    """The words of a word tokenizer by id; empty for other tokenizers, whose tokens are not whole words."""
    if tokenizer is None or tokenizer.kind != "words":
        return {}
    return {id: word for word, id in tokenizer.ids.items()}


def write_model(file: ByteWriter, model: NGram, words: list[str]) -> None:
    """Write the header and the sections of all orders."""
    bos = model.config.bos_token_id
    # One token that ends a line and starts the next is written as two words.
    split_eos = bos is not None and words[bos] == EOS
    # KenLM refuses a file without the two words of sentences; a model that has none never predicts them.
    missing = [word for word in (BOS, EOS) if word not in words and not (split_eos and word == BOS)]
    sizes = [len(model.table(order).log_probs) for order in range(1, model.config.order + 1)]
    sizes[0] += split_eos + len(missing)
    file.write(b"\\data\\\n")
    for order, size in enumerate(sizes, start=1):
        file.write(b"ngram %d=%d\n" % (order, size))
    for order in range(1, len(sizes) + 1):
        file.write(b"\n\\%d-grams:\n" % order)
        if order == 1:
            file.write("".join(f"{NEVER_LOG10:g}\t{word}\n" for word in missing).encode())
        for lines in section_lines(model, order, words, split_eos):
            file.write(lines.encode())
    file.write(b"\n\\end\\\n")


def section_lines(model: NGram, order: int, words: list[str], split_eos: bool) -> Iterator[str]:
    """The lines of one order, in blocks."""
    table, bos = model.table(order), model.config.bos_token_id
    log_probs = table.log_probs.double().cpu().numpy() / math.log(10)
    # Rounding may give a probability above 1.
    log_probs = np.minimum(log_probs, 0.0)
    backoffs = None if table.log_backoffs is None else table.log_backoffs.double().cpu().numpy() / math.log(10)
    first_words = words
    if split_eos:
        assert bos is not None
        if order > 1:
            first_words = [*words[:bos], BOS, *words[bos + 1 :]]
        else:
            backoff = 0.0 if backoffs is None else float(backoffs[bos])
            yield f"{NEVER_LOG10:g}\t{BOS}\t{backoff:.8g}\n"
    for start in range(0, len(log_probs), BLOCK_LINES):
        rows = np.arange(start, min(start + BLOCK_LINES, len(log_probs)))
        first, *others = ngram_ids(model, order, rows)
        ngrams = [first_words[id] for id in first.tolist()]
        for ids in others:
            ngrams = [f"{context} {words[id]}" for context, id in zip(ngrams, ids.tolist(), strict=True)]
        block = log_probs[rows].tolist()
        if backoffs is None:
            yield "".join(f"{log_prob:.8g}\t{ngram}\n" for log_prob, ngram in zip(block, ngrams, strict=True))
            continue
        block_backoffs = backoffs[rows]
        if split_eos and order == 1:
            block_backoffs = np.where(rows == bos, 0.0, block_backoffs)
        lines = zip(block, ngrams, block_backoffs.tolist(), strict=True)
        yield "".join(f"{log_prob:.8g}\t{ngram}\t{backoff:.8g}\n" for log_prob, ngram, backoff in lines)


def ngram_ids(model: NGram, order: int, rows: Integers) -> list[Integers]:
    """The token ids of the n-grams in these rows, by position."""
    out: list[Integers] = []
    for length in range(order, 1, -1):
        keys = model.table(length).keys.cpu().numpy()[rows]
        out.append(keys % model.vocab)
        rows = keys // model.vocab
    return [rows, *reversed(out)]
