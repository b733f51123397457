"""Contributions: a logit as the sum of what stands at the foot of the stream and of all that the steps added to it.

foot + heads + attention's biases + feed-forwards ─► last norm, its scale as computed ─► · word's vector ─► logit
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.linearised_norms import ResidualPath, residual_path, residual_path_activations, output_vectors
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import split_target_and_words, single_token, output_stack
from clearstory.lens.hooks.activations import unwrap_model, record_activations
from clearstory.lens.views import Grid, Table, Report
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.prompts import Truncation, prepare_prompt, inference_mode
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class LogitPart:
    """What a part of a logit comes from. `column` says which part of its layer it is: a head (h), a head that looks
    across (x), the bias of either, or the feed-forward (ff).
    """

    name: str
    layer: int | None = None
    column: str = ""


@dataclass(frozen=True)
class LogitAttribution:
    """P parts of N words' logits at one place; in float64 they add up to `logits`, the model's own, to rounding."""

    parts: tuple[LogitPart, ...]
    values: Float[Tensor, "P N"]
    logits: Float[Tensor, "N"]


def attribute_logits(model: Any, read: Passage, words: Sequence[int] | None = None, place: int = -1) -> LogitAttribution:
    """Every part of the logits of some words (of the likeliest, without any) after one token.

    Norms are taken with the scale that they had: the parts say what was added, not what would be without it. In models
    whose norms follow their steps that is so of every norm that a part still passes. Raises CannotDo for an encoder,
    whose head for words bends what the stream says: its logits are no sum.
    """
    model = unwrap_model(model)
    if isinstance(model, Encoder):
        raise CannotDo(
            "an encoder's head bends what its stream says (gelu) before words are held against it, so its logits are "
            "no sum of what the steps added; look at --view ablation or lens"
        )
    place = range(len(read.ids))[place]
    prefix, _ = output_stack(model)
    answers = [f"{prefix}blocks.*.{kind}.head_outputs" for kind in ("attention", "cross_attention")]
    answers = answers[: 1 + bool(prefix)]
    with inference_mode(model), record_activations(model, *residual_path_activations(model), *answers) as seen:
        hidden = read.hidden(model)[place]
        logits = model.logits(hidden)
        ids = [int(logits.argmax())] if words is None else list(words)
        way = residual_path(model, seen, place)
        vectors = output_vectors(model, ids)
        width = vectors.shape[1]
        known = [
            *(
                (part, way.carry(number, vector) @ vectors.T)
                for number, part, vector in stream_parts(way, seen, prefix, place)
            ),
            (LogitPart("norms' own vectors"), way.shifts() @ vectors.T),
        ]
        if (bias := getattr(model, "unembedding_bias", None)) is not None:
            known.append((LogitPart("the words' own biases"), bias[ids].double()))
        if len(hidden) > width:
            known.append((LogitPart("recalled n-grams"), hidden[width:][ids].double()))
    parts, values = zip(*known, strict=True)
    return LogitAttribution(parts, torch.stack(values), logits[ids].double())


def stream_parts(
    way: ResidualPath, seen: Mapping[str, Tensor], prefix: str, place: int
) -> Iterator[tuple[int, LogitPart, Float[Tensor, "W"]]]:
    """Every part of the stream: the step that added it (−1: none), its name, and the vector."""
    yield -1, LogitPart("embedding"), seen[f"{prefix}embedding_output"][0, place].double()
    for number, step in enumerate(way.steps):
        if step.kind == "feed-forward":
            yield number, LogitPart(step.name, step.layer, "ff"), seen[step.added][0, place].double()
            continue
        short, letter = ("head", "h") if step.kind == "attention" else ("cross-head", "x")
        for head, vector in enumerate(head_parts(step.module, seen[f"{step.added}.head_outputs"][0, :, place])):
            yield number, LogitPart(f"{short} {step.layer}.{head}", step.layer, f"{letter}{head}"), vector
        if step.module.output.bias is not None:
            yield number, LogitPart(f"{step.name} bias", step.layer, f"bias {letter}"), step.module.output.bias.double()


def head_parts(attention: Any, answer: Float[Tensor, "H D"]) -> Float[Tensor, "H W"]:
    """What each head adds to the stream: its answer through its own columns of the output map."""
    own = attention.output.weight.double().unflatten(1, (-1, attention.head_dim))
    return torch.einsum("hd,whd->hw", answer.double(), own)


def logit_attribution(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    words: tuple[str, ...] = (),
    ids: tuple[int, ...] = (),
    top: int = 15,
    truncate: Truncation | None = None,
) -> Report:
    """The logit of a word after a text as a sum over embedding, heads and feed-forwards: the `top` largest parts, then
    all of them by layer.

    The word is the likeliest, or the one of `words`; with two, it is why the first and not the second: the difference
    of their logits. `ids` name tokens that are no words. Raises BadSetting for three, VocabularyMismatch for an id that
    is not the model's.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 part")
    target, words = split_target_and_words(model, target, words)
    if words and ids:
        raise BadSetting(f"words are {', '.join(words)} and ids {', '.join(map(str, ids))}; give one of the two")
    if len(words or ids) > 2:
        raise BadSetting(
            f"{'words' if words else 'ids'} are {', '.join(map(str, words or ids))}; give one, or two to see why the "
            "first and not the second"
        )
    chosen = [single_token(tokenizer, word) for word in words] or [prepare_prompt(model, [id])[0] for id in ids]
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    if not chosen:
        with inference_mode(model):
            chosen = [int(model.logits(read.hidden(model)[-1]).argmax())]
    seen = attribute_logits(model, read, chosen)
    signs = torch.tensor([1.0, -1.0][: len(chosen)], dtype=torch.float64)
    values, logit = (seen.values @ signs).tolist(), float(seen.logits @ signs)
    pieces = [f"‘{tokenizer.display_token(id)}’" for id in chosen]
    what = f"The logit of {pieces[0]}" if len(chosen) == 1 else f"Why {pieces[0]} and not {pieces[1]}"
    return Report(
        title=f"{what} after ‘{read.labels[-1]}’, added up",
        panels=(largest(what, seen.parts, values, top), by_layer(what, seen.parts, values)),
        caption=look(seen.parts, values, logit),
    )


def look(parts: Sequence[LogitPart], values: Sequence[float], logit: float) -> str:
    """The sum, and how few parts make half of all that was added and taken away."""
    sizes = sorted((abs(value) for value in values), reverse=True)
    half, count = 0.0, 0
    while half < sum(sizes) / 2:
        half, count = half + sizes[count], count + 1
    most = max(zip(values, parts, strict=True), key=lambda pair: pair[0])
    return (
        f"{len(parts):,} parts add up to {math.fsum(values):,.4f}; the model's own number is {logit:,.4f}. Half of all "
        f"that is added and taken away comes from {count:,}; the most is added by {most[1].name} ({most[0]:+,.2f}). "
        "The norms' scales are taken as computed."
    )


def largest(what: str, parts: Sequence[LogitPart], values: Sequence[float], top: int) -> Table:
    """The largest parts, and all others as one."""
    order = sorted(range(len(parts)), key=lambda place: -abs(values[place]))
    rows = [(parts[place].name, values[place]) for place in order[:top]]
    if rest := order[top:]:
        rows.append((f"all others ({len(rest):,})", math.fsum(values[place] for place in rest)))
    rows.append(("together", math.fsum(values)))
    return Table(
        title=f"{what}: the largest parts",
        columns=("part", "adds"),
        rows=tuple(rows),
        bar="adds",
    )


def by_layer(what: str, parts: Sequence[LogitPart], values: Sequence[float]) -> Grid:
    """All parts that belong to a layer."""
    columns = tuple(dict.fromkeys(part.column for part in parts if part.layer is not None))
    layers = 1 + max((part.layer for part in parts if part.layer is not None), default=-1)
    found = {(part.layer, part.column): value for part, value in zip(parts, values, strict=True)}
    return Grid(
        title=f"{what}, by layer: heads (h), feed-forward (ff)",
        row_labels=tuple(f"layer {layer}" for layer in range(layers)),
        column_labels=columns,
        values=tuple(tuple(found.get((layer, column), 0.0) for column in columns) for layer in range(layers)),
        unit="added to the logit",
        dots=True,
    )
