"""ARPA, written: an n-gram model as text that SRILM, KenLM and others read; how, stands in arpa.py."""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clearstory import durable
from clearstory.errors import CannotDo
from clearstory.formats.arpa.read import BEGIN, END
from clearstory.formats.arpa.lines import BLOCK
from clearstory.models.ngram.model import NGram
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.word_tokenizer import UNKNOWN

Rows = npt.NDArray[np.int64]

NEVER = -99.0
"""log10 P of <s>, which is never foreseen; what SRILM writes."""

BREAKS = re.compile(r"[\s\x00]")


class Takes(Protocol):
    """Something to write to."""

    def write(self, data: bytes, /) -> object:
        """Take these bytes."""


def write_arpa(path: Path, model: object, tokenizer: Tokenizer | None) -> None:
    """Write a model to a file, gzipped where the name ends in .gz. The file is whole or not there.

    Raises CannotDo for what is no n-gram model, and for smoothings that do not back off.
    """
    if not isinstance(model, NGram):
        raise CannotDo(f"ARPA holds n-grams, and this is a {type(model).__name__}; only an n-gram model can become one")
    c = model.config
    if c.smoothing in ("laplace", "none"):
        raise CannotDo(
            f"ARPA says what a context leaves to a shorter one, and with smoothing '{c.smoothing}' it leaves nothing; "
            "train with kneser-ney, witten-bell or katz"
        )
    words = arpa_words(model, tokenizer)
    with durable.write_file(path) as temporary:
        if path.suffix == ".gz":
            # Without a name or a time, so that the same model gives the same file.
            with open(temporary, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                write(packed, model, words)
        else:
            with open(temporary, "wb") as plain:
                write(plain, model, words)


def arpa_words(model: NGram, tokenizer: Tokenizer | None) -> list[str]:
    """Each token as a word without white space, no two alike; what begins and ends texts as ARPA calls it.

    A tokenizer's token that holds white space is written as `inspect` shows it (␣ for a space), and without a tokenizer
    tokens are numbers.
    """
    roles: dict[int, str] = {}
    if tokenizer is not None and tokenizer.unk_token_id is not None:
        roles[tokenizer.unk_token_id] = UNKNOWN
    if tokenizer is not None and tokenizer.eos_token_id is not None:
        roles[tokenizer.eos_token_id] = END
    if model.config.bos_token_id is not None:
        roles.setdefault(model.config.bos_token_id, END if END not in roles.values() else BEGIN)
    taken = {BEGIN, END, UNKNOWN}
    out = []
    for id in range(model.vocab):
        known = tokenizer is not None and id < tokenizer.vocab
        name = roles.get(id) or (tokenizer.display_token(id) if tokenizer is not None and known else f"<{id}>")
        if id not in roles:
            if not name or name in taken or BREAKS.search(name):
                name = f"{BREAKS.sub('_', name)}<{id}>"
            taken.add(name)
        out.append(name)
    return out


def write(file: Takes, model: NGram, words: list[str]) -> None:
    """The whole file."""
    begin = model.config.bos_token_id
    # One token that ends a line and begins the next is two words there.
    both = begin is not None and words[begin] == END
    sizes = [len(model.table(order).log_probs) for order in range(1, model.config.order + 1)]
    sizes[0] += both
    file.write(b"\\data\\\n")
    for order, size in enumerate(sizes, start=1):
        file.write(b"ngram %d=%d\n" % (order, size))
    for order in range(1, len(sizes) + 1):
        file.write(b"\n\\%d-grams:\n" % order)
        for lines in section(model, order, words, both):
            file.write(lines.encode())
    file.write(b"\n\\end\\\n")


def section(model: NGram, order: int, words: list[str], both: bool) -> Iterator[str]:
    """The lines of one order, in blocks."""
    grams, begin = model.table(order), model.config.bos_token_id
    logs = grams.log_probs.double().cpu().numpy() / math.log(10)
    # A unigram's logarithm may be −inf only under "none"; rounding may put a probability above 1.
    logs = np.minimum(logs, 0.0)
    weights = None if grams.log_backoffs is None else grams.log_backoffs.double().cpu().numpy() / math.log(10)
    firsts = words
    if both and order > 1:
        assert begin is not None
        firsts = [*words[:begin], BEGIN, *words[begin + 1 :]]
    if both and order == 1:
        assert begin is not None
        left = 0.0 if weights is None else float(weights[begin])
        yield f"{NEVER:g}\t{BEGIN}\t{left:.8g}\n"
    for start in range(0, len(logs), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(logs)))
        first, *others = columns(model, order, rows)
        spelt = [firsts[id] for id in first.tolist()]
        for ids in others:
            spelt = [f"{before} {words[id]}" for before, id in zip(spelt, ids.tolist(), strict=True)]
        numbers = logs[rows].tolist()
        if weights is None:
            yield "".join(f"{log:.8g}\t{words}\n" for log, words in zip(numbers, spelt, strict=True))
            continue
        lefts = weights[rows]
        if both and order == 1:
            lefts = np.where(rows == begin, 0.0, lefts)
        lines = zip(numbers, spelt, lefts.tolist(), strict=True)
        yield "".join(f"{log:.8g}\t{words}\t{left:.8g}\n" for log, words, left in lines)


def columns(model: NGram, order: int, rows: Rows) -> list[Rows]:
    """The ids of some n-grams, place by place."""
    out: list[Rows] = []
    for length in range(order, 1, -1):
        keys = model.table(length).keys.cpu().numpy()[rows]
        out.append(keys % model.vocab)
        rows = keys // model.vocab
    return [rows, *reversed(out)]
