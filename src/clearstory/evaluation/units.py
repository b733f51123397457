"""Units of comparison: the same held-out text for every model, split into the same units, and the bits of each.

A unit is a document; of few documents, a run of some thousand bytes. Units are positions in the text, not in anyone's
tokens, so models with different tokenizers can be compared unit by unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import cast

import numpy as np

from clearstory.errors import CannotDo
from clearstory.evaluation.oov_cost import OovCostModel
from clearstory.evaluation.pseudo_likelihood import pseudo_token_nll
from clearstory.evaluation.windows import WindowMode, has_targets, iter_token_nll, window_length_and_stride
from clearstory.metrics import LIKELIHOOD, NATS_PER_BIT, PSEUDO_LIKELIHOOD, Floats
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability, has_capability, require
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.models.transformer.encoder import Encoder
from clearstory.text.byte_attribution import attributed_sizes
from clearstory.text.document import Document
from clearstory.text.token_dataset import TokenDataset, encode_documents
from clearstory.text.tokenizers import Tokenizer

MIN_DOCUMENTS = 20
"""With fewer documents, resampling them is not informative, and units are runs of bytes."""

MAX_UNITS = 4096
"""With more documents, adjacent ones form a unit."""

UNIT_BYTES = 4096
"""Size of a run in bytes; a fiftieth of the text if the text is short."""

MAX_PSEUDO_TOKENS = 4000
"""Tokens scored by pseudo-likelihood: each costs a forward pass over its window."""


@dataclass(frozen=True, eq=False)
class EvalText:
    """A text that models are evaluated on, divided into U units.

    Args:
        name: its name.
        documents: the text; the parts of a document are adjacent.
        ends: (U,) bytes of the text up to each unit's end.
        unit: what a unit is, in words.
    """

    name: str
    documents: tuple[Document, ...]
    ends: Floats
    unit: str

    @classmethod
    def from_documents(cls, name: str, documents: Iterable[Document]) -> EvalText:
        """The text of these documents, divided into units."""
        documents = tuple(documents)
        sizes = [sum(part.n_bytes for part in parts) for parts in group_parts(documents)]
        ends, unit = unit_ends([size for size in sizes if size])
        return cls(name, documents, ends, unit)

    @property
    def bytes(self) -> int:
        """Length of the text in UTF-8 bytes."""
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def sizes(self) -> Floats:
        """Bytes of each unit, (U,)."""
        return np.diff(self.ends, prepend=0.0)

    def first_words(self, characters: int = 40) -> str:
        """The first words of the text, of at most so many characters."""
        text = next((document.text for document in self.documents if document.text.strip()), "").lstrip()
        line = text.splitlines()[0] if text else ""
        return line if len(line) <= characters else line[:characters].rsplit(" ", 1)[0]


def group_parts(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The parts of each document as a list."""
    count = -1

    def document_index(part: Document) -> int:
        nonlocal count
        count += part.part == 0
        return count

    for _, parts in groupby(documents, key=document_index):
        yield list(parts)


def unit_ends(sizes: Sequence[int]) -> tuple[Floats, str]:
    """Where units end, in bytes, in a text of documents of these sizes in bytes, (U,); and what a unit is, in words.

    >>> ends, unit = unit_ends([10_000])
    >>> ends[:3].tolist(), len(ends), unit
    ([256.0, 512.0, 768.0], 39, 'runs of 256 bytes')
    """
    ends = np.cumsum(np.asarray(sizes, np.float64))
    if len(sizes) > MAX_UNITS:
        per_unit = -(-len(sizes) // MAX_UNITS)
        last = [*range(per_unit - 1, len(sizes) - 1, per_unit), len(sizes) - 1]
        return ends[last], f"groups of {per_unit:,} documents"
    if len(sizes) >= MIN_DOCUMENTS:
        return ends, "documents"
    length = max(256, min(UNIT_BYTES, sum(sizes) // 50))
    count = max(1, int(sum(sizes) // length))
    # The last run takes the remainder: one of few bytes would have as much weight as any.
    positions = [*(length * float(index) for index in range(1, count)), float(sum(sizes))]
    return np.asarray(positions), f"runs of {length:,} bytes"


@dataclass(frozen=True, eq=False)
class UnitScores:
    """The cost of a text under a model, unit by unit.

    Args:
        nats: (U,) negative log-likelihood of each unit, cost of unknown words included; None if bits per byte would
            mean nothing. With pseudo-likelihood, nan for units that were not read.
        model_nats: negative log-likelihood of all tokens under the model itself.
        tokens: number of scored tokens.
        oov_nats: cost of unknown words and lost white space; 0 where the tokenizer is lossless.
        unknown: number of unknown tokens.
        windows: how the model read the text, in words.
        reason: why there are no bits per byte, or the cost of unknown words; None if neither applies.
        measure: LIKELIHOOD or PSEUDO_LIKELIHOOD.
    """

    nats: Floats | None
    model_nats: float
    tokens: int
    oov_nats: float
    unknown: int
    windows: str
    reason: str | None
    measure: str = LIKELIHOOD

    def bits_per_byte(self, text: EvalText) -> float | None:
        """Bits per byte over all units that were read."""
        if self.nats is None:
            return None
        read = np.isfinite(self.nats)
        return float(self.nats[read].sum() / text.sizes[read].sum()) / NATS_PER_BIT


def score_units(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: EvalText,
    *,
    windows: WindowMode = "strided",
    batch_size: int = 8,
    on_progress: Callable[[int, int], None] | None = None,
) -> UnitScores:
    """The cost of every unit of a text: by likelihood, or by pseudo-likelihood for an encoder.

    Raises CannotDo for a model that reads a source.
    """
    if has_capability(model, Capability.SOURCE):
        raise CannotDo(
            "this model predicts a target from a source, but models are compared on running text; see clearstory "
            "evaluate"
        )
    dataset = encode_documents(tokenizer, text.documents)
    if has_capability(model, Capability.BIDIRECTIONAL):
        return score_units_by_pseudo_likelihood(cast(Encoder, model), tokenizer, text, dataset, on_progress)
    length, stride = window_length_and_stride(model, None, windows, None)
    nats = token_nats(model, tokenizer, dataset, windows, batch_size, on_progress)
    scores = UnitScores(
        nats=None,
        model_nats=float(nats.sum()),
        tokens=len(dataset),
        oov_nats=0.0,
        unknown=0,
        windows=describe_windows(windows, length, stride),
        reason=None,
    )
    if is_lossless(tokenizer, text, dataset):
        return replace(scores, nats=nats_per_unit(nats, attributed_sizes(dataset), text.ends))
    costs = oov_costs(tokenizer, text, dataset)
    if isinstance(costs, str):
        return replace(scores, reason=costs)
    extra, sizes, unknown = costs
    oov_nats = float(extra.sum())
    return replace(
        scores,
        nats=nats_per_unit(nats + extra, sizes, text.ends),
        oov_nats=oov_nats,
        unknown=unknown,
        reason=f"{unknown:,} unknown token{'s' * (unknown != 1)} spelled in bytes, and white space, account for "
        f"{oov_nats / NATS_PER_BIT / text.bytes:.3f} of its bits per byte",
    )


def token_nats(
    model: LanguageModel,
    tokenizer: Tokenizer,
    dataset: TokenDataset,
    windows: WindowMode,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None,
) -> Floats:
    """Negative log-likelihood of every token of a dataset under a causal model in nats, (N,)."""
    start_token_id = bos_or_eos_token_id(tokenizer)
    nats = np.zeros(len(dataset))
    if start_token_id is None:
        # Nothing predicts a document's first token: it is one of the vocabulary, all equally likely.
        nats[dataset.starts[:-1][np.diff(dataset.starts) > 0]] = math.log(tokenizer.vocab)
    done = 0
    if has_targets(dataset, start_token_id):
        with inference_mode(model):
            parts = iter_token_nll(
                model, dataset, windows=windows, start_token_id=start_token_id, batch_size=batch_size
            )
            for part in parts:
                nats[part.start : part.start + len(part.nats)] = part.nats
                done += len(part.nats)
                if on_progress is not None:
                    on_progress(done, len(dataset))
    return nats


def describe_windows(windows: WindowMode, length: int | None, stride: int) -> str:
    """Description of the evaluation windows."""
    if length is None:
        return "whole documents"
    described = f"{windows} windows of {length:,} tokens"
    return f"{described}, stride {stride:,}" if windows == "strided" else described


def score_units_by_pseudo_likelihood(
    model: Encoder,
    tokenizer: Tokenizer,
    text: EvalText,
    dataset: TokenDataset,
    on_progress: Callable[[int, int], None] | None = None,
) -> UnitScores:
    """The pseudo-likelihood of units spread over the text, with about MAX_PSEUDO_TOKENS tokens in total.

    See `pseudo_likelihood`. Raises CannotDo for an encoder without a head for masked tokens.
    """
    require(model, Capability.MLM_HEAD)
    scores = UnitScores(
        nats=None,
        model_nats=0.0,
        tokens=0,
        oov_nats=0.0,
        unknown=0,
        windows=f"each token predicted from both sides, in blocks of {model.config.context:,} tokens",
        reason=None,
        measure=PSEUDO_LIKELIHOOD,
    )
    extra, sizes = np.zeros(len(dataset)), attributed_sizes(dataset)
    unknown = 0
    if not is_lossless(tokenizer, text, dataset):
        costs = oov_costs(tokenizer, text, dataset)
        if isinstance(costs, str):
            return replace(scores, reason=costs)
        extra, sizes, unknown = costs
    n_units = len(text.ends)
    n_chosen = max(1, min(n_units, round(n_units * MAX_PSEUDO_TOKENS / max(1, len(dataset)))))
    chosen = np.unique(np.linspace(0, n_units - 1, n_chosen).round().astype(np.int64))
    ends = np.cumsum(sizes)
    starts = ends - sizes
    unit_starts = np.concatenate([[0.0], text.ends[:-1]])
    inside = [np.flatnonzero((ends > unit_starts[unit]) & (starts < text.ends[unit])) for unit in chosen]
    nats = np.zeros(len(dataset))
    with inference_mode(model):
        positions = np.unique(np.concatenate(inside)).tolist()
        scored, token_nats = pseudo_token_nll(model, tokenizer, dataset, positions, on_progress)
    nats[scored] = token_nats
    unit_nats = np.full(n_units, np.nan)
    unit_nats[chosen] = nats_per_unit(nats + extra, sizes, text.ends)[chosen]
    return replace(
        scores,
        nats=unit_nats,
        model_nats=float(token_nats.sum()),
        tokens=len(scored),
        unknown=unknown,
        reason=f"pseudo-likelihood (Salazar et al. 2020) of {len(chosen):,} of {n_units:,} {text.unit}: each token is "
        "also predicted from the following ones, so it is only comparable between encoders",
    )


def is_lossless(tokenizer: Tokenizer, text: EvalText, dataset: TokenDataset) -> bool:
    """Whether the tokens of a text reproduce it exactly, including white space."""
    if dataset.bytes < sum(len(document.text.encode()) for document in text.documents):
        return False
    return all(tokenizer.is_lossless(document.text) for document in text.documents)


def oov_costs(tokenizer: Tokenizer, text: EvalText, dataset: TokenDataset) -> tuple[Floats, Floats, int] | str:
    """The cost of each token, (N,), its bytes, (N,), and the number of unknown tokens; or the reason why they are
    unknown.
    """
    model = OovCostModel(tokenizer)
    nats, sizes, ids, unknown = [], [], [], 0
    for document, parts in enumerate(group_parts(text.documents)):
        for part in parts:
            found = model.cost(part.text)
            if found is None:
                return (
                    "the tokenizer does not restore the text (it removes capital letters or accents), so bits per "
                    "byte would count bytes that were not predicted"
                )
            ids += found[0]
            nats.append(found[1].nats)
            sizes.append(found[1].sizes)
            unknown += found[1].unknown
        end_bytes = float(parts[-1].end_bytes)
        if len(ids) < dataset.starts[document + 1]:  # the end token, which stands for the line feed of a line
            ids.append(int(dataset.ids[len(ids)]))
            nats.append(np.zeros(1))
            sizes.append(np.array([end_bytes]))
        elif end_bytes and sizes and len(sizes[-1]):
            sizes[-1][-1] += end_bytes
    if ids != dataset.ids.tolist():
        return "the tokenizer's tokens differ with and without offsets, so the cost of unknown words is unknown"
    return np.concatenate(nats), np.concatenate(sizes), unknown


def nats_per_unit(nats: Floats, sizes: Floats, ends: Floats) -> Floats:
    """Nats of each unit, (U,), from those of tokens of these sizes in bytes, (N,).

    A token across the end of a unit is divided in proportion to its bytes.

    >>> nats_per_unit(np.array([1.0, 2.0, 4.0, 0.5]), np.array([2.0, 2.0, 2.0, 0.0]), np.array([3.0, 6.0])).tolist()
    [2.0, 5.5]
    """
    token_ends = np.concatenate([[0.0], np.cumsum(sizes)])
    sums = np.concatenate([[0.0], np.cumsum(nats)])
    # Tokens of no bytes at a unit's end belong to it: the token that ends a document.
    before = np.searchsorted(token_ends, ends, side="right") - 1
    inside = ends - token_ends[before]
    after = np.minimum(before + 1, len(token_ends) - 1)
    width = np.maximum(token_ends[after] - token_ends[before], 1.0)
    return np.diff(sums[before] + inside / width * (sums[after] - sums[before]), prepend=0.0)
