"""Surprisal: −log₂ p of each token of a text given the tokens before it, in bits. Shannon 1948.

text ─► windows ─► forward ─► logits ─► softmax ─► −log₂ p of the actual token, its rank, more likely tokens
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadInput, BadSetting
from clearstory.evaluation.windows import ShiftedDocuments, Window, iter_windows, window_length_and_stride
from clearstory.lens.hooks.activations import model_device
from clearstory.lens.hooks.passage import encode_source_target, start_before
from clearstory.lens.views import Cell, HighlightedText, Span
from clearstory.lens.views.formatting import format_probability
from clearstory.metrics import NATS_PER_BIT
from clearstory.models.base import LanguageModel, State, TokenBatch, inference_mode, initial_state
from clearstory.models.prompts import PromptOptions, encode_prompt
from clearstory.text.tokenizers import Tokenizer

SEGMENT_TOKENS = 256
"""Tokens processed at a time by a model without a context limit; the state is carried over, so results are equal."""

MAX_LOGITS = 2**22
"""Logits computed at a time: 32 MB in float64."""

NOT_LOSSLESS = "this tokenizer does not decode to exactly the same text"
CONDITIONAL = "the probability of a target is conditional on its source"
"""Reasons why there are no bits per byte."""


@dataclass(frozen=True)
class TokenSurprisal:
    """A token's surprisal in bits, its rank from 1, and the most likely tokens at its position with probabilities."""

    bits: float
    rank: int
    likeliest: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ReadToken:
    """A token that was read: its id, its characters in the text (None for none), and its surprisal if it is counted."""

    id: int
    span: tuple[int, int] | None
    surprisal: TokenSurprisal | None = None


def surprisal(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    top: int = 3,
    prompt: PromptOptions = PromptOptions(),
) -> HighlightedText:
    """The surprisal of every token of a text in bits, with its rank and the `top` most likely tokens at its position.

    The text is one document after the start token; without a start token its first token has no
    surprisal. Special tokens and those of a chat template are input tokens but not counted. A text that exceeds the
    context is evaluated in overlapping windows, as in `evaluate`, with the same sums. For an encoder-decoder the text
    is the source, and the surprisals are those of the `target`.

    Raises BadInput for a text without a token to predict, and for a source without a target.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 token")
    pair = encode_source_target(model, tokenizer, text, target, prompt=prompt)
    first: list[ReadToken] = []
    if pair is None:
        encoded = encode_prompt(model, tokenizer, text, prompt)
        ids, spans, starts = list(encoded.ids), list(encoded.spans), start_before(tokenizer, encoded)
        start = starts[0] if starts else None
        if encoded.special and encoded.special[0]:
            start = ids.pop(0)
            first = [ReadToken(start, spans.pop(0))]
    elif target is None:
        raise BadInput(
            "this model generates a target from a source, and the surprisal is that of the target tokens; give the "
            "target with --target"
        )
    else:
        text, ids, spans, start = target, pair.ids, list(pair.offsets), pair.start
    surprisals: list[TokenSurprisal | None] = [None] if start is None and ids else []
    with inference_mode(model):
        source = None if pair is None else pair.source
        surprisals += token_surprisals(model, ids, start, min(top, model.vocab), source)
    tokens = first + [
        ReadToken(id, span, None if span is None else each)
        for id, span, each in zip(ids, spans, surprisals, strict=True)
    ]
    scored = [(each.id, each.surprisal) for each in tokens if each.surprisal is not None]
    if not scored:
        raise BadInput("the text is too short: there is no token to predict; give a longer text")
    bits = math.fsum(each.bits for _, each in scored)
    has_bytes = pair is None and tokenizer.is_lossless(text)
    size = bytes_scored(text, tokens) if has_bytes else None
    worst, most = max(scored, key=lambda scored_token: scored_token[1].bits)
    captions = (
        totals_caption(bits, len(scored), size, NOT_LOSSLESS if pair is None else CONDITIONAL),
        f"Highest surprisal: ‘{tokenizer.display_token(worst)}’ with {most.bits:.1f} bits, where "
        f"‘{tokenizer.display_token(most.likeliest[0][0])}’ was most likely.",
        windows_caption(model, len(scored), start) if pair is None else "Computed in one window, given the source.",
    )
    return HighlightedText(
        title=f"Surprisal of each token{'' if pair is None else ', given the source'}",
        spans=tuple(token_spans(tokenizer, text, tokens)),
        unit="bits",
        columns=("token", "id", "rank", "likeliest"),
        totals=(
            ("tokens", len(scored)),
            ("bytes", size),
            ("bits", bits),
            ("bits per token", bits / len(scored)),
            ("bits per byte", bits / size if size else None),
        ),
        caption=" ".join(captions),
    )


def token_surprisals(
    model: LanguageModel, ids: Sequence[int], start: int | None, top: int, source: Sequence[int] | None = None
) -> Iterator[TokenSurprisal]:
    """The surprisal of each token, in order; without `start`, from the second on. After a `source`, in one window."""
    documents = ShiftedDocuments(SimpleNamespace(ids=ids, starts=[0, len(ids)], byte_lengths=None), start)
    length, stride = window_length_and_stride(model, None, "strided", None)
    device = model_device(model)
    state: State | None = None
    size = documents.n_targets(0)
    if source is not None:
        state, windows = initial_state(model, 1, [source], device), [Window(0, 0, 0, size)] if size else []
    elif length is None:
        windows = [Window(0, at, at, min(at + SEGMENT_TOKENS, size)) for at in range(0, size, SEGMENT_TOKENS)]
        state = model.init_state(1)
    else:
        windows = list(iter_windows(documents, length, stride, None))
    for window in windows:
        inputs, targets = documents.inputs_and_targets(0, window.start, window.stop)
        hidden, after = model.forward(TokenBatch.from_sequences([inputs], device), state)
        state = None if length is not None or after is None else after.detach()
        first = window.first_scored - window.start
        scored, wanted = hidden[0, first:], targets[first:]
        step = max(1, MAX_LOGITS // model.vocab)
        for at in range(0, len(wanted), step):
            yield from rank_targets(model.logits(scored[at : at + step]), wanted[at : at + step], top)


def rank_targets(logits: Float[Tensor, "N V"], targets: Sequence[int], top: int) -> Iterator[TokenSurprisal]:
    """Surprisal, rank and most likely tokens from logits."""
    logs = logits.double().log_softmax(-1).cpu()
    target_logs = logs.gather(1, torch.tensor(targets)[:, None])
    ranks = (logs > target_logs).sum(1) + 1
    best = logs.topk(top)
    rows = zip(
        target_logs[:, 0].tolist(), ranks.tolist(), best.indices.tolist(), best.values.exp().tolist(), strict=True
    )
    for nats, rank, tokens, probabilities in rows:
        yield TokenSurprisal(-nats / NATS_PER_BIT + 0.0, rank, tuple(zip(tokens, probabilities, strict=True)))


def bytes_scored(text: str, tokens: Sequence[ReadToken]) -> int:
    """Number of bytes of the tokens with a surprisal: all except those of a first token without one."""
    unscored = [each.span for each in tokens if each.span is not None and each.surprisal is None]
    return len(text.encode()) - sum(len(text[start:stop].encode()) for start, stop in unscored)


def token_spans(tokenizer: Tokenizer, text: str, tokens: Sequence[ReadToken]) -> Iterator[Span]:
    """The text as one span per token; text between tokens, special tokens, and a first token without surprisal, have no
    value.

    Of tokens that share a character (its bytes), the first has the character. A special token is shown by its name.
    """
    done = 0
    for token in tokens:
        id, each = token.id, token.surprisal
        if token.span is None:
            name = tokenizer.display_token(id)
            yield Span(name, None, f"{name}: not part of the text, and not counted", (name, id, None, None))
            continue
        start, stop = token.span
        if start > done:
            yield Span(text[done:start], None)
            done = start
        piece, span_text = tokenizer.display_token(id), text[done:stop]
        done = max(done, stop)
        if each is None:
            yield Span(span_text, None, f"{piece}: no token before it", (piece, id, None, None))
            continue
        likeliest = ", ".join(
            f"{tokenizer.display_token(other)} {format_probability(p)}" for other, p in each.likeliest
        )
        note = f"{piece}   {each.bits:.2f} bits   rank {each.rank:,}   most likely: {likeliest}"
        facts: tuple[Cell, ...] = (piece, id, each.rank, likeliest)
        yield Span(span_text, each.bits, note, facts)
    if done < len(text):
        yield Span(text[done:], None)


def totals_caption(bits: float, tokens: int, size: int | None, reason: str) -> str:
    """The total in bits, per byte or per token."""
    if size:
        return f"{bits:,.1f} bits for {size:,} bytes in {tokens:,} tokens: {bits / size:.3f} bits per byte."
    return (
        f"{bits:,.1f} bits for {tokens:,} tokens: {bits / tokens:.3f} bits per token; bits per byte are not defined, "
        f"since {reason}."
    )


def windows_caption(model: LanguageModel, tokens: int, start: int | None) -> str:
    """Description of the windows of the text, and of tokens that are not counted."""
    length, stride = window_length_and_stride(model, None, "strided", None)
    first = "" if start is not None else " The first token is not counted: no token is before it."
    if length is None or tokens <= length:
        return f"Read whole.{first}"
    return (
        f"Longer than the model's context of {length:,} tokens, so it is processed in overlapping windows: after the "
        "first, each "
        f"token is predicted from at least {length - stride:,} tokens before it.{first}"
    )
