"""Direct logit attribution: a logit as the sum of the outputs of all components, and the neurons that contribute most.

embedding + heads + attention biases + feed-forwards ─► final norm, its scale held constant ─► · output vector ─► logit

A neuron's column of the down projection, times its activation, is a vector added to the residual stream; its products
with the output vectors show which tokens it makes more likely. Geva et al. 2022, "Transformer Feed-Forward Layers Build
Predictions by Promoting Concepts in the Vocabulary Space", section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.activations import record_activations, unwrap_model
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import (
    ResidualPath,
    output_stack,
    output_vectors,
    require_linear_outputs,
    residual_path,
    residual_path_activations,
    single_token,
    split_target_and_words,
)
from clearstory.lens.views import Grid, Report, Table
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import PromptOptions, Truncation, prepare_prompt
from clearstory.models.transformer.attention import Attention
from clearstory.models.transformer.block import FeedForward
from clearstory.models.transformer.decoder import Transformer
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class LogitPart:
    """One summand of a logit. `column` names the part within its layer: a head (h), a cross-attention head (x), the
    bias of either, or the feed-forward (ff).
    """

    name: str
    layer: int | None = None
    column: str = ""


@dataclass(frozen=True)
class LogitAttribution:
    """P summands of N tokens' logits at one position, in float64; their sums are `logits`, the model's own logits."""

    ids: tuple[int, ...]
    parts: tuple[LogitPart, ...]
    values: Float[Tensor, "P N"]
    logits: Float[Tensor, "N"]


def logit_attribution(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    target: str | None = None,
    words: tuple[str, ...] = (),
    ids: tuple[int, ...] = (),
    top: int = 15,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Report:
    """The logit of a token after a text as a sum over embedding, heads and feed-forwards: the `top` largest summands,
    then all of them by layer.

    The token is the most likely one, or the one of `words`; with two words, the difference of their logits is
    attributed. `ids` name tokens by id. Raises BadSetting for three, VocabularyMismatch for an unknown id.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 part")
    target, words = split_target_and_words(model, target, words)
    if words and ids:
        raise BadSetting(f"words are {', '.join(words)} and ids {', '.join(map(str, ids))}; give one of the two")
    if len(words or ids) > 2:
        raise BadSetting(
            f"{'words' if words else 'ids'} are {', '.join(map(str, words or ids))}; give one, or two to attribute the "
            "difference of their logits"
        )
    chosen = [single_token(tokenizer, word) for word in words] or [prepare_prompt(model, [id])[0] for id in ids]
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    attribution = attribute_logits(model, passage, chosen or None)
    signs = torch.tensor([1.0, -1.0][: len(attribution.ids)], dtype=torch.float64)
    values, logit = (attribution.values @ signs).tolist(), float(attribution.logits @ signs)
    pieces = [f"‘{tokenizer.display_token(id)}’" for id in attribution.ids]
    what = f"Logit of {pieces[0]}" if len(pieces) == 1 else f"Logit of {pieces[0]} minus logit of {pieces[1]}"
    return Report(
        title=f"{what} after ‘{passage.labels[-1]}’",
        panels=(largest_parts(what, attribution.parts, values, top), parts_by_layer(what, attribution.parts, values)),
        caption=attribution_caption(attribution.parts, values, logit),
    )


def attribute_logits(
    model: LanguageModel, passage: Passage, words: Sequence[int] | None = None, position: int = -1
) -> LogitAttribution:
    """Every summand of the logits of some tokens (by default of the most likely one) after one position.

    Norms have the scale of the actual forward pass: a summand is a contribution, not the effect of removing it. In
    post-norm models this applies to all norms that an output passes. Raises CannotDo for an encoder, whose head for
    masked tokens is nonlinear.
    """
    network = unwrap_model(model)
    if Capability.BIDIRECTIONAL in model.capabilities:
        raise CannotDo(
            "an encoder's masked language modelling head is nonlinear (gelu), so its logits are not a sum over "
            "sublayers; use --view ablation or logit-lens"
        )
    position = range(len(passage.ids))[position]
    prefix, stack = output_stack(model)
    require_linear_outputs(stack)
    head_outputs = [f"{prefix}blocks.*.{kind}.head_outputs" for kind in ("attention", "cross_attention")]
    head_outputs = head_outputs[: 1 + bool(prefix)]
    has_hashed_ngrams = Capability.HASHED_NGRAMS in model.capabilities
    final_norm = ["norm"] * (has_hashed_ngrams and network.norm is not None)
    names = [*residual_path_activations(model), *head_outputs, *final_norm]
    with inference_mode(model), record_activations(model, *names) as recorded:
        hidden = passage.forward(model)[position]
        logits = model.logits(hidden)
        ids = [int(logits.argmax())] if words is None else list(words)
        path = residual_path(model, recorded, position)
        vectors = output_vectors(model, ids)
        known = [
            *(
                (part, path.propagate(index, vector) @ vectors.T)
                for index, part, vector in stream_parts(path, recorded, prefix, position)
            ),
            (LogitPart("norm biases"), path.norm_biases() @ vectors.T),
        ]
        if (bias := getattr(network, "unembedding_bias", None)) is not None:
            known.append((LogitPart("output biases"), bias[ids].double()))
        if has_hashed_ngrams:
            own = recorded["norm" if final_norm else path.sublayers[-1].residual][0, position]
            known.append((LogitPart("hashed n-grams"), logits_beside(network, hidden, own)[ids]))
    parts, values = zip(*known, strict=True)
    return LogitAttribution(tuple(ids), parts, torch.stack(values), logits[ids].double())


def logits_beside(network: Transformer, hidden: Float[Tensor, "K"], own: Float[Tensor, "W"]) -> Float[Tensor, "V"]:
    """What hashed n-grams add to the logits, from hidden states with it and the network's own, in float64."""
    if network.has_hashed_logits:
        return hidden[len(own) :].double()
    return (hidden.double() - own.double()) @ network.output_weight.double().T


def stream_parts(
    path: ResidualPath, recorded: Mapping[str, Tensor], prefix: str, position: int
) -> Iterator[tuple[int, LogitPart, Float[Tensor, "W"]]]:
    """Every summand of the residual stream: the index of its sublayer (−1: the embedding), its name, and the vector."""
    yield -1, LogitPart("embedding"), recorded[f"{prefix}embedding_output"][0, position].double()
    for index, step in enumerate(path.sublayers):
        if step.kind == "feed-forward":
            yield index, LogitPart(step.title, step.layer, "ff"), recorded[step.output][0, position].double()
            continue
        short, letter = ("head", "h") if step.kind == "attention" else ("cross-head", "x")
        attention = cast(Attention, step.module)
        vectors = head_vectors(attention, recorded[f"{step.output}.head_outputs"][0, :, position])
        for head, vector in enumerate(vectors):
            yield index, LogitPart(f"{short} {step.layer}.{head}", step.layer, f"{letter}{head}"), vector
        if (bias := attention.output.bias) is not None:
            yield index, LogitPart(f"{step.title} bias", step.layer, f"bias {letter}"), bias.double()


def head_vectors(attention: Attention, outputs: Float[Tensor, "H D"]) -> Float[Tensor, "H W"]:
    """Each head's output times its columns of the output matrix."""
    weight = attention.output.weight.double()
    columns = weight.unflatten(1, (-1, attention.head_dim))  # type: ignore[no-untyped-call]  # torch's
    return torch.einsum("hd,whd->hw", outputs.double(), columns)


def attribution_caption(parts: Sequence[LogitPart], values: Sequence[float], logit: float) -> str:
    """The sum of all parts, the number of parts that make up half of the total magnitude, and the largest part."""
    sizes = sorted((abs(value) for value in values), reverse=True)
    half, count = 0.0, 0
    while half < sum(sizes) / 2:
        half, count = half + sizes[count], count + 1
    most = max(zip(values, parts, strict=True), key=lambda pair: pair[0])
    return (
        f"{len(parts):,} parts sum to {math.fsum(values):,.4f}; the model's own value is {logit:,.4f}. {count:,} "
        f"parts account for half of the sum of magnitudes; the largest is {most[1].name} ({most[0]:+,.2f}). The "
        "scales of the "
        "norms are held constant."
    )


def largest_parts(what: str, parts: Sequence[LogitPart], values: Sequence[float], top: int) -> Table:
    """The largest parts, and the sum of all others."""
    order = sorted(range(len(parts)), key=lambda index: -abs(values[index]))
    rows = [(parts[index].name, values[index]) for index in order[:top]]
    if rest := order[top:]:
        rows.append((f"all others ({len(rest):,})", math.fsum(values[index] for index in rest)))
    rows.append(("sum", math.fsum(values)))
    return Table(
        title=f"{what}: the largest parts",
        columns=("part", "contribution"),
        rows=tuple(rows),
        bar="contribution",
    )


def parts_by_layer(what: str, parts: Sequence[LogitPart], values: Sequence[float]) -> Grid:
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


@dataclass(frozen=True)
class NeuronContributions:
    """N neurons: their activations, the norms of the vectors that they add, their contributions to the logit of `word`,
    and the K tokens whose logits each raises most.
    """

    layers: Int[Tensor, "N"]
    neurons: Int[Tensor, "N"]
    activations: Float[Tensor, "N"]
    norms: Float[Tensor, "N"]
    contributions: Float[Tensor, "N"]
    promoted: Int[Tensor, "N K"]
    word: int


def neurons(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int | None = None,
    target: str | None = None,
    words: tuple[str, ...] = (),
    top: int = 12,
    truncate: Truncation | None = None,
    prompt: PromptOptions = PromptOptions(),
) -> Table:
    """The neurons of all feed-forwards, or of one layer's, that add the longest vectors at the last token, with the
    tokens that they promote; with a word in `words`, those with the largest contributions to its logit.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 neuron")
    target, words = split_target_and_words(model, target, words)
    if len(words) > 1:
        raise BadSetting(f"words are {', '.join(words)}; give the one token whose logit is examined")
    word = single_token(tokenizer, words[0]) if words else None
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate, prompt=prompt)
    strongest = strongest_neurons(model, passage, layer=layer, top=top, word=word)

    piece = tokenizer.display_token(strongest.word)
    columns = (
        strongest.layers,
        strongest.neurons,
        strongest.activations,
        strongest.norms,
        strongest.contributions,
        strongest.promoted,
    )
    rows = tuple(
        (f"{layer}.{neuron}", activation, norm, contribution, " ".join(map(tokenizer.display_token, promoted)))
        for layer, neuron, activation, norm, contribution, promoted in zip(
            *(each.tolist() for each in columns), strict=True
        )
    )
    promoting = [row[0] for row, ids in zip(rows, strongest.promoted, strict=True) if strongest.word in ids.tolist()]
    return Table(
        title=f"Neurons that add most {f'to ‘{piece}’ ' if words else ''}after ‘{passage.labels[-1]}’",
        columns=("neuron", "activation", "norm", f"to ‘{piece}’", "promotes"),
        rows=rows,
        caption=(
            f"{len(promoting)} of these {len(rows)} promote{'s' * (len(promoting) == 1)} ‘{piece}’"
            + (f": {', '.join(promoting)}." if promoting else ".")
            + " The scale of the final norm is held constant."
        ),
    )


def strongest_neurons(
    model: LanguageModel,
    passage: Passage,
    *,
    layer: int | None = None,
    top: int = 10,
    words: int = 5,
    word: int | None = None,
) -> NeuronContributions:
    """The `top` neurons of one layer or of all: those that add the longest vectors at the last token, or with `word`
    those with the largest contributions to its logit. Raises BadSetting for a layer that does not exist.
    """
    if Capability.BIDIRECTIONAL in model.capabilities:
        raise CannotDo("an encoder's masked language modelling head is nonlinear; use --view logit-lens")
    prefix, stack = output_stack(model)
    require_linear_outputs(stack)
    layers = len(stack.blocks)
    if layer is not None and not -layers <= layer < layers:
        raise BadSetting(f"layer is {layer}, and the model has {layers}; give 0 to {layers - 1}")
    names = (*residual_path_activations(model), f"{prefix}blocks.*.feed_forward.neurons")
    with inference_mode(model), record_activations(model, *names) as recorded:
        hidden = passage.forward(model)[-1]
        by_contribution, word = word is not None, int(model.logits(hidden).argmax()) if word is None else word
        path = residual_path(model, recorded, len(passage.ids) - 1)
        (output_vector,) = output_vectors(model, [word])
        found = []
        for index, step in enumerate(path.sublayers):
            if step.kind != "feed-forward" or (layer is not None and step.layer != layer % layers):
                continue
            activations = recorded[f"{step.output}.neurons"][0, -1].double()
            weight = cast(FeedForward, step.module).down.weight
            if by_contribution:
                sizes = (path.propagate(index, weight.double().T * activations[:, None]) @ output_vector).abs()
            else:
                sizes = weight.norm(dim=0).double() * activations.abs()
            for size, neuron in zip(*sizes.topk(min(top, len(sizes))), strict=True):
                activation = activations[neuron]
                found.append((float(size), index, int(neuron), float(activation), weight[:, neuron] * activation))
        found = sorted(found, key=lambda row: -row[0])[:top]
        vectors = torch.stack([path.propagate(index, vector) for _, index, _, _, vector in found])
        logits = vectors @ output_vectors(model, range(model.vocab)).T
    return NeuronContributions(
        torch.tensor([path.sublayers[index].layer for _, index, _, _, _ in found]),
        torch.tensor([neuron for _, _, neuron, _, _ in found]),
        torch.tensor([activation for _, _, _, activation, _ in found], dtype=torch.float64),
        torch.stack([vector.norm() for *_, vector in found]).cpu(),
        logits[:, word].cpu(),
        logits.topk(min(words, model.vocab)).indices.cpu(),
        word,
    )
