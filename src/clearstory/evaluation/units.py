"""Measuring: the same held-out text for every model, cut into the same units, and what each model needs for each unit.

A unit is a document; of a few documents, a stretch of some thousand bytes. Units are places in the text and not in
anyone's tokens, so models with different tokenizers can be compared unit by unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from clearstory.errors import CannotDo
from clearstory.metrics import NATS_PER_BIT, Floats
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.prompts import bos_or_eos_token_id, reads_source, inference_mode
from clearstory.evaluation.windows import Windows, iter_token_nll, window_length_and_stride
from clearstory.recipes.both_sides import pseudo_token_nll
from clearstory.recipes.inference.evaluate import scorable
from clearstory.recipes.comparison.leaderboard import LIKELIHOOD, PSEUDO
from clearstory.recipes.inference.loading import require_mlm_head
from clearstory.evaluation.oov_cost import Spelling
from clearstory.text.document import Document
from clearstory.text.token_dataset import TokenDataset, encode_documents
from clearstory.text.tokenizers import Tokenizer

ENOUGH_DOCUMENTS = 20
"""Below, resampling them says little."""

MOST_UNITS = 4096
"""Of more documents, neighbours are put together."""

STRETCH = 4096
"""Bytes, of a text that has hundreds of such; a fiftieth of a shorter one."""


@dataclass(frozen=True, eq=False)
class EvalText:
    """A text to be foreseen.

    Args:
        name: what to call it.
        documents: the text; a document's parts follow each other.
        several: whether documents end with the tokenizer's end token, as they do where a corpus has several.
        ends: (U,) bytes of the whole text up to each unit's end.
        unit: what a unit is, in words.
    """

    name: str
    documents: tuple[Document, ...]
    several: bool
    ends: Floats
    unit: str

    @classmethod
    def of(cls, name: str, documents: Iterable[Document], several: bool | None = None) -> EvalText:
        """The text in its units."""
        documents = tuple(documents)
        sizes = [sum(len(part.text.encode()) for part in parts) for parts in whole(documents)]
        ends, unit = units([size for size in sizes if size])
        return cls(name, documents, len(sizes) > 1 if several is None else several, ends, unit)

    @property
    def bytes(self) -> int:
        """Its length in UTF-8."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def sizes(self) -> Floats:
        """(U,) bytes of each unit."""
        return np.diff(self.ends, prepend=0.0)

    def beginning(self, characters: int = 40) -> str:
        """How it begins, to the end of a word."""
        text = next((document.text for document in self.documents if document.text.strip()), "").lstrip()
        line = text.splitlines()[0] if text else ""
        return line if len(line) <= characters else line[:characters].rsplit(" ", 1)[0]


def whole(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The parts of each document."""
    count = -1

    def number(document: Document) -> int:
        nonlocal count
        count += document.part == 0
        return count

    for _, parts in groupby(documents, key=number):
        yield list(parts)


def units(sizes: Sequence[int]) -> tuple[Floats, str]:
    """Where units end in a text of documents of these sizes in bytes, (U,), and what a unit is.

    >>> ends, unit = units([10_000])
    >>> ends[:3].tolist(), len(ends), unit
    ([256.0, 512.0, 768.0], 39, 'stretches of 256 bytes')
    """
    ends = np.cumsum(np.asarray(sizes, np.float64))
    if len(sizes) > MOST_UNITS:
        together = -(-len(sizes) // MOST_UNITS)
        last = [*range(together - 1, len(sizes) - 1, together), len(sizes) - 1]
        return ends[last], f"groups of {together:,} documents"
    if len(sizes) >= ENOUGH_DOCUMENTS:
        return ends, "documents"
    length = max(256, min(STRETCH, sum(sizes) // 50))
    count = max(1, int(sum(sizes) // length))
    # The last stretch takes what is left over, or one of few bytes would weigh as much as any.
    places = [*(length * float(at) for at in range(1, count)), float(sum(sizes))]
    return np.asarray(places), f"stretches of {length:,} bytes"


@dataclass(frozen=True, eq=False)
class UnitScores:
    """What a model needs for a text.

    Args:
        nats: (U,) for each unit, what is charged beside the model included; None where bytes would mean nothing.
        model_nats: what the model itself needs for all tokens.
        tokens: how many it foresaw.
        charged: nats for unknown words and lost white space; 0 where the tokenizer spells everything.
        unknown: how many tokens the tokenizer had no word for.
        windows: how the model read, in words.
        reason: why there are no bits per byte, or what was charged; None where there is nothing to say.
        measure: likelihood; or pseudo-likelihood, where `nats` of units that were not read are nan.
    """

    nats: Floats | None
    model_nats: float
    tokens: int
    charged: float
    unknown: int
    windows: str
    reason: str | None
    measure: str = LIKELIHOOD

    def bits_per_byte(self, held: EvalText) -> float | None:
        """The yardstick."""
        if self.nats is None:
            return None
        read = np.isfinite(self.nats)
        return float(self.nats[read].sum() / held.sizes[read].sum()) / NATS_PER_BIT


def measure(
    model: Any,
    tokenizer: Tokenizer,
    held: EvalText,
    *,
    windows: Windows = "strided",
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> UnitScores:
    """How well a model foresees a text, unit by unit."""
    if reads_source(model):
        raise CannotDo(
            "this model makes a text of another, and models are compared by how they foresee running text; see "
            "clearstory evaluate"
        )
    rows = encode_documents(tokenizer, held.documents, held.several)
    if isinstance(model, Encoder):
        return score_units_by_pseudo_likelihood(model, tokenizer, held, rows, on_progress)
    begin = bos_or_eos_token_id(tokenizer)
    length, stride = window_length_and_stride(model, None, windows, None)
    nats = np.zeros(len(rows))
    if begin is None:
        # Nothing foresees a document's first token: it is one of so many, all alike.
        nats[rows.starts[:-1][np.diff(rows.starts) > 0]] = math.log(tokenizer.vocab)
    done = 0
    if scorable(rows, begin):
        with inference_mode(model):
            for part in iter_token_nll(model, rows, windows=windows, begin=begin, batch_size=batch_size):
                nats[part.place : part.place + len(part.nats)] = part.nats
                done += len(part.nats)
                if on_progress is not None:
                    on_progress(done, len(rows))
    read = "read whole" if length is None else f"{windows} windows of {length:,} tokens"
    if windows == "strided" and length is not None:
        read += f", {stride:,} apart"
    found = UnitScores(
        nats=None, model_nats=float(nats.sum()), tokens=len(rows), charged=0.0, unknown=0, windows=read, reason=None
    )
    if rows.bytes == rows.text_bytes and all(tokenizer.is_lossless(document.text) for document in held.documents):
        sizes = tokenizer.byte_lengths[rows.ids].astype(np.float64)
        return replace(found, nats=divided(nats, sizes, held.ends))
    spelt = spell(tokenizer, held, rows)
    if isinstance(spelt, str):
        return replace(found, reason=spelt)
    extra, sizes, unknown = spelt
    charged = float(extra.sum())
    words = f"{unknown:,} unknown token{'s' * (unknown != 1)} spelt in bytes, and white space, cost "
    return replace(
        found, nats=divided(nats + extra, sizes, held.ends), charged=charged, unknown=unknown,
        reason=f"{words}{charged / NATS_PER_BIT / held.bytes:.3f} of its bits per byte",
    )  # fmt: skip


MAX_PSEUDO_TOKENS = 4000
"""Tokens that an encoder tells one by one: each costs a reading of its window."""


def score_units_by_pseudo_likelihood(
    model: Encoder,
    tokenizer: Tokenizer,
    held: EvalText,
    rows: TokenDataset,
    on_progress: Callable[[int, int], None] | None = None,
) -> UnitScores:
    """The pseudo-likelihood of units from all over the text, of about MAX_PSEUDO_TOKENS tokens together; see `pseudo`."""
    require_mlm_head(model)
    context = model.config.context
    found = UnitScores(
        nats=None, model_nats=0.0, tokens=0, charged=0.0, unknown=0, measure=PSEUDO, reason=None,
        windows=f"each token told from both sides, in blocks of {context:,} tokens",
    )  # fmt: skip
    extra, sizes, unknown = np.zeros(len(rows)), tokenizer.byte_lengths[rows.ids].astype(np.float64), 0
    if rows.bytes != rows.text_bytes or not all(tokenizer.is_lossless(each.text) for each in held.documents):
        spelt = spell(tokenizer, held, rows)
        if isinstance(spelt, str):
            return replace(found, reason=spelt)
        extra, sizes, unknown = spelt
    count = len(held.ends)
    share = max(1, min(count, round(count * MAX_PSEUDO_TOKENS / max(1, len(rows)))))
    chosen = np.unique(np.linspace(0, count - 1, share).round().astype(np.int64))
    ends = np.cumsum(sizes)
    starts = ends - sizes
    begins = np.concatenate([[0.0], held.ends[:-1]])
    inside = [np.flatnonzero((ends > begins[unit]) & (starts < held.ends[unit])) for unit in chosen]
    nats = np.zeros(len(rows))
    with inference_mode(model):
        places, told = pseudo_token_nll(model, tokenizer, rows, np.unique(np.concatenate(inside)).tolist(), on_progress)
    nats[places] = told
    units = np.full(count, np.nan)
    units[chosen] = divided(nats + extra, sizes, held.ends)[chosen]
    return replace(
        found, nats=units, model_nats=float(told.sum()), tokens=len(places), unknown=unknown,
        reason=f"pseudo-likelihood (Salazar et al. 2020) of {len(chosen):,} of {count:,} {held.unit}: each token is "
        "told from what follows as well, so it stands beside other encoders only",
    )  # fmt: skip


def spell(tokenizer: Tokenizer, held: EvalText, rows: TokenDataset) -> tuple[Floats, Floats, int] | str:
    """What is charged for each token, the bytes each stands for, and how many are unknown; or why that cannot be."""
    spelling = Spelling(tokenizer)
    nats, sizes, ids, unknown = [], [], [], 0
    for number, parts in enumerate(whole(held.documents)):
        for part in parts:
            found = spelling.charge(part.text)
            if found is None:
                return (
                    "the tokenizer does not give the text back (capitals or accents are lost), so bits per byte would "
                    "count what was never foreseen"
                )
            ids += found[0]
            nats.append(found[1].nats)
            sizes.append(found[1].sizes)
            unknown += found[1].unknown
        if len(ids) < rows.starts[number + 1]:  # the token between documents
            ids.append(int(rows.ids[len(ids)]))
            nats.append(np.zeros(1))
            sizes.append(np.zeros(1))
    if ids != rows.ids.tolist():
        return "the tokenizer cuts this text another way when asked where its tokens stand, so they cannot be spelt"
    return np.concatenate(nats), np.concatenate(sizes), unknown


def divided(nats: Floats, sizes: Floats, ends: Floats) -> Floats:
    """Nats of each unit, (U,), from those of tokens of so many bytes, (N,); a token over a unit's end is shared out.

    >>> divided(np.array([1.0, 2.0, 4.0, 0.5]), np.array([2.0, 2.0, 2.0, 0.0]), np.array([3.0, 6.0])).tolist()
    [2.0, 5.5]
    """
    places = np.concatenate([[0.0], np.cumsum(sizes)])
    sums = np.concatenate([[0.0], np.cumsum(nats)])
    # Tokens of no bytes at a unit's end belong to it: the token that ends a document.
    before = np.searchsorted(places, ends, side="right") - 1
    inside = ends - places[before]
    after = np.minimum(before + 1, len(places) - 1)
    width = np.maximum(places[after] - places[before], 1.0)
    return np.diff(sums[before] + inside / width * (sums[after] - sums[before]), prepend=0.0)
