"""Logit lens: what the model would say if its stream ended here. nostalgebraist 2020, "interpreting GPT".

after every step of every block: stream ─► last norm, computed anew ─► unembedding ─► softmax
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import split_target_and_words, require_mlm_head, final_hidden, sublayers, single_token, output_stack
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.views import Grid
from clearstory.models.prompts import Truncation, inference_mode
from clearstory.text.tokenizers import Tokenizer

LensMetric = Literal["answer", "entropy", "kl", "rank"]

METRIC_UNITS: dict[LensMetric, str] = {
    "answer": "probability of the answer",
    "entropy": "bits of entropy",
    "kl": "bits from the answer",
    "rank": "rank of the answer",
}
"""What the numbers of each setting are."""

LOGITS = 2**22
"""Logits held at once: 16 MB in float32."""


@dataclass(frozen=True)
class LensPredictions:
    """R rows, one for the foot of the stream and one for each step, over C columns, one for each chosen place.

    `words` and `probabilities` are the K likeliest in each cell. `answers` are the words asked about: of each column
    the likeliest at the end, unless one word was given. `answer` is their probability, `rank` how many are likelier,
    and one; `entropy` and `kl`, the divergence of the final distribution from the cell's, are in bits.
    """

    names: tuple[str, ...]
    columns: tuple[int, ...]
    answers: Int[Tensor, "C"]
    words: Int[Tensor, "R C K"]
    probabilities: Float[Tensor, "R C K"]
    answer: Float[Tensor, "R C"]
    rank: Int[Tensor, "R C"]
    entropy: Float[Tensor, "R C"]
    kl: Float[Tensor, "R C"]


def lens_predictions(
    model: Any, read: Passage, columns: Sequence[int] | None = None, *, top: int = 1, answer: int | None = None
) -> LensPredictions:
    """What the stream would say after each step, at the chosen places only: logits are most of the cost."""
    chosen = list(range(len(read.ids)) if columns is None else columns)
    if not chosen or not all(0 <= column < len(read.ids) for column in chosen):
        raise BadSetting(f"columns are {chosen}, and the text has {len(read.ids)} tokens; give some of those, from 0")
    prefix, stack = output_stack(model)
    steps = sublayers(prefix, stack)
    taps = [f"{prefix}embedding_output", *(step.after for step in steps)]
    with inference_mode(model), record_activations(model, *taps) as seen:
        read.hidden(model)
        ends = torch.stack([final_hidden(model, seen[tap], read.ids)[0] for tap in taps])
        # All rows of a column at once: the unembedding's matrix is read from memory once for them.
        size = max(1, LOGITS // (model.vocab * len(taps)))
        groups = [chosen[at : at + size] for at in range(0, len(chosen), size)]
        parts = [compared(model.logits(ends[:, group]), min(top, model.vocab), answer) for group in groups]
    answers, *told = zip(*parts, strict=True)
    names = ("embedding", *(step.name for step in steps))
    return LensPredictions(names, tuple(chosen), torch.cat(answers), *(torch.cat(each, 1) for each in told))


def compared(logits: Float[Tensor, "R C V"], top: int, answer: int | None) -> tuple[Tensor, ...]:
    """What some columns say: answers, likeliest words, their probabilities, the answer's, its rank, entropy, KL."""
    logs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
    shares = logs.exp()
    answers = logs[-1].argmax(-1) if answer is None else torch.full(logs.shape[1:2], answer, device=logs.device)
    best = shares.topk(top)
    own = logs.gather(2, answers.expand(len(logs), -1)[..., None])
    rank = (logs > own).sum(2) + 1
    entropy = -(shares * logs).sum(2) / math.log(2)
    kl = ((logs[-1] - logs) * shares[-1]).sum(2).clamp(min=0) / math.log(2)
    found = (answers, best.indices, best.values, own[..., 0].exp(), rank, entropy, kl)
    return tuple(each.cpu() for each in found)


def logit_lens(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    metric: LensMetric = "answer",
    target: str | None = None,
    words: tuple[str, ...] = (),
    columns: tuple[int, ...] = (),
    truncate: Truncation | None = None,
) -> Grid:
    """The likeliest word after each step (rows) at each token (columns), coloured by what `metric` says.

    The word asked about is each column's final answer, or the one of `words`. `columns`: only at these tokens, from 0,
    which costs as little as they are few; all when none is named. Of an encoder-decoder this is its decoder, after
    `target`. Raises BadSetting for more words than one.
    """
    if metric not in METRIC_UNITS:
        raise BadSetting(f"metric is '{metric}'; give one of {', '.join(METRIC_UNITS)}")
    require_mlm_head(model)
    target, words = split_target_and_words(model, target, words)
    if len(words) > 1:
        raise BadSetting(f"words are {', '.join(words)}, and the lens follows one; give one, or none for the answer")
    answer = single_token(tokenizer, words[0]) if words else None
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    seen = lens_predictions(model, read, columns or None, answer=answer)
    numbers: Tensor = getattr(seen, metric)
    return Grid(
        title="Logit lens: what the stream would say after each step",
        row_labels=seen.names,
        column_labels=tuple(read.labels[column] for column in seen.columns),
        values=tuple(map(tuple, numbers.tolist())),
        texts=tuple(
            tuple(f"{tokenizer.display_token(id)}\n{percent(p)}" for id, p in zip(ids, probabilities, strict=True))
            for ids, probabilities in zip(seen.words[..., 0].tolist(), seen.probabilities[..., 0].tolist(), strict=True)
        ),
        unit=METRIC_UNITS[metric] if answer is None else METRIC_UNITS[metric].replace("the answer", f"‘{tokenizer.display_token(answer)}’"),
        caption=look(seen, read, tokenizer),
    )


def percent(probability: float) -> str:
    """A probability in as few characters as can be.

    >>> percent(0.123), percent(0.0012)
    ('12', '<1')
    """
    return "<1" if probability < 0.005 else f"{100 * probability:.0f}"


def look(seen: LensPredictions, read: Passage, tokenizer: Tokenizer) -> str:
    """From which step on the last token's answer is the likeliest, and for how many tokens that is decided early."""
    settled = [settles((column == 1).tolist()) for column in seen.rank.T]
    piece, answer = read.labels[seen.columns[-1]], tokenizer.display_token(int(seen.answers[-1]))
    place = settled[-1]
    where = "is never the likeliest" if place is None else f"is the likeliest from “{seen.names[place]}” on"
    half = sum(1 for each in settled if each is not None and each <= len(seen.names) // 2)
    return (
        f"After ‘{piece}’ the word ‘{answer}’ {where}; in {half} of {len(settled)} columns the word at the end leads "
        "from the lower half of the stream on. In small: percent."
    )


def settles(leads: Sequence[bool]) -> int | None:
    """The place from which all are true to the end; None where the last is not.

    >>> settles([True, False, True, True]), settles([True, False])
    (2, None)
    """
    if not leads[-1]:
        return None
    return len(leads) - next((back for back, lead in enumerate(reversed(leads)) if not lead), len(leads))
