"""Scoring: how well a model foresees whole texts, window by window, nothing cut off.

A text longer than the context is read in windows. Blocks stand side by side, so the first tokens of each are foreseen
from little; strided windows overlap, so every token after the first window is foreseen from at least
`context - stride` tokens before it. Blocks are strided windows whose stride is the context.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from clearstory.errors import BadSetting
from clearstory.metrics import Score
from clearstory.models.base import IGNORE_INDEX, TokenSequences, LanguageModel, TokenBatch, State

Windows = Literal["strided", "blocks"]

STRETCH = 256
"""Tokens read at a time by a model that never forgets, where it has no `stretch` of its own: its state is carried over,
so no number depends on it.
"""


@dataclass(frozen=True)
class Window:
    """Inputs begin:end of one document; targets from `new` on are scored, those before have been already."""

    document: int
    begin: int
    new: int
    end: int


@dataclass(frozen=True, eq=False)
class TokenNll:
    """What some tokens of a document cost: `nats` (n,) of `rows.ids[place : place + n]`."""

    place: int
    ids: Sequence[int]
    nats: npt.NDArray[np.float64]


def score_dataset(
    model: LanguageModel,
    rows: TokenSequences,
    *,
    context: int | None = None,
    windows: Windows = "strided",
    stride: int | None = None,
    begin: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
) -> Score:
    """The sums of nats, tokens and bytes over all documents; none sees another. See `iter_scores`."""
    parts = iter_scores(
        model,
        rows,
        context=context,
        windows=windows,
        stride=stride,
        begin=begin,
        batch_size=batch_size,
        limit=limit,
    )
    return sum(parts, Score())


def iter_scores(
    model: LanguageModel,
    rows: TokenSequences,
    *,
    context: int | None = None,
    windows: Windows = "strided",
    stride: int | None = None,
    begin: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
) -> Iterator[Score]:
    """The sums of nats, tokens and bytes, batch by batch, to be added up; no document sees another.

    `context` is the window's length, the model's own when None. `begin` is the token each document is read after; where
    it is None, a document's first token is context only: neither its nats nor its bytes are counted. `limit` stops
    after about so many tokens, at the end of a window. With windows="blocks", no `begin` and a single document this is
    nanoGPT's way: block i foresees ids[iC + 1 : (i + 1)C + 1] from ids[iC : (i + 1)C].

    Raises BadSetting for a stride or context that cannot be.
    """
    sizes = np.asarray(rows.byte_lengths)
    parts = iter_token_nll(
        model,
        rows,
        context=context,
        windows=windows,
        stride=stride,
        begin=begin,
        batch_size=batch_size,
        limit=limit,
    )
    for part in parts:
        ids = np.asarray(part.ids, dtype=np.int64)
        yield Score(nats=float(part.nats.sum()), tokens=len(ids), bytes=int(sizes[ids].sum()))


def iter_token_nll(
    model: LanguageModel,
    rows: TokenSequences,
    *,
    context: int | None = None,
    windows: Windows = "strided",
    stride: int | None = None,
    begin: int | None = None,
    batch_size: int = 8,
    limit: int | None = None,
) -> Iterator[TokenNll]:
    """The nats of every token, window by window, each with its place in the text; see `iter_scores`."""
    length, stride = window_length_and_stride(model, context, windows, stride)
    if batch_size < 1:
        raise BadSetting(f"batch_size is {batch_size}; it must be at least 1")
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if weight is None else weight.device
    texts = Texts(rows, begin)
    if length is None:
        yield from score_whole(model, texts, batch_size, device, limit)
        return
    for batch in batches(iter_windows(texts, length, stride, limit), batch_size):
        yield from score_batch(model, texts, batch, device, None)[0]


def window_length_and_stride(
    model: LanguageModel, context: int | None, windows: Windows, stride: int | None
) -> tuple[int | None, int]:
    """Length and stride of the windows; the length is None where the model reads a whole text as one."""
    if windows not in ("strided", "blocks"):
        raise BadSetting(f"windows is {windows!r}; choose 'strided' or 'blocks'")
    if context is not None and model.context is not None and context > model.context:
        raise BadSetting(f"windows of {context:,} tokens do not fit the model's context of {model.context:,}")
    length = model.context if context is None else context
    if length is None and stride is not None:
        raise BadSetting(f"stride is {stride}, and this model never forgets: it reads a text as one; leave stride out")
    if length is None:
        return None, 0
    if length < 1:
        raise BadSetting(f"a window of {length} tokens holds nothing; it must be at least 1")
    if windows == "blocks":
        if stride not in (None, length):
            raise BadSetting(
                f"blocks stand side by side and stride is {stride}; leave it out, or choose strided windows"
            )
        return length, length
    chosen = max(1, length // 2) if stride is None else stride
    if not 1 <= chosen <= length:
        raise BadSetting(f"stride is {chosen}; it must lie between 1 and the window's {length:,} tokens")
    return length, chosen


class Texts:
    """Documents as inputs and targets: input t foresees target t."""

    def __init__(self, rows: TokenSequences, begin: int | None) -> None:
        self.rows = rows
        self.begin = begin

    def __len__(self) -> int:
        """How many documents there are."""
        return len(self.rows.starts) - 1

    def size(self, document: int) -> int:
        """How many of its tokens are scored."""
        count = int(self.rows.starts[document + 1]) - int(self.rows.starts[document])
        return max(0, count - (self.begin is None))

    def place(self, document: int) -> int:
        """Where the first of its tokens that is scored stands in the row of all ids."""
        return int(self.rows.starts[document]) + (self.begin is None)

    def part(self, document: int, begin: int, end: int) -> tuple[list[int], list[int]]:
        """Inputs and targets begin:end."""
        start = self.place(document)
        targets = [int(id) for id in self.rows.ids[start + begin : start + end]]
        before = self.begin if self.begin is not None and begin == 0 else int(self.rows.ids[start + begin - 1])
        return [before, *targets[:-1]], targets


def iter_windows(texts: Texts, length: int, stride: int, limit: int | None) -> Iterator[Window]:
    """Every window of every document, in order, until `limit` tokens are to be scored."""
    scored = 0
    for document in range(len(texts)):
        size = texts.size(document)
        begin = done = 0
        while done < size:
            end = min(begin + length, size)
            yield Window(document, begin, done, end)
            scored += end - done
            if limit is not None and scored >= limit:
                return
            done, begin = end, begin + stride


def batches(windows: Iterator[Window], size: int) -> Iterator[list[Window]]:
    """Windows to be read together: of equal length as far as they come so, since padding is work for nothing."""
    waiting: dict[int, list[Window]] = {}
    for window in windows:
        # Short documents share a batch with those of about their length, in steps of a power of two.
        group = waiting.setdefault((window.end - window.begin).bit_length(), [])
        group.append(window)
        if len(group) == size:
            yield waiting.pop((window.end - window.begin).bit_length())
    yield from waiting.values()


@torch.no_grad()
def score_batch(
    model: LanguageModel, texts: Texts, windows: Sequence[Window], device: torch.device, state: State | None
) -> tuple[list[TokenNll], State | None]:
    """One batch, read after what `state` remembers."""
    inputs: list[list[int]] = []
    wanted: list[list[int]] = []
    for window in windows:
        read, targets = texts.part(window.document, window.begin, window.end)
        inputs.append(read)
        wanted.append([IGNORE_INDEX] * (window.new - window.begin) + targets[window.new - window.begin :])
    tokens = TokenBatch.from_sequences(inputs, device)
    longest = max(map(len, wanted))
    padded = [row + [IGNORE_INDEX] * (longest - len(row)) for row in wanted]
    nats, state = model.token_nll(tokens, torch.tensor(padded, device=device), state)
    # Sums are taken in float64: in fp32 the 10 millionth token would be rounded to whole nats.
    every = nats.double().cpu().numpy()
    found = []
    for row, (window, ids) in enumerate(zip(windows, wanted, strict=True)):
        known = window.new - window.begin
        found.append(TokenNll(texts.place(window.document) + window.new, ids[known:], every[row, known : len(ids)]))
    return found, state


def score_whole(
    model: LanguageModel, texts: Texts, batch_size: int, device: torch.device, limit: int | None
) -> Iterator[TokenNll]:
    """Documents side by side by a model that never forgets: stretch by stretch, each one's state carried over."""
    stretch, scored = int(getattr(model, "stretch", STRETCH)), 0
    # A window that is a whole document sorts documents of like lengths together.
    whole = (Window(d, 0, 0, size) for d in range(len(texts)) if (size := texts.size(d)))
    for group in batches(whole, batch_size):
        state: State | None = model.init_state(len(group))
        for begin in range(0, max(document.end for document in group), stretch):
            going = [place for place, document in enumerate(group) if begin < document.end]
            if len(going) < len(group):
                assert state is not None
                group, state = [group[place] for place in going], state.select(going)
            parts = [Window(each.document, begin, begin, min(begin + stretch, each.end)) for each in group]
            found, after = score_batch(model, texts, parts, device, state)
            assert after is not None
            state = after.detach()
            yield from found
            scored += sum(len(each.ids) for each in found)
            if limit is not None and scored >= limit:
                return
