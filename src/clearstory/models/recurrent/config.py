"""Config: the fields in which recurrent models differ, their parameters counted on paper, and their size as a dial."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from clearstory.errors import BadSetting

Cell = Literal["rnn", "gru", "lstm"]

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Vectors that a cell computes for each token, each from the input and from what it remembers."""

NAMES = {"rnn": "tanh", "gru": "GRU", "lstm": "LSTM"}


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """One recurrent model's shape and regularisers. A preset is a difference from another (`dataclasses.replace`).

    Args:
        vocab: tokens the model knows.
        cell: rnn is a plain tanh (Elman 1990), gru has two gates (Cho et al. 2014), lstm three and a cell that only
            gates touch (Hochreiter and Schmidhuber 1997; Gers et al. 2000).
        width: length of a token's vector.
        hidden_size: units of a layer; the last one of a tied model has `width`.
        layers: cells, one above the other.
        tie_embeddings: whether the unembedding is the embedding's transpose (Press and Wolf 2017).
        cutoffs: where the vocabulary is cut into a head and rarer parts, for an adaptive softmax (Grave et al. 2017);
            none is the plain softmax. Wants ids in the order of falling frequency, as tokenizers of words have them.
        dropout: share of the last layer's output that is dropped in training, the same units at every time (Gal and
            Ghahramani 2016), as in the next two.
        dropout_input: share of the vectors that go into the first layer.
        dropout_hidden: share of what goes from one layer to the next.
        dropout_embedding: share of the words that are dropped wherever they stand.
        weight_drop: share of the weights from memory to memory that are dropped (Wan et al. 2013; Merity et al. 2018).
    """

    vocab: int
    cell: Cell = "lstm"
    width: int
    hidden_size: int
    layers: int
    tie_embeddings: bool = True
    cutoffs: tuple[int, ...] = ()
    dropout: float = 0.0
    dropout_input: float = 0.0
    dropout_hidden: float = 0.0
    dropout_embedding: float = 0.0
    weight_drop: float = 0.0

    @property
    def family(self) -> str:
        """The kind in one word."""
        return self.cell

    @property
    def start_token_id(self) -> int | None:
        """None: the tokenizer names it."""
        return None

    @property
    def summary(self) -> str:
        """The model in words."""
        return f"{self.layers} {NAMES[self.cell]} layer{'s' * (self.layers > 1)} of {self.hidden_size} units"

    @property
    def units(self) -> tuple[int, ...]:
        """Units of each layer, from below."""
        return (*[self.hidden_size] * (self.layers - 1), self.width if self.tie_embeddings else self.hidden_size)

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "hidden_size", "layers"):
            value = getattr(self, name)
            # A ceiling, so that a lying config.json is refused before anything is allocated.
            if not 1 <= value <= 2**24:
                raise BadSetting(f"model.{name} is {value:,}; it must lie between 1 and {2**24:,}")
        if self.tie_embeddings and self.layers == 1 and self.width != self.hidden_size:
            raise BadSetting(
                f"the only layer of a tied model has as many units as a token's vector is long, and model.hidden_size is "
                f"{self.hidden_size:,} where model.width is {self.width:,}; make them equal, or set model.tie_embeddings to false"
            )
        for name in ("dropout", "dropout_input", "dropout_hidden", "dropout_embedding", "weight_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise BadSetting(f"model.{name} is {getattr(self, name)}; it must be at least 0 and under 1")
        ends = (0, *self.cutoffs, self.vocab)
        if any(low >= high for low, high in pairwise(ends)):
            raise BadSetting(
                f"model.cutoffs is {self.cutoffs}; give rising numbers of tokens under the vocabulary's {self.vocab:,}"
            )


def parameter_count(config: RecurrentConfig) -> int:
    """Numbers a model of this config learns, counted on paper: embedding, cells, unembedding, parts of the softmax.

    >>> parameter_count(RecurrentConfig(vocab=33_278, width=400, hidden_size=1150, layers=3))  # AWD-LSTM on WikiText-2
    33522800
    """
    c = config
    inputs = (c.width, *c.units[:-1])
    gates = GATES[c.cell]
    cells = sum(gates * units * (below + units + 2) for below, units in zip(inputs, c.units, strict=True))
    last = c.units[-1]
    return c.vocab * c.width + cells + (0 if c.tie_embeddings else c.vocab * last) + len(c.cutoffs) * last


def scale_recurrent(config: RecurrentConfig, target: int) -> RecurrentConfig:
    """The same layers at about `target` parameters: width and hidden in their proportion, in steps of 16.

    >>> parameter_count(scale_recurrent(RecurrentConfig(vocab=100, width=64, hidden_size=128, layers=2), 1_000_000)) // 50_000
    20
    """
    shapes = (
        replace(config, hidden_size=hidden, width=max(8, round(config.width / config.hidden_size * hidden / 8) * 8))
        for hidden in range(16, 8193, 16)
        # A single tied layer has one size only.
        if not (config.tie_embeddings and config.layers == 1 and config.width != config.hidden_size)
    )
    return min(shapes, key=lambda shape: abs(math.log(parameter_count(shape) / target)), default=config)
