"""Negative log-likelihood of documents under a causal model, window by window, without truncation.

A document longer than the context is read in windows. With "blocks", windows are adjacent, so the first tokens of each
are predicted from little context. With "strided", windows overlap, so every token after the first window is predicted
from at least `context - stride` tokens before it. Blocks are strided windows whose stride is the context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from clearstory.errors import BadSetting
from clearstory.metrics import IGNORE_INDEX, Score
from clearstory.models.capabilities import Capability, has_capability
from clearstory.models.ngram.tables import NGramTables
from clearstory.text.byte_attribution import ByteAttribution, TokenSequences

if TYPE_CHECKING:  # it imports torch, which tables of n-grams do without
    from clearstory.models.base import LanguageModel

WindowMode = Literal["strided", "blocks"]

Ids = npt.NDArray[np.int64]

CHUNK_TOKENS = 256
"""Tokens of each document read at a time by a model without a context; n-gram models have their own `chunk_tokens`, and
mixtures divide theirs among the documents of a batch. The state is carried over, so results do not depend on it.
"""


@dataclass(frozen=True)
class Window:
    """Inputs start:stop of a document; only targets from `first_scored` on are scored, since earlier ones were scored
    before.
    """

    document: int
    start: int
    first_scored: int
    stop: int


@dataclass(frozen=True, eq=False)
class TokenNll:
    """Negative log-likelihoods of consecutive tokens in nats, (n,): those of `dataset.ids[start : start + n]`."""

    start: int
    nats: npt.NDArray[np.float64]


def score_dataset(
    model: LanguageModel | NGramTables,
    dataset: TokenSequences,
    *,
    context: int | None = None,
    windows: WindowMode = "strided",
    stride: int | None = None,
    start_token_id: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
) -> Score:
    """Sums of nats, tokens and bytes over all documents, each predicted independently. See `iter_scores`."""
    scores = iter_scores(
        model,
        dataset,
        context=context,
        windows=windows,
        stride=stride,
        start_token_id=start_token_id,
        batch_size=batch_size,
        limit=limit,
    )
    return sum(scores, Score())


def iter_scores(
    model: LanguageModel | NGramTables,
    dataset: TokenSequences,
    *,
    context: int | None = None,
    windows: WindowMode = "strided",
    stride: int | None = None,
    start_token_id: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
) -> Iterator[Score]:
    """Sums of nats, tokens and bytes, window by window; their sum is the score of all documents.

    Bytes are those of the text that was read; the windows of a document share them (see `ByteAttribution`).

    Args:
        model: a causal model.
        dataset: documents, each predicted on its own.
        context: the windows' length; the model's context when None.
        windows: "strided" (overlapping) or "blocks" (adjacent).
        stride: tokens from one window's start to the next's; half of the context when None.
        start_token_id: the token each document is read after; where it is None, a document's first token is context
            only: neither its nats nor its bytes are counted.
        batch_size: windows in each forward pass.
        limit: stop after about so many tokens, at the end of a window.

    With windows="blocks", no `start_token_id` and a single document this is nanoGPT's evaluation: block i predicts
    ids[iC + 1 : (i + 1)C + 1] from ids[iC : (i + 1)C].

    Raises BadSetting for an impossible stride or context.
    """
    bytes_of = ByteAttribution(dataset)
    parts = iter_token_nll(
        model,
        dataset,
        context=context,
        windows=windows,
        stride=stride,
        start_token_id=start_token_id,
        batch_size=batch_size,
        limit=limit,
    )
    for part in parts:
        stop = part.start + len(part.nats)
        yield Score(nats=float(part.nats.sum()), tokens=len(part.nats), bytes=bytes_of(part.start, stop))


def iter_token_nll(
    model: LanguageModel | NGramTables,
    dataset: TokenSequences,
    *,
    context: int | None = None,
    windows: WindowMode = "strided",
    stride: int | None = None,
    start_token_id: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
) -> Iterator[TokenNll]:
    """Negative log-likelihood of every token, window by window, with its position; see `iter_scores`."""
    length, stride = window_length_and_stride(model, context, windows, stride)
    if batch_size < 1:
        raise BadSetting(f"batch_size is {batch_size}; it must be at least 1")
    documents = ShiftedDocuments(dataset, start_token_id)
    if length is None:
        yield from score_whole_documents(model, documents, batch_size, limit)
        return
    for batch in batch_windows(iter_windows(documents, length, stride, limit), batch_size):
        yield from score_windows(model, documents, batch, None)[0]


def window_length_and_stride(
    model: LanguageModel | NGramTables, context: int | None, windows: WindowMode, stride: int | None
) -> tuple[int | None, int]:
    """Length and stride of the windows in tokens; (None, 0) for a model without a context, which processes whole
    documents.

    Raises BadSetting for values that are impossible or contradict each other.
    """
    if windows not in ("strided", "blocks"):
        raise BadSetting(f"windows is {windows!r}; choose 'strided' or 'blocks'")
    if context is not None and model.context is not None and context > model.context:
        raise BadSetting(f"windows of {context:,} tokens do not fit the model's context of {model.context:,}")
    length = model.context if context is None else context
    if length is None and stride is not None:
        raise BadSetting(
            f"stride is {stride}, but this model has unlimited context: it processes whole documents; leave it out"
        )
    if length is None:
        return None, 0
    if length < 1:
        raise BadSetting(f"windows of {length} tokens are empty; the length must be at least 1")
    if windows == "blocks":
        if stride not in (None, length):
            raise BadSetting(f"blocks are adjacent and stride is {stride}; leave it out, or choose strided windows")
        return length, length
    chosen = max(1, length // 2) if stride is None else stride
    if not 1 <= chosen <= length:
        raise BadSetting(f"stride is {chosen}; it must lie between 1 and the window's {length:,} tokens")
    return length, chosen


class ShiftedDocuments:
    """Documents as inputs and targets: the input at position t predicts the target at position t.

    With `start_token_id`, a document's first target is its first token, else its second.
    """

    def __init__(self, dataset: TokenSequences, start_token_id: int | None) -> None:
        self.dataset = dataset
        self.start_token_id = start_token_id

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.dataset.starts) - 1

    def n_targets(self, document: int) -> int:
        """Number of targets of a document."""
        count = int(self.dataset.starts[document + 1]) - int(self.dataset.starts[document])
        return max(0, count - (self.start_token_id is None))

    def first_target(self, document: int) -> int:
        """Index of a document's first target in the dataset's ids."""
        return int(self.dataset.starts[document]) + (self.start_token_id is None)

    def inputs_and_targets(self, document: int, start: int, stop: int) -> tuple[list[int], list[int]]:
        """Inputs and targets start:stop of a document, stop above start."""
        inputs, targets = self.arrays(document, start, stop)
        return inputs.tolist(), targets.tolist()

    def arrays(self, document: int, start: int, stop: int) -> tuple[Ids, Ids]:
        """As `inputs_and_targets`, each (stop − start,)."""
        first = self.first_target(document)
        targets = np.asarray(self.dataset.ids[first + start : first + stop], np.int64)
        if self.start_token_id is not None and start == 0:
            before = self.start_token_id
        else:
            before = int(self.dataset.ids[first + start - 1])
        return np.concatenate([[before], targets[:-1]]), targets


def iter_windows(documents: ShiftedDocuments, length: int, stride: int, limit: int | None) -> Iterator[Window]:
    """Every window of every document, in order, until `limit` tokens are to be scored."""
    n_scored = 0
    for document in range(len(documents)):
        size = documents.n_targets(document)
        start = first_scored = 0
        while first_scored < size:
            stop = min(start + length, size)
            yield Window(document, start, first_scored, stop)
            n_scored += stop - first_scored
            if limit is not None and n_scored >= limit:
                return
            first_scored, start = stop, start + stride


def batch_windows(windows: Iterator[Window], batch_size: int) -> Iterator[list[Window]]:
    """Windows in batches of similar lengths, to reduce padding."""
    waiting: dict[int, list[Window]] = {}
    for window in windows:
        # Short documents share a batch with others whose lengths have the same power of two.
        key = (window.stop - window.start).bit_length()
        group = waiting.setdefault(key, [])
        group.append(window)
        if len(group) == batch_size:
            yield waiting.pop(key)
    yield from waiting.values()


def score_windows(
    model: LanguageModel | NGramTables, documents: ShiftedDocuments, windows: Sequence[Window], state: Any
) -> tuple[list[TokenNll], Any]:
    """Negative log-likelihoods of one batch of windows after `state`, and the state after them."""
    longest = max(window.stop - window.start for window in windows)
    ids, targets = np.zeros((len(windows), longest), np.int64), np.full((len(windows), longest), IGNORE_INDEX)
    lengths = np.array([window.stop - window.start for window in windows])
    for row, (window, length) in enumerate(zip(windows, lengths.tolist(), strict=True)):
        inputs, wanted = documents.arrays(window.document, window.start, window.stop)
        ids[row, :length] = inputs
        n_context = window.first_scored - window.start
        targets[row, n_context:length] = wanted[n_context:]
    padded = None if (lengths == longest).all() else lengths
    if isinstance(model, NGramTables):
        nats, state = model.token_nll(ids, padded, targets, state)
    else:
        from clearstory.evaluation.forward_pass import token_nll  # imports torch

        nats, state = token_nll(model, ids, padded, targets, state)
    # Summed in float64: in fp32 the 10 millionth token would be rounded to whole nats.
    values = nats.astype(np.float64)
    parts = []
    for row, (window, length) in enumerate(zip(windows, lengths.tolist(), strict=True)):
        start = documents.first_target(window.document) + window.first_scored
        parts.append(TokenNll(start, values[row, window.first_scored - window.start : length]))
    return parts, state


def score_whole_documents(
    model: LanguageModel | NGramTables, documents: ShiftedDocuments, batch_size: int, limit: int | None
) -> Iterator[TokenNll]:
    """Scores documents in parallel with a model without a context, chunk by chunk, carrying each document's state
    over.
    """
    n_scored = 0
    # One window for each document puts documents of similar lengths into a batch.
    whole = (Window(d, 0, 0, size) for d in range(len(documents)) if (size := documents.n_targets(d)))
    for group in batch_windows(whole, batch_size):
        chunk = document_chunk(model, len(group))
        state: Any = model.init_state(len(group))
        for start in range(0, max(window.stop for window in group), chunk):
            unfinished = [index for index, window in enumerate(group) if start < window.stop]
            if len(unfinished) < len(group):
                group, state = [group[index] for index in unfinished], state.select(unfinished)
            chunks = [Window(each.document, start, start, min(start + chunk, each.stop)) for each in group]
            parts, state = score_windows(model, documents, chunks, state)
            state = state.detach()
            yield from parts
            n_scored += sum(len(part.nats) for part in parts)
            if limit is not None and n_scored >= limit:
                return


def document_chunk(model: LanguageModel | NGramTables, documents: int) -> int:
    """Tokens of each document per chunk, for a model without a context."""
    if has_capability(model, Capability.NGRAM_COUNTS):
        return int(cast(Any, model).chunk_tokens)
    if has_capability(model, Capability.EXPERTS):
        return max(CHUNK_TOKENS, int(cast(Any, model).chunk_tokens) // documents)
    return CHUNK_TOKENS


def has_targets(dataset: TokenSequences, start_token_id: int | None) -> bool:
    """Whether any token of a dataset can be predicted."""
    if start_token_id is not None:
        return bool(len(dataset.ids))
    return bool((np.diff(dataset.starts) > 1).any())
