"""The residual stream after each sublayer: the logit lens, and norms.

Logit lens: the model's prediction if the residual stream ended after a sublayer (nostalgebraist 2020, "interpreting
GPT"). Residual stream ─► final norm, recomputed ─► unembedding ─► softmax. Norms are Euclidean: of the residual stream
after each sublayer, and of each sublayer's output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import BadSetting
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import (
    final_hidden,
    output_stack,
    require_mlm_head,
    single_token,
    split_target_and_words,
    sublayers,
)
from clearstory.lens.views import Curve, Grid, Line, Report
from clearstory.lens.views.formatting import whole_percent
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import PromptOptions, Truncation
from clearstory.text.tokenizers import Tokenizer

LensMetric = Literal["answer", "entropy", "kl", "rank"]

METRIC_UNITS: dict[LensMetric, str] = {
    "answer": "probability of the answer",
    "entropy": "bits of entropy",
    "kl": "bits from the answer",
    "rank": "rank of the answer",
}
"""The unit of each metric."""

MAX_LOGITS = 2**23
"""Logits computed at a time: 32 MB in float32. Products of fewer rows are slower."""


@dataclass(frozen=True)
class LensPredictions:
    """Predictions of R rows, the embedding output and each sublayer, at C columns, the selected positions.

    `words` and `probabilities` are the K most likely tokens of each cell. `answers` is the token examined in each
    column: the most likely one at the end, unless one token was given. `answer` is its probability and `rank` its rank,
    from 1; `entropy`, and `kl`, the divergence of the final distribution from the cell's, are in bits.
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


def logit_lens(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    metric: LensMetric = "answer",
    target: str | None = None,
    words: tuple[str, ...] = (),
    columns: tuple[int, ...] = (),
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Grid:
    """The most likely token after each sublayer (rows) at each position (columns), coloured by `metric`.

    The answer is each column's final prediction, or the word of `words`. `columns` selects positions, from 0; all by
    default. For an encoder-decoder the decoder, after `target`. Raises BadSetting for more than one word.
    """
    if metric not in METRIC_UNITS:
        raise BadSetting(f"metric is '{metric}'; give one of {', '.join(METRIC_UNITS)}")
    require_mlm_head(model)
    target, words = split_target_and_words(model, target, words)
    if len(words) > 1:
        raise BadSetting(f"words are {', '.join(words)}; give one, or none for each column's final prediction")
    answer = single_token(tokenizer, words[0]) if words else None
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    predictions = lens_predictions(model, passage, columns or None, answer=answer)
    values: Tensor = getattr(predictions, metric)
    unit = METRIC_UNITS[metric]
    return Grid(
        title="Logit lens: prediction after each sublayer",
        row_labels=predictions.names,
        column_labels=tuple(passage.labels[column] for column in predictions.columns),
        values=tuple(map(tuple, values.tolist())),
        texts=tuple(
            tuple(
                f"{tokenizer.display_token(id)}\n{whole_percent(p)}" for id, p in zip(ids, probabilities, strict=True)
            )
            for ids, probabilities in zip(
                predictions.words[..., 0].tolist(), predictions.probabilities[..., 0].tolist(), strict=True
            )
        ),
        unit=unit if answer is None else unit.replace("the answer", f"‘{tokenizer.display_token(answer)}’"),
        caption=lens_caption(predictions, passage, tokenizer),
    )


def lens_predictions(
    model: LanguageModel,
    passage: Passage,
    columns: Sequence[int] | None = None,
    *,
    top: int = 1,
    answer: int | None = None,
) -> LensPredictions:
    """Predictions after each sublayer at the selected positions; the logits are most of the cost."""
    selected = list(range(len(passage.ids)) if columns is None else columns)
    if not selected or not all(0 <= column < len(passage.ids) for column in selected):
        raise BadSetting(
            f"columns are {selected}, and the text has {len(passage.ids)} tokens; give positions of the text, from 0"
        )
    prefix, stack = output_stack(model)
    steps = sublayers(prefix, stack)
    names = [f"{prefix}embedding_output", *(step.residual for step in steps)]
    with inference_mode(model), record_activations(model, *names) as recorded:
        passage.forward(model)
        hidden = torch.stack([final_hidden(model, recorded[name], passage.ids)[0] for name in names])
        # All rows of a column at once: the unembedding matrix is read from memory once for them.
        size = max(1, MAX_LOGITS // (model.vocab * len(names)))
        groups = [selected[start : start + size] for start in range(0, len(selected), size)]
        parts = [compare_rows(model.logits(hidden[:, group]), min(top, model.vocab), answer) for group in groups]
    answers, *values = zip(*parts, strict=True)
    titles = ("embedding", *(step.title for step in steps))
    return LensPredictions(titles, tuple(selected), torch.cat(answers), *(torch.cat(each, 1) for each in values))


def compare_rows(logits: Float[Tensor, "R C V"], top: int, answer: int | None) -> tuple[Tensor, ...]:
    """For some columns: answers, most likely tokens with probabilities, the answers' probability, rank, entropy, KL.

    Overwrites the logits, and has one other tensor of their size: fresh memory costs more than the arithmetic here.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    largest, words = logits.topk(top)
    x = logits.sub_(largest[..., :1])  # so that exp does not overflow, and what adds most is near 0
    answers = words[-1, :, 0] if answer is None else torch.full(x.shape[1:2], answer, device=x.device)
    answer_x = x.gather(2, answers.expand(len(x), -1)[..., None])
    scratch = torch.empty_like(x)
    rank = torch.gt(x, answer_x, out=scratch).sum(-1).long() + 1
    weights = torch.exp(x, out=scratch)
    total = weights.sum(-1)
    final = weights[-1] / total[-1, :, None]
    log_total = total.log()
    entropy = log_total - weights.mul_(x).sum(-1) / total
    # Σ final · (log final - log p) = cross-entropy - entropy of the final row
    cross = log_total - torch.mul(x, final, out=scratch).sum(-1)
    kl = (cross - cross[-1]).clamp(min=0)
    best = (largest - largest[..., :1] - log_total[..., None]).exp()
    answer_probability = (answer_x[..., 0] - log_total).exp()
    found = (answers, words, best, answer_probability, rank, entropy / math.log(2), kl / math.log(2))
    return tuple(each.cpu() for each in found)


def lens_caption(predictions: LensPredictions, passage: Passage, tokenizer: Tokenizer) -> str:
    """The sublayer from which on the last column's answer is most likely, and the columns decided in the lower half."""
    decided = [stable_from((column == 1).tolist()) for column in predictions.rank.T]
    piece, answer = passage.labels[predictions.columns[-1]], tokenizer.display_token(int(predictions.answers[-1]))
    row = decided[-1]
    where = "is never most likely" if row is None else f"is most likely from “{predictions.names[row]}” on"
    half = sum(1 for each in decided if each is not None and each <= len(predictions.names) // 2)
    return (
        f"After ‘{piece}’ the token ‘{answer}’ {where}; in {half} of {len(decided)} columns the final prediction is "
        "most likely from the lower half of the sublayers on. Small numbers: percent."
    )


def stable_from(flags: Sequence[bool]) -> int | None:
    """The index from which all flags are true to the end; None if the last is false.

    >>> stable_from([True, False, True, True]), stable_from([True, False])
    (2, None)
    """
    if not flags[-1]:
        return None
    return len(flags) - next((back for back, flag in enumerate(reversed(flags)) if not flag), len(flags))


MASSIVE = 4.0
"""A token whose vector is this many times as long as the median is mentioned (Sun et al. 2024, "Massive
Activations")."""


@dataclass(frozen=True)
class StreamNorms:
    """Euclidean norms for T tokens: `residual` of the embedding output and after each of R sublayers, `output` of each
    sublayer's output.
    """

    names: tuple[str, ...]
    residual: Float[Tensor, "N T"]
    output: Float[Tensor, "R T"]


def residual_norms(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """The norm of the residual stream after each sublayer, and the share that each sublayer adds."""
    target = target if Capability.SOURCE in model.capabilities else None
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    norms = measure_norms(model, passage)
    steps = tuple(float(index) for index in range(len(norms.residual)))
    lines = [Line(f"last: {passage.labels[-1]}", steps, tuple(norms.residual[:, -1].tolist()))]
    if len(passage.ids) > 1:
        lines.append(Line(f"first: {passage.labels[0]}", steps, tuple(norms.residual[:, 0].tolist())))
    if len(passage.ids) > 2:
        lines.append(Line("median of all", steps, tuple(norms.residual.median(1).values.tolist()), dashed=True))
    curve = Curve(
        title="Norm of the residual stream after each sublayer",
        lines=tuple(lines),
        x_label=f"sublayer, 0 the embedding, {len(steps) - 1} the last",
        y_label="norm",
        log_y=True,
    )
    shares = norms.output / (norms.residual[:-1] + norms.output).clamp(min=1e-30)
    grid = Grid(
        title="Share of each sublayer's output: ‖ΔE‖ / (‖E‖ + ‖ΔE‖)",
        row_labels=norms.names,
        column_labels=passage.labels,
        values=tuple(map(tuple, shares.tolist())),
        unit="share",
    )
    return Report(
        title="Norms of the residual stream and of the sublayer outputs",
        panels=(curve, grid),
        caption=norms_caption(norms, passage),
    )


def measure_norms(model: LanguageModel, passage: Passage) -> StreamNorms:
    """Norms in the stack that the logits are computed from."""
    prefix, stack = output_stack(model)
    steps = sublayers(prefix, stack)
    with (
        inference_mode(model),
        record_activations(model, f"{prefix}embedding_output", f"{prefix}blocks.**") as recorded,
    ):
        passage.forward(model)
        names = [f"{prefix}embedding_output", *(step.residual for step in steps)]
        residual = torch.stack([recorded[name][0].double().norm(dim=-1).cpu() for name in names])
        output = torch.stack([recorded[step.output][0].double().norm(dim=-1).cpu() for step in steps])
    return StreamNorms(tuple(step.title for step in steps), residual, output)


def norms_caption(norms: StreamNorms, passage: Passage) -> str:
    """The growth of the last token's norm, the sublayer that adds most to it, and a token of much larger norm."""
    first, last = float(norms.residual[0, -1]), float(norms.residual[-1, -1])
    most = int(norms.output[:, -1].argmax())
    text = (
        f"At ‘{passage.labels[-1]}’ the norm goes from {first:,.1f} to {last:,.1f}; the largest output, "
        f"{float(norms.output[most, -1]):,.1f}, is that of “{norms.names[most]}”."
    )
    share = norms.residual / norms.residual.median(1, keepdim=True).values.clamp(min=1e-12)
    row, column = divmod(int(share.argmax()), share.shape[1])
    if len(passage.ids) > 2 and float(share[row, column]) >= MASSIVE:
        text += (
            f" ‘{passage.labels[column]}’ reaches {float(share[row, column]):,.0f} times the median norm: heads "
            "without a relevant key often attend to such tokens (attention sinks)."
        )
    return text
