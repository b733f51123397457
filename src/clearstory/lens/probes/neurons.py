"""Feed-forward neurons with the largest outputs at the last token, and the tokens whose logits they raise.

A neuron's column of the down projection, times its activation, is a vector added to the residual stream; its products
with the output vectors say which tokens it makes more likely. Geva et al. 2022, "Transformer Feed-Forward Layers Build
Predictions by Promoting Concepts in the Vocabulary Space", section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.activations import record_activations
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import (
    output_stack,
    output_vectors,
    residual_path,
    residual_path_activations,
    single_token,
    split_target_and_words,
)
from clearstory.lens.views import Table
from clearstory.models.base import LanguageModel, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import Truncation
from clearstory.models.transformer.block import FeedForward
from clearstory.text.tokenizers import Tokenizer


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
) -> Table:
    """The neurons of all feed-forwards, or of one layer's, that add the longest vectors at the last token, with the
    tokens that they promote; with a word in `words`, those with the largest contributions to its logit.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 neuron")
    target, words = split_target_and_words(model, target, words)
    if len(words) > 1:
        raise BadSetting(f"words are {', '.join(words)}; give the one whose logit is examined")
    word = single_token(tokenizer, words[0]) if words else None
    passage = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    seen = strongest_neurons(model, passage, layer=layer, top=top, word=word)

    piece = tokenizer.display_token(seen.word)
    columns = (seen.layers, seen.neurons, seen.activations, seen.norms, seen.contributions, seen.promoted)
    rows = tuple(
        (f"{own}.{neuron}", activation, norm, contribution, " ".join(map(tokenizer.display_token, promoted)))
        for own, neuron, activation, norm, contribution, promoted in zip(
            *(each.tolist() for each in columns), strict=True
        )
    )
    promoting = [row[0] for row, ids in zip(rows, seen.promoted, strict=True) if seen.word in ids.tolist()]
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
        raise CannotDo("an encoder's head for masked tokens is nonlinear; use --view logit-lens")
    prefix, stack = output_stack(model)
    layers = len(stack.blocks)
    if layer is not None and not -layers <= layer < layers:
        raise BadSetting(f"layer is {layer}, and the model has {layers}; give 0 to {layers - 1}")
    names = (*residual_path_activations(model), f"{prefix}blocks.*.feed_forward.neurons")
    with inference_mode(model), record_activations(model, *names) as recorded:
        hidden = passage.forward(model)[-1]
        by_contribution, word = word is not None, int(model.logits(hidden).argmax()) if word is None else word
        path = residual_path(model, recorded, len(passage.ids) - 1)
        (own,) = output_vectors(model, [word])
        found = []
        for index, step in enumerate(path.sublayers):
            if step.kind != "feed-forward" or (layer is not None and step.layer != layer % layers):
                continue
            activations = recorded[f"{step.output}.neurons"][0, -1].double()
            added = cast(FeedForward, step.module).down.weight.double().T * activations[:, None]
            sizes = (path.propagate(index, added) @ own).abs() if by_contribution else added.norm(dim=1)
            for size, neuron in zip(*sizes.topk(min(top, len(sizes))), strict=True):
                found.append((float(size), index, int(neuron), float(activations[neuron]), added[neuron]))
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
