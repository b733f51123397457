"""Context: what a word's vector becomes, layer by layer, among the words around it. Ethayarajh 2019.

One word stands in two texts. Its vector is the same in both until the model has looked at what stands around it.

Vectors are compared as they are, and cleared: in each dimension, less the mean over a bank of words and over their
spread. A few dimensions are so large that cosines see nothing else (Timkey and van Schijndel 2021).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearstory.errors import BadInput, BadSetting, CannotDo, ContextOverflow
from clearstory.lens.hooks.passage import Passage, encode_passage
from clearstory.lens.probes.tokenization import encode_with_mask_offsets
from clearstory.lens.hooks.activations import unwrap_model, transformer_stacks, record_activations
from clearstory.models.base import TokenBatch
from clearstory.models.base import inference_mode
from clearstory.models.recurrent.model import Recurrent
from clearstory.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class LayerVectors:
    """A text as a model reads it, and every token's vector after each layer.

    `names` of the layers: "words", the embedding alone, with places set aside; "embedding_output", what the first block reads;
    "0" and on, after each block or layer; "norm", after the last norm. `values` are (T, W) each; `spots` are the
    characters of the text that each token was made from.
    """

    text: str
    names: tuple[str, ...]
    values: tuple[Tensor, ...]
    read: Passage
    spots: tuple[tuple[int, int] | None, ...]

    def word(self, start: int, stop: int) -> list[int]:
        """The tokens that have a part in the characters start:stop."""
        return [at for at, spot in enumerate(self.spots) if spot and spot[0] < stop and spot[1] > start]

    def vectors(self, tokens: Sequence[int]) -> tuple[Tensor, ...]:
        """The mean vector of some tokens after each layer, (W,) each."""
        return tuple(each[list(tokens)].mean(0) for each in self.values)


def names_of(model: Any) -> dict[str, str]:
    """The taps after each layer of what reads a text, by what `Layers` calls them."""
    if isinstance(unwrap_model(model), Recurrent):
        return {"words": "embedding", **{str(at): f"layers.{at}" for at in range(len(unwrap_model(model).layers))}}
    prefix, stack = transformer_stacks(model)[0]
    last = {"norm": f"{prefix}norm"} if stack.norm is not None else {}
    blocks = {str(at): f"{prefix}blocks.{at}" for at in range(len(stack.blocks))}
    return {"words": f"{prefix}embedding", "embedding_output": f"{prefix}embedding_output", **blocks, **last}


def layer_vectors(model: Any, tokenizer: Tokenizer, text: str) -> LayerVectors:
    """Every token's vector after each layer; of an encoder-decoder, of its encoder.

    Raises as `passage` does, and BadInput for a text in two segments.
    """
    [found] = layer_vectors_of_batch(model, [align_text(model, tokenizer, text)])
    return found


@dataclass(frozen=True)
class AlignedText:
    """A text as a model will read it, and the characters that each of its tokens was made from."""

    text: str
    read: Passage
    spots: tuple[tuple[int, int] | None, ...]

    @property
    def row(self) -> tuple[int, ...]:
        """The text's tokens: of an encoder-decoder, its source."""
        return self.read.source or self.read.ids


def align_text(model: Any, tokenizer: Tokenizer, text: str) -> AlignedText:
    """A text in the model's tokens, each with its characters. Raises as `layers_of` does."""
    read = encode_passage(model, tokenizer, text)
    if read.segments is not None:
        raise BadInput("a word is looked at in one text here, and ‘ ||| ’ parts this in two; leave it out")
    row, own = read.source or read.ids, encode_with_mask_offsets(tokenizer, text)
    ids = tuple(id for id, _ in own)
    start = next((at for at in range(len(row) - len(ids) + 1) if row[at : at + len(ids)] == ids), None)
    if start is None:
        raise CannotDo("the model reads this text in other tokens than its tokenizer makes; give a plain text")
    spots = [None] * start + [place for _, place in own] + [None] * (len(row) - start - len(ids))
    return AlignedText(text, read, tuple(spots))


def layer_vectors_of_batch(model: Any, texts: Sequence[AlignedText]) -> list[LayerVectors]:
    """Texts of as many tokens each, read as rows of one batch: nothing is padded, so company changes no vector."""
    known = names_of(model)
    device = next(model.parameters()).device
    rows = TokenBatch.from_sequences([each.row for each in texts], device)
    with inference_mode(model), record_activations(model, *known.values()) as seen:
        if texts[0].read.source:
            model.forward(TokenBatch.from_sequences([each.read.ids for each in texts], device), source=rows)
        else:
            model.forward(rows)
    swap = isinstance(unwrap_model(model), Recurrent)  # its layers have time first
    values = [(seen[tap].transpose(0, 1) if swap else seen[tap]).float().cpu() for tap in known.values()]
    return [
        LayerVectors(each.text, tuple(known), tuple(value[row].clone() for value in values), each.read, each.spots)
        for row, each in enumerate(texts)
    ]


TOGETHER = 512
"""Tokens read at a time: beyond that a processor is no faster, and all layers' vectors of a batch are held at once."""


def layer_vectors_of_texts(model: Any, texts: Sequence[AlignedText]) -> list[LayerVectors]:
    """Texts in their order, those of like lengths read together."""
    alike: dict[tuple[int, int], list[int]] = {}
    for at, each in enumerate(texts):
        alike.setdefault((len(each.row), len(each.read.ids)), []).append(at)
    found: dict[int, LayerVectors] = {}
    for (length, _), places in alike.items():
        step = max(1, TOGETHER // length)
        for first in range(0, len(places), step):
            batch = places[first : first + step]
            found.update(zip(batch, layer_vectors_of_batch(model, [texts[at] for at in batch]), strict=True))
    return [found[at] for at in range(len(texts))]


def find_word(text: str, word: str, nth: int = 1) -> tuple[int, int]:
    """The characters start:stop where a word stands in a text for the first or nth time, by itself and in any case.

    >>> found_in("Models and a model.", "model"), found_in("by the bank, by the river", "by", 2)
    ((13, 18), (13, 15))
    """
    places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) if word]
    if not places:
        raise BadInput(f"the word ‘{word}’ does not stand in ‘{text}’; name one that stands in both texts")
    if not 1 <= nth <= len(places):
        raise BadSetting(f"nth is {nth} and ‘{word}’ stands {len(places):,} times in ‘{text}’; give 1 to {len(places)}")
    return places[nth - 1]


@dataclass(frozen=True)
class WordOccurrences:
    """A word in one text and one, mostly the same, in another: both texts, the words' tokens, and the vector of each
    word after each layer, (W,) each.
    """

    both: tuple[LayerVectors, LayerVectors]
    spots: tuple[list[int], list[int]]
    words: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The layers."""
        return self.both[0].names

    @property
    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The words' tokens by their ids."""
        one, other = (
            tuple((each.read.source or each.read.ids)[at] for at in spot)
            for each, spot in zip(self.both, self.spots, strict=True)
        )
        return one, other


def word_occurrences(
    model: Any,
    tokenizer: Tokenizer,
    texts: tuple[str, str],
    words: tuple[str, str],
    nth: tuple[int, int] = (1, 1),
) -> WordOccurrences:
    """The first word in the first text and the second in the second. Raises as `layers_of` and `found_in` do."""
    places = [find_word(*each) for each in zip(texts, words, nth, strict=True)]
    one, other = (layer_vectors(model, tokenizer, text) for text in texts)
    spots = one.word(*places[0]), other.word(*places[1])
    return WordOccurrences((one, other), spots, (one.vectors(spots[0]), other.vectors(spots[1])))


@dataclass(frozen=True)
class WordBank:
    """Words in their sentences, and the vector of each after every layer: (N, W) each.

    `missing` sentences did not fit the model.
    """

    words: tuple[tuple[str, str], ...]
    values: tuple[Tensor, ...]
    missing: int

    def cleared(self, at: int, vectors: Float[Tensor, "*N W"]) -> Float[Tensor, "*N W"]:
        """Vectors from after a layer, each dimension less its mean over the bank and in units of its spread there."""
        mean, spread = self.scales[at]
        return (vectors - mean) / spread

    @cached_property
    def scales(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """The mean and the spread of each dimension after each layer."""
        return tuple(map(mean_and_std, self.values))

    def alike(self) -> list[float]:
        """The mean cosine of two different words drawn by chance, after each layer."""
        out = []
        for each in self.values:
            count, unit = len(each), F.normalize(each.double(), dim=-1)
            out.append(float((unit.sum(0).square().sum() - count) / max(1, count * (count - 1))))
        return out


def standardize(vectors: Float[Tensor, "*N W"], among: Float[Tensor, "M W"]) -> Float[Tensor, "*N W"]:
    """Vectors in units of how others vary: 0 is their mean.

    >>> standard(torch.tensor([5.0, 1.0]), torch.tensor([[1.0, 1.0], [3.0, 1.0]])).tolist()
    [3.0, 0.0]
    """
    mean, spread = mean_and_std(among)
    return (vectors - mean) / spread


def mean_and_std(among: Float[Tensor, "M W"]) -> tuple[Float[Tensor, "W"], Float[Tensor, "W"]]:
    """The mean of each dimension and its spread, 1 where it has none."""
    spread = among.std(0, correction=0)
    return among.mean(0), torch.where(spread > 0, spread, 1.0)


def build_word_bank(model: Any, tokenizer: Tokenizer, sentences: Sequence[str]) -> WordBank:
    """Every word of some sentences in context; those that do not fit the model are counted and left out."""
    fitting: list[AlignedText] = []
    for sentence in sentences:
        with suppress(ContextOverflow):
            fitting.append(align_text(model, tokenizer, sentence))
    words: list[tuple[str, str]] = []
    rows: list[tuple[Tensor, ...]] = []
    for seen in layer_vectors_of_texts(model, fitting):
        text = seen.text
        for match in re.finditer(r"\w+", text):
            if tokens := seen.word(*match.span()):
                words.append((match[0], f"{text[: match.start()]}[{match[0]}]{text[match.end() :]}"))
                rows.append(seen.vectors(tokens))
    if not rows:
        raise BadInput("no word of the bank could be read: all its sentences are longer than the model's context")
    return WordBank(tuple(words), tuple(map(torch.stack, zip(*rows, strict=True))), len(sentences) - len(fitting))


def cosines_by_layer(one: Sequence[Tensor], other: Sequence[Tensor]) -> list[float]:
    """The cosine of two vectors after each layer; vectors that are the same have 1."""
    return [float(F.cosine_similarity(a.double(), b.double(), 0)) for a, b in zip(one, other, strict=True)]


def layer_at(names: Sequence[str], layer: int | None) -> int:
    """The number among `names` of a layer; of the last when none is asked for. Raises BadSetting for one not there."""
    blocks = [at for at, name in enumerate(names) if name.isdecimal()]
    if layer is None:
        return blocks[-1]
    if not -len(blocks) <= layer < len(blocks):
        raise BadSetting(f"layer is {layer}, and the model has {len(blocks)}; give 0 to {len(blocks) - 1}")
    return blocks[layer]
