"""RecurrentConfig: settings of recurrent models, their parameter count, and configs of a given size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.models.config import CausalConfig

Cell = Literal["rnn", "gru", "lstm"]

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
"""Vectors that a cell computes for each token, each from the input and from the hidden state."""

CELL_NAMES = {"rnn": "tanh", "gru": "GRU", "lstm": "LSTM"}


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig(CausalConfig):
    """Size and regularisation of a recurrent model. A preset is a difference from another (`dataclasses.replace`).

    Args:
        vocab: vocabulary size in tokens.
        cell: rnn is a plain tanh cell (Elman 1990), gru has two gates (Cho et al. 2014), lstm has three gates and a
            cell state (Hochreiter and Schmidhuber 1997; Gers et al. 2000).
        width: size of the token embeddings.
        hidden_size: hidden units per layer; with tied embeddings, the last layer has `width` units.
        layers: number of recurrent layers.
        tie_embeddings: whether the unembedding is the embedding's transpose (Press and Wolf 2017).
        cutoffs: token ids at which the vocabulary is split into a head and clusters of rarer tokens, for an adaptive
            softmax (Grave et al. 2017); empty for a plain softmax. Ids must be in order of decreasing frequency, as in
            word tokenizers.
        dropout: dropout rate of the last layer's output; like the next two, variational: the same units at every time
            step (Gal and Ghahramani 2016).
        dropout_input: dropout rate of the first layer's input.
        dropout_hidden: dropout rate between layers.
        dropout_embedding: dropout rate of the embeddings of whole tokens of the vocabulary.
        weight_drop: dropout rate of the recurrent weights (Wan et al. 2013; Merity et al. 2018).
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
        """The cell: rnn, gru or lstm."""
        return self.cell

    @property
    def summary(self) -> str:
        """Layers and units in one phrase."""
        return f"{self.layers} {CELL_NAMES[self.cell]} layer{'s' * (self.layers > 1)} of {self.hidden_size} units"

    @property
    def units(self) -> tuple[int, ...]:
        """Number of units of each layer, from the first."""
        return (
            *[self.hidden_size] * (self.layers - 1),
            self.width if self.tie_embeddings else self.hidden_size,
        )

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "hidden_size", "layers"):
            value = getattr(self, name)
            # A ceiling, so that a lying config.json is refused before anything is allocated.
            if not 1 <= value <= 2**24:
                raise BadSetting(f"model.{name} is {value:,}; it must lie between 1 and {2**24:,}")
        if self.tie_embeddings and self.layers == 1 and self.width != self.hidden_size:
            raise BadSetting(
                "the only layer of a model with tied embeddings must have the width of the embeddings, but "
                f"model.hidden_size is {self.hidden_size:,} and model.width is {self.width:,}; make them equal, "
                "or "
                "set model.tie_embeddings to false"
            )
        for name in ("dropout", "dropout_input", "dropout_hidden", "dropout_embedding", "weight_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise BadSetting(f"model.{name} is {getattr(self, name)}; it must be at least 0 and under 1")
        ends = (0, *self.cutoffs, self.vocab)
        if any(low >= high for low, high in pairwise(ends)):
            raise BadSetting(
                f"model.cutoffs is {self.cutoffs}; give increasing numbers of tokens below the vocabulary size, "
                f"{self.vocab:,}"
            )


def parameter_count(config: RecurrentConfig) -> int:
    """Number of parameters of a model with this config, computed without building it.

    >>> parameter_count(RecurrentConfig(vocab=33_278, width=400, hidden_size=1150, layers=3))  # AWD-LSTM on WikiText-2
    33522800
    """
    c = config
    inputs = (c.width, *c.units[:-1])
    gates = GATES[c.cell]
    cells = sum(gates * units * (size + units + 2) for size, units in zip(inputs, c.units, strict=True))
    last = c.units[-1]
    return c.vocab * c.width + cells + (0 if c.tie_embeddings else c.vocab * last) + len(c.cutoffs) * last


def scale_recurrent(config: RecurrentConfig, target: int) -> RecurrentConfig:
    """The same layers at about `target` parameters: width and hidden size in their proportion, in steps of 16.

    >>> small = RecurrentConfig(vocab=100, width=64, hidden_size=128, layers=2)
    >>> parameter_count(scale_recurrent(small, 1_000_000)) // 50_000
    20
    """
    candidates = (
        replace(config, hidden_size=size, width=max(8, round(config.width / config.hidden_size * size / 8) * 8))
        for size in range(16, 8193, 16)
        # A single layer with tied embeddings has one size only.
        if not (config.tie_embeddings and config.layers == 1 and config.width != config.hidden_size)
    )
    return min(candidates, key=lambda each: abs(math.log(parameter_count(each) / target)), default=config)


# Chosen on presidents' addresses in 40 CPU seconds: one layer with an untied unembedding gave 1.73 bits per byte on
# 2,048 subwords, two tied layers 2.16.
LSTM = RecurrentConfig(vocab=8192, width=256, hidden_size=512, layers=1, tie_embeddings=False)

# Merity et al. 2018, section 4: as trained on words of the Penn Treebank and WikiText-2.
AWD_LSTM = replace(
    LSTM,
    vocab=33_278,
    width=400,
    hidden_size=1150,
    layers=3,
    tie_embeddings=True,
    dropout=0.4,
    dropout_input=0.4,
    dropout_hidden=0.25,
    dropout_embedding=0.1,
    weight_drop=0.5,
)

RECURRENT_PRESETS: dict[str, RecurrentConfig] = {
    "rnn": replace(LSTM, cell="rnn"),
    "gru": replace(LSTM, cell="gru"),
    "lstm": LSTM,
    "awd-lstm": AWD_LSTM,
}
