"""Neurons: those of the feed-forwards that said most at the last token, and the words that they speak for.

A neuron's row of the down map is a vector that it adds to the stream as much as it fires; held against every word's
vector it says which words it makes likelier. Geva et al. 2022, "Transformer Feed-Forward Layers Build Predictions by
Promoting Concepts in the Vocabulary Space", section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearstory.errors import BadSetting, CannotDo
from clearstory.lens.hooks.linearised_norms import residual_path, residual_path_activations, output_vectors
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.hooks.residual_stream import split_target_and_words, single_token, output_stack
from clearstory.lens.hooks.activations import unwrap_model, record_activations
from clearstory.lens.views import Table
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.prompts import Truncation, inference_mode
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class NeuronContributions:
    """N neurons: how much each fires, how long the vector is that it adds, what that adds to the logit of `word`, and
    the K words whose logits it raises most.
    """

    layers: Int[Tensor, "N"]
    neurons: Int[Tensor, "N"]
    fires: Float[Tensor, "N"]
    length: Float[Tensor, "N"]
    adds: Float[Tensor, "N"]
    promotes: Int[Tensor, "N K"]
    word: int


def strongest_neurons(
    model: Any, read: Passage, *, layer: int | None = None, top: int = 10, words: int = 5, word: int | None = None
) -> NeuronContributions:
    """The `top` neurons of one layer, or of all: those that add the longest vectors to the last token's stream; where a
    word is asked about, those that add most to its logit. Raises BadSetting for a layer that is not there.
    """
    model = unwrap_model(model)
    if isinstance(model, Encoder):
        raise CannotDo("an encoder's head bends its stream before words are held against it; look at --view logit-lens")
    prefix, stack = output_stack(model)
    layers = len(stack.blocks)
    if layer is not None and not -layers <= layer < layers:
        raise BadSetting(f"layer is {layer}, and the model has {layers}; give 0 to {layers - 1}")
    with inference_mode(model), record_activations(model, *residual_path_activations(model), f"{prefix}blocks.*.feed_forward.neurons") as seen:
        hidden = read.hidden(model)[-1]
        asked_for, word = word is not None, int(model.logits(hidden).argmax()) if word is None else word
        way = residual_path(model, seen, len(read.ids) - 1)
        (own,) = output_vectors(model, [word])
        found = []
        for number, step in enumerate(way.steps):
            if step.kind != "feed-forward" or (layer is not None and step.layer != layer % layers):
                continue
            fires = seen[f"{step.added}.neurons"][0, -1].double()
            added = step.module.down.weight.double().T * fires[:, None]
            sizes = (way.carry(number, added) @ own).abs() if asked_for else added.norm(dim=1)
            for size, neuron in zip(*sizes.topk(min(top, len(sizes))), strict=True):
                found.append((float(size), number, int(neuron), float(fires[neuron]), added[neuron]))
        found = sorted(found, key=lambda row: -row[0])[:top]
        vectors = torch.stack([way.carry(number, vector) for _, number, _, _, vector in found])
        logits = vectors @ output_vectors(model, range(model.vocab)).T
    return NeuronContributions(
        torch.tensor([way.steps[number].layer for _, number, _, _, _ in found]),
        torch.tensor([neuron for _, _, neuron, _, _ in found]),
        torch.tensor([fires for _, _, _, fires, _ in found], dtype=torch.float64),
        torch.stack([vector.norm() for *_, vector in found]).cpu(),
        logits[:, word].cpu(),
        logits.topk(min(words, model.vocab)).indices.cpu(),
        word,
    )


def neurons(
    model: Any,
    tokenizer: Tokenizer,
    text: str,
    *,
    layer: int | None = None,
    target: str | None = None,
    words: tuple[str, ...] = (),
    top: int = 12,
    truncate: Truncation | None = None,
) -> Table:
    """The neurons of all feed-forwards, or of one layer's, that add most to the stream of the last token, with the
    words that they speak for; with a word in `words`, those that add most to its logit.
    """
    if top < 1:
        raise BadSetting(f"top is {top}; show at least 1 neuron")
    target, words = split_target_and_words(model, target, words)
    if len(words) > 1:
        raise BadSetting(f"words are {', '.join(words)}; give one, whose logit the neurons add to")
    word = single_token(tokenizer, words[0]) if words else None
    read = encode_passage(model, tokenizer, text, target=target, truncate=truncate)
    seen = strongest_neurons(model, read, layer=layer, top=top, word=word)

    piece = tokenizer.display_token(seen.word)
    rows = tuple(
        (f"{own}.{neuron}", fires, length, adds, " ".join(map(tokenizer.display_token, words)))
        for own, neuron, fires, length, adds, words in zip(
            *(each.tolist() for each in (seen.layers, seen.neurons, seen.fires, seen.length, seen.adds, seen.promotes)),
            strict=True,
        )
    )
    named = [row[0] for row, up in zip(rows, seen.promotes, strict=True) if seen.word in up.tolist()]
    said = f"speak for ‘{piece}’" if len(named) != 1 else f"speaks for ‘{piece}’"
    return Table(
        title=f"Neurons that add most {f'to ‘{piece}’ ' if words else ''}after ‘{read.labels[-1]}’",
        columns=("neuron", "fires", "length", f"to ‘{piece}’", "speaks for"),
        rows=rows,
        caption=(
            f"{len(named)} of these {len(rows)} {said} among their first words"
            + (f": {', '.join(named)}." if named else ".")
            + " The last norm's scale is taken as computed."
        ),
    )
