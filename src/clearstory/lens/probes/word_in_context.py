"""Words in context: the vectors of a word's occurrence after each layer, and a bank of words to compare them with.

The vector of a token is the same in every text until the first layer mixes in its context. Ethayarajh 2019.

Vectors are compared as they are, and standardized: each dimension minus its mean over a bank of words, divided by its
standard deviation there. A few dimensions are so large that they dominate the cosine (Timkey and van Schijndel 2021).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting, ContextOverflow
from clearstory.lens.hooks.activations import model_device, record_activations, transformer_stacks, unwrap_model
from clearstory.lens.hooks.passage import Passage, Spans, encode_passage
from clearstory.models.base import LanguageModel, TokenBatch, inference_mode
from clearstory.models.capabilities import Capability
from clearstory.models.prompts import RAW
from clearstory.models.transformer.encoder_decoder import EncoderDecoder
from clearstory.text.tokenizers import Tokenizer

BATCH_TOKENS = 512
"""Tokens in a batch: larger batches are not faster on a CPU, and the vectors of all layers are in memory at once."""


@dataclass(frozen=True)
class AlignedText:
    """A text and the passage that a model reads of it: raw text with special tokens, also of a chat model."""

    text: str
    passage: Passage

    @property
    def ids(self) -> tuple[int, ...]:
        """The text's tokens; for an encoder-decoder, its source."""
        return self.passage.text_ids

    @property
    def offsets(self) -> Spans:
        """For each token, the characters start:stop that it was made from; None for special tokens."""
        return self.passage.text_spans


@dataclass(frozen=True)
class LayerVectors:
    """Every token's vector after each layer of a model.

    `names` of the layers: "embedding", the token embedding alone; "embedding_output", the input of the first block;
    "0" and on, after each block or layer; "norm", after the final norm. `values` are (T, W) each.
    """

    aligned: AlignedText
    names: tuple[str, ...]
    values: tuple[Tensor, ...]

    def tokens_at(self, start: int, stop: int) -> list[int]:
        """The positions of the tokens that overlap the characters start:stop."""
        offsets = enumerate(self.aligned.offsets)
        return [position for position, span in offsets if span and span[0] < stop and span[1] > start]

    def mean_vectors(self, positions: Sequence[int]) -> tuple[Tensor, ...]:
        """The mean vector of some tokens after each layer, (W,) each."""
        return tuple(each[list(positions)].mean(0) for each in self.values)


def layer_activations(model: LanguageModel) -> dict[str, str]:
    """The activation after each layer of the stack that reads a text, by its name in `LayerVectors`."""
    if Capability.RECURRENT_STATE in model.capabilities:
        layers = range(len(unwrap_model(model).layers))
        return {"embedding": "embedding", **{str(layer): f"layers.{layer}" for layer in layers}}
    prefix, stack = transformer_stacks(model)[0]
    final = {"norm": f"{prefix}norm"} if stack.norm is not None else {}
    blocks = {str(layer): f"{prefix}blocks.{layer}" for layer in range(len(stack.blocks))}
    inputs = {name: f"{prefix}{name}" for name in ("embedding", "embedding_output")}
    return {**inputs, **blocks, **final}


def layer_vectors(model: LanguageModel, tokenizer: Tokenizer, text: str) -> LayerVectors:
    """Every token's vector after each layer; for an encoder-decoder, of its encoder. Raises as `align_text` does."""
    [found] = layer_vectors_of_batch(model, [align_text(model, tokenizer, text)])
    return found


def align_text(model: LanguageModel, tokenizer: Tokenizer, text: str) -> AlignedText:
    """A text's tokens with their characters. Raises as `encode_passage`, and BadInput for two segments."""
    passage = encode_passage(model, tokenizer, text, prompt=RAW)
    if passage.token_types is not None:
        raise BadInput("words are compared in one segment, but ‘ ||| ’ splits this text into two; leave it out")
    return AlignedText(text, passage)


def layer_vectors_of_batch(model: LanguageModel, texts: Sequence[AlignedText]) -> list[LayerVectors]:
    """Vectors of texts with equal numbers of tokens, from one batch without padding."""
    names, device = layer_activations(model), model_device(model)
    batch = TokenBatch.from_sequences([each.ids for each in texts], device)
    with inference_mode(model), record_activations(model, *names.values()) as recorded:
        if texts[0].passage.source:
            targets = TokenBatch.from_sequences([each.passage.ids for each in texts], device)
            cast(EncoderDecoder, model).forward(targets, source=batch)
        else:
            model.forward(batch)
    time_first = Capability.RECURRENT_STATE in model.capabilities
    values = [
        (recorded[name].transpose(0, 1) if time_first else recorded[name]).float().cpu() for name in names.values()
    ]
    return [
        LayerVectors(each, tuple(names), tuple(value[row].clone() for value in values))
        for row, each in enumerate(texts)
    ]


def layer_vectors_of_texts(model: LanguageModel, texts: Sequence[AlignedText]) -> list[LayerVectors]:
    """Vectors of texts in their order; texts with equal numbers of tokens share batches."""
    by_length: dict[tuple[int, int], list[int]] = {}
    for index, each in enumerate(texts):
        by_length.setdefault((len(each.ids), len(each.passage.ids)), []).append(index)
    found: dict[int, LayerVectors] = {}
    for (length, _), indices in by_length.items():
        size = max(1, BATCH_TOKENS // length)
        for first in range(0, len(indices), size):
            batch = indices[first : first + size]
            found.update(zip(batch, layer_vectors_of_batch(model, [texts[index] for index in batch]), strict=True))
    return [found[index] for index in range(len(texts))]


def find_word(text: str, word: str, occurrence: int = 1) -> tuple[int, int]:
    """The characters start:stop of the nth occurrence of a whole word in a text, ignoring case.

    >>> find_word("Models and a model.", "model"), find_word("by the bank, by the river", "by", 2)
    ((13, 18), (13, 15))
    """
    spans = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) if word]
    if not spans:
        raise BadInput(f"the word ‘{word}’ does not occur in ‘{text}’; give a word that occurs in both texts")
    if not 1 <= occurrence <= len(spans):
        raise BadSetting(
            f"occurrence is {occurrence} and ‘{word}’ occurs {len(spans):,} times in ‘{text}’; give 1 to {len(spans)}"
        )
    return spans[occurrence - 1]


@dataclass(frozen=True)
class WordOccurrences:
    """A word in one text and the same or another word in a second text.

    Args:
        texts: both texts' vectors.
        positions: the positions of each word's tokens.
        vectors: each word's mean vector after each layer, (W,) each.
    """

    texts: tuple[LayerVectors, LayerVectors]
    positions: tuple[list[int], list[int]]
    vectors: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The layers."""
        return self.texts[0].names

    @property
    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The token ids of each word."""
        first, second = (
            tuple(each.aligned.ids[position] for position in positions)
            for each, positions in zip(self.texts, self.positions, strict=True)
        )
        return first, second


def word_occurrences(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: tuple[str, str],
    words: tuple[str, str],
    occurrences: tuple[int, int] = (1, 1),
) -> WordOccurrences:
    """The first word in the first text and the second in the second. Raises as `align_text` and `find_word` do."""
    spans = [find_word(*each) for each in zip(texts, words, occurrences, strict=True)]
    first, second = (layer_vectors(model, tokenizer, text) for text in texts)
    positions = first.tokens_at(*spans[0]), second.tokens_at(*spans[1])
    return WordOccurrences(
        (first, second), positions, (first.mean_vectors(positions[0]), second.mean_vectors(positions[1]))
    )


@dataclass(frozen=True)
class WordBank:
    """Words in their sentences, and the vector of each word after every layer: (N, W) each.

    `missing` is the number of sentences that did not fit the model's context.
    """

    words: tuple[tuple[str, str], ...]
    values: tuple[Tensor, ...]
    missing: int

    def standardize(self, layer: int, vectors: Float[Tensor, "*N W"]) -> Float[Tensor, "*N W"]:
        """Vectors after a layer, each dimension minus its mean over the bank, divided by its standard deviation."""
        mean, std = self.statistics[layer]
        standardized: Tensor = (vectors - mean) / std
        return standardized

    @cached_property
    def statistics(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Mean and standard deviation of each dimension after each layer."""
        return tuple(map(mean_and_std, self.values))

    def mean_cosines(self) -> list[float]:
        """The mean cosine of two different words of the bank, after each layer."""
        cosines = []
        for each in self.values:
            count, unit = len(each), F.normalize(each.double(), dim=-1)
            cosines.append(float((unit.sum(0).square().sum() - count) / max(1, count * (count - 1))))
        return cosines


def standardize(vectors: Float[Tensor, "*N W"], among: Float[Tensor, "M W"]) -> Float[Tensor, "*N W"]:
    """Vectors minus the mean of others, divided by their standard deviation.

    >>> standardize(torch.tensor([5.0, 1.0]), torch.tensor([[1.0, 1.0], [3.0, 1.0]])).tolist()
    [3.0, 0.0]
    """
    mean, std = mean_and_std(among)
    return (vectors - mean) / std


def mean_and_std(vectors: Float[Tensor, "M W"]) -> tuple[Float[Tensor, "W"], Float[Tensor, "W"]]:
    """The mean and the standard deviation of each dimension; 1 in place of a deviation of 0."""
    mean = vectors.mean(0)
    std = torch.linalg.vector_norm(vectors - mean, dim=0) / math.sqrt(len(vectors))  # a tenth of the time of `std`
    return mean, torch.where(std > 0, std, 1.0)


def build_word_bank(model: LanguageModel, tokenizer: Tokenizer, sentences: Sequence[str]) -> WordBank:
    """Every word of some sentences in context; sentences that do not fit the context are counted and left out."""
    fitting: list[AlignedText] = []
    for sentence in sentences:
        with suppress(ContextOverflow):
            fitting.append(align_text(model, tokenizer, sentence))
    words: list[tuple[str, str]] = []
    rows: list[tuple[Tensor, ...]] = []
    for vectors in layer_vectors_of_texts(model, fitting):
        text = vectors.aligned.text
        for match in re.finditer(r"\w+", text):
            if positions := vectors.tokens_at(*match.span()):
                words.append((match[0], f"{text[: match.start()]}[{match[0]}]{text[match.end() :]}"))
                rows.append(vectors.mean_vectors(positions))
    if not rows:
        raise BadInput("all example sentences exceed the model's context; give shorter ones")
    return WordBank(tuple(words), tuple(map(torch.stack, zip(*rows, strict=True))), len(sentences) - len(fitting))


def cosines_by_layer(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[float]:
    """The cosine of two vectors after each layer."""
    return [float(F.cosine_similarity(a.double(), b.double(), 0)) for a, b in zip(first, second, strict=True)]


def block_index(names: Sequence[str], layer: int | None) -> int:
    """The index among `names` of a block; of the last by default. Raises BadSetting for one that does not exist."""
    blocks = [index for index, name in enumerate(names) if name.isdecimal()]
    if layer is None:
        return blocks[-1]
    if not -len(blocks) <= layer < len(blocks):
        raise BadSetting(f"layer is {layer}, and the model has {len(blocks)}; give 0 to {len(blocks) - 1}")
    return blocks[layer]


EXAMPLE_SENTENCES = (
    "The machine learning model predicts the next word.",
    "We trained a language model on millions of sentences.",
    "The neural network model has many layers and parameters.",
    "A statistical model explains the data we observed.",
    "The climate model forecasts warmer summers.",
    "The fashion model walked down the runway in a red dress.",
    "She worked as a model for famous photographers in Paris.",
    "The magazine hired a young model for its cover.",
    "He built a model of the ship from wood and glue.",
    "Our teacher is a role model for many students.",
    "The actress posed in an elegant gown by the designer.",
    "An algorithm learns patterns from examples.",
    "He deposited the money at the bank on Monday.",
    "The bank raised its interest rates again.",
    "They sat on the bank of the river and fished.",
    "Willows grow along the muddy bank of the stream.",
    "The batter swung the bat and hit the ball.",
    "A bat flew out of the cave at night.",
    "Flowers bloom in the spring when the snow melts.",
    "A metal spring pushes the door shut.",
    "Water bubbles from a spring in the mountain.",
    "Turn on the light, it is dark in here.",
    "The suitcase is light and easy to carry.",
    "The dog began to bark at the stranger.",
    "The bark of the old oak is rough.",
    "They won the football match in the last minute.",
    "She lit the candle with a match.",
    "He caught a cold and stayed in bed.",
    "The water was too cold for a swim.",
    "The head of the company resigned yesterday.",
    "She shook her head and smiled.",
    "The plant needs sun and water to grow.",
    "The car plant employs a thousand workers.",
    "He wrote a long letter to his mother.",
    "The word begins with a capital letter.",
    "She lost the key to the front door.",
    "The song is played in the key of G.",
    "The judge entered the court and everyone stood.",
    "They played tennis on a grass court.",
    "A tall crane lifted the steel beams.",
    "The crane stood on one leg in the shallow water.",
    "The cat chased a mouse across the kitchen.",
    "Click with the left button of the mouse.",
    "Dinner is on the table, come and eat.",
    "The table lists the results of every test.",
    "A huge wave broke over the beach.",
    "The crowd saw the king wave from the balcony.",
    "The king and the queen lived in an old castle.",
)
