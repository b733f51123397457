"""Surprise: how many bits each token of a text takes, given those before it. Shannon 1948: −log₂ p.

text ─► windows ─► read ─► predict ─► softmax ─► −log₂ of the token that came · its rank · what was likelier
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.lens.probes.next_token import TokenizerProtocol
from clearstory.lens.probes.x_sources import encode_source_target
from clearstory.lens.views import Cell, Span, HighlightedText
from clearstory.metrics import NATS_PER_BIT
from clearstory.models.base import LanguageModel, TokenBatch, State
from clearstory.models.base import inference_mode, initial_state
from clearstory.models.prompts import bos_or_eos_token_id
from clearstory.evaluation.windows import ShiftedDocuments, Window, iter_windows, window_length_and_stride

STRETCH = 256
"""Tokens read at a time by a model that never forgets; its state is carried over, so no number depends on it."""

LOGITS = 2**22
"""Logits held at once: 32 MB in float64."""


class Spells(TokenizerProtocol, Protocol):
    """The part of a tokenizer that says which characters a token stands for."""

    @property
    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """How many bytes of text each id stands for."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text, and the characters start:stop that each was made from."""

    def lossless(self, text: str) -> bool:
        """Whether the ids spell exactly this text."""


@dataclass(frozen=True)
class TokenSurprisal:
    """How a token was foreseen: its bits, how many are likelier and one, and the likeliest with their probabilities."""

    bits: float
    rank: int
    likeliest: tuple[tuple[int, float], ...]


def surprisal(model: LanguageModel, tokenizer: Spells, text: str, *, target: str | None = None, top: int = 3) -> HighlightedText:
    """The bits of every token of a text, with its rank and the `top` likeliest tokens at its place.

    The text is a document of its own: it begins after the token that texts begin after, and with a tokenizer that has
    none the first token is not foreseen. A text longer than the context is read in overlapping windows, as `evaluate`
    reads: nothing is cut off, and the sums are the same. Of an encoder-decoder the text is the source, and what is told
    are the tokens of the `target` that is written from it.

    Raises BadInput for a text without a token to foresee, or a source without a target.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    both = encode_source_target(model, tokenizer, text, target)
    if both is None:
        ids, places = tokenizer.encode_with_offsets(text)
        begin = bos_or_eos_token_id(tokenizer)
    elif target is None:
        raise BadInput(
            "this model writes a target from a source, and surprise is that of the target's tokens; give the target "
            "too, with --target"
        )
    else:
        text, ids, places, begin = target, both.ids, both.places, both.begin
    told: list[TokenSurprisal | None] = [None] if begin is None and ids else []
    with inference_mode(model):
        told += token_surprisals(model, ids, begin, min(top, model.vocab), None if both is None else both.source)
    scored = [(id, each) for id, each in zip(ids, told, strict=True) if each is not None]
    if not scored:
        raise BadInput("the text is too short: there is no token to foresee; give more of it")
    bits = math.fsum(each.bits for _, each in scored)
    exact = both is None and tokenizer.is_lossless(text)
    size = int(tokenizer.byte_lengths[[id for id, _ in scored]].sum()) if exact else None
    worst, most = max(scored, key=lambda pair: pair[1].bits)
    return HighlightedText(
        title=f"Surprise: bits of each token, given those before it{'' if both is None else ' and the source'}",
        spans=tuple(spans(tokenizer, text, ids, places, told)),
        unit="bits",
        columns=("token", "id", "rank", "likeliest"),
        totals=(
            ("tokens", len(scored)),
            ("bytes", size),
            ("bits", bits),
            ("bits per token", bits / len(scored)),
            ("bits per byte", bits / size if size else None),
        ),
        caption=" ".join(
            (
                summed(bits, len(scored), size, LOSSY if both is None else CONDITIONAL),
                f"Most surprising: ‘{tokenizer.display_token(worst)}’ with {most.bits:.1f} bits, where "
                f"‘{tokenizer.display_token(most.likeliest[0][0])}’ was likeliest.",
                how(model, len(scored), begin) if both is None else "Read whole, after the source.",
            )
        ),
    )


def token_surprisals(
    model: LanguageModel, ids: Sequence[int], begin: int | None, top: int, source: Sequence[int] | None = None
) -> Iterator[TokenSurprisal]:
    """How each token was foreseen, in order; without `begin`, from the second on. After a `source`, all at once."""
    texts = ShiftedDocuments(SimpleNamespace(ids=ids, starts=[0, len(ids)], byte_lengths=None), begin)
    length, stride = window_length_and_stride(model, None, "strided", None)
    weight = next(iter(model.parameters()), None) if isinstance(model, torch.nn.Module) else None
    device = torch.device("cpu") if weight is None else weight.device
    state: State | None = None
    size = texts.n_targets(0)
    if source is not None:
        state, windows = initial_state(model, 1, [source], device), [Window(0, 0, 0, size)] if size else []
    elif length is None:
        windows = [Window(0, at, at, min(at + STRETCH, size)) for at in range(0, size, STRETCH)]
        state = model.init_state(1)
    else:
        windows = list(iter_windows(texts, length, stride, None))
    for window in windows:
        inputs, targets = texts.inputs_and_targets(0, window.start, window.stop)
        hidden, after = model.forward(TokenBatch.from_sequences([inputs], device), state)
        state = None if length is not None or after is None else after.detach()
        known, wanted = hidden[0, window.first_scored - window.start :], targets[window.first_scored - window.start :]
        step = max(1, LOGITS // model.vocab)
        for at in range(0, len(wanted), step):
            yield from ranked(model.logits(known[at : at + step]), wanted[at : at + step], top)


def ranked(logits: Float[Tensor, "N V"], wanted: Sequence[int], top: int) -> Iterator[TokenSurprisal]:
    """From logits to bits, ranks and the likeliest."""
    logs = logits.double().log_softmax(-1).cpu()
    own = logs.gather(1, torch.tensor(wanted)[:, None])
    ranks = (logs > own).sum(1) + 1
    best = logs.topk(top)
    rows = zip(own[:, 0].tolist(), ranks.tolist(), best.indices.tolist(), best.values.exp().tolist(), strict=True)
    for nats, rank, tokens, probabilities in rows:
        yield TokenSurprisal(-nats / NATS_PER_BIT + 0.0, rank, tuple(zip(tokens, probabilities, strict=True)))


def spans(
    tokenizer: Spells,
    text: str,
    ids: Sequence[int],
    places: Sequence[tuple[int, int]],
    told: Sequence[TokenSurprisal | None],
) -> Iterator[Span]:
    """The text in its tokens; what lies between them, and a first token that nothing foresees, has no number.

    Tokens that share a character (bytes of one) stand behind each other, the first of them with the character.
    """
    done = 0
    for id, (start, stop), each in zip(ids, places, told, strict=True):
        if start > done:
            yield Span(text[done:start], None)
            done = start
        piece, own = tokenizer.display_token(id), text[done:stop]
        done = max(done, stop)
        if each is None:
            yield Span(own, None, f"{piece}: nothing stands before it", (piece, id, None, None))
            continue
        likeliest = ", ".join(f"{tokenizer.display_token(other)} {format_probability(p)}" for other, p in each.likeliest)
        note = f"{piece}   {each.bits:.2f} bits   rank {each.rank:,}   likeliest: {likeliest}"
        facts: tuple[Cell, ...] = (piece, id, each.rank, likeliest)
        yield Span(own, each.bits, note, facts)
    if done < len(text):
        yield Span(text[done:], None)


def format_probability(probability: float) -> str:
    """A probability as people say it.

    >>> share(0.4567), share(0.0004)
    ('46%', '0.04%')
    """
    return f"{probability:.0%}" if probability >= 0.1 else f"{100 * probability:.2g}%"


LOSSY = "this tokenizer does not give the text back exactly"
CONDITIONAL = "a target is foreseen from its source"
"""Why there are no bits per byte."""


def summed(bits: float, tokens: int, size: int | None, reason: str) -> str:
    """The totals in words."""
    if size:
        return f"{bits:,.1f} bits for {size:,} bytes in {tokens:,} tokens: {bits / size:.3f} bits per byte."
    return (
        f"{bits:,.1f} bits for {tokens:,} tokens: {bits / tokens:.3f} bits per token; bits per byte would mean "
        f"nothing, since {reason}."
    )


def how(model: LanguageModel, tokens: int, begin: int | None) -> str:
    """How the text was read, and what is not counted."""
    length, stride = window_length_and_stride(model, None, "strided", None)
    first = "" if begin is not None else " The first token is not counted: nothing stands before it."
    if length is None or tokens <= length:
        return f"Read whole.{first}"
    return (
        f"Longer than the model's context of {length:,} tokens, so read in windows that overlap: after the first, each "
        f"token is foreseen from at least {length - stride:,} before it.{first}"
    )
