"""RecurrentSeq2SeqConfig: the settings of recurrent encoder-decoders, their parameter count, and presets."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.models.recurrent.config import CELL_NAMES, GATES, Cell

SourceAttentionKind = Literal["none", "additive", "dot"]


@dataclass(frozen=True, kw_only=True)
class RecurrentSeq2SeqConfig:
    """Size of a recurrent encoder-decoder. A preset is a difference from another (`dataclasses.replace`).

    Args:
        vocab: vocabulary size in tokens, shared by source and target.
        decoder_start_token_id: token that the decoder starts from; default: the tokenizer's.
        cell: lstm, gru or rnn, as in RecurrentConfig.
        width: size of the token embeddings, and of the vector from which logits are computed.
        hidden_size: units of each layer of the encoder and of the decoder.
        layers: number of layers of the encoder and of the decoder.
        bidirectional: whether the encoder is bidirectional, with half of the units for each direction.
        reverse_source: whether the source is reversed (Sutskever et al. 2014, section 3.3).
        attention: none; additive (Bahdanau et al. 2015): the query is the previous state, and the context vector is an
            input of the next; dot (Luong et al. 2015, general): the query is the decoder's output.
        feed_summary: without attention, whether the encoder's last state is an input at every step (Cho et al. 2014).
        tie_embeddings: whether the unembedding is the embedding's transpose (Press and Wolf 2017).
        dropout: dropout rate of embeddings, between layers, and of the vector from which logits are computed.
    """

    vocab: int
    decoder_start_token_id: int | None = None
    cell: Cell = "lstm"
    width: int
    hidden_size: int
    layers: int = 1
    bidirectional: bool = True
    reverse_source: bool = False
    attention: SourceAttentionKind = "additive"
    feed_summary: bool = False
    tie_embeddings: bool = True
    dropout: float = 0.0

    @property
    def family(self) -> str:
        """The cell: rnn, gru or lstm."""
        return self.cell

    @property
    def architecture(self) -> str:
        """Encoder-decoder."""
        return "encoder-decoder"

    @property
    def context(self) -> None:
        """None: unlimited."""
        return None

    @property
    def start_token_id(self) -> int | None:
        """The token that generation starts after; None if the tokenizer names it."""
        return self.decoder_start_token_id

    @property
    def summary(self) -> str:
        """Layers, units and attention in one phrase."""
        kind = "no attention" if self.attention == "none" else f"{self.attention} attention"
        layers = f"{self.layers} and {self.layers} {CELL_NAMES[self.cell]} layers"
        return f"{layers} of {self.hidden_size} units, {kind}"

    @property
    def units(self) -> tuple[int, ...]:
        """Number of units of each layer of the decoder, and of each layer of the encoder."""
        return (self.hidden_size,) * self.layers

    @property
    def context_size(self) -> int:
        """Size of the vector of the source that the decoder reads at each step; 0 for none."""
        return self.hidden_size if self.attention != "none" or self.feed_summary else 0

    @property
    def feeds_context(self) -> bool:
        """Whether that vector is an input of the decoder's first layer; with dot attention, it is computed later."""
        return self.attention != "dot" and self.context_size > 0

    @property
    def head_dim(self) -> int:
        """Size of the queries and keys of attention."""
        return self.width if self.attention == "additive" else self.hidden_size

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "hidden_size", "layers"):
            value = getattr(self, name)
            # A ceiling, so that a lying config.json is refused before anything is allocated.
            if not 1 <= value <= 2**24:
                raise BadSetting(f"model.{name} is {value:,}; it must lie between 1 and {2**24:,}")
        if self.bidirectional and self.hidden_size % 2:
            raise BadSetting(
                f"model.hidden_size is {self.hidden_size:,}, but the two directions of the encoder share it; make it "
                "even, or set model.bidirectional to false"
            )
        if self.bidirectional and self.reverse_source:
            raise BadSetting(
                "model.reverse_source is true, but a bidirectional encoder already reads the source in both "
                "directions; set "
                "model.bidirectional to false"
            )
        if self.feed_summary and self.attention != "none":
            raise BadSetting(
                f"model.feed_summary is true and model.attention '{self.attention}', which already attends to the "
                "source; set model.attention to none"
            )
        if not 0 <= self.dropout < 1:
            raise BadSetting(f"model.dropout is {self.dropout}; it must be at least 0 and under 1")
        if self.decoder_start_token_id is not None and not 0 <= self.decoder_start_token_id < self.vocab:
            raise BadSetting(
                f"model.decoder_start_token_id is {self.decoder_start_token_id:,}; it must be one of the "
                f"{self.vocab:,} tokens, from 0"
            )


def seq2seq_parameter_count(config: RecurrentSeq2SeqConfig) -> int:
    """Number of parameters of a model with this config, computed without building it.

    >>> seq2seq_parameter_count(RecurrentSeq2SeqConfig(vocab=8, width=2, hidden_size=4, cell="rnn", attention="none"))
    86
    """
    c = config
    directions = 2 if c.bidirectional else 1
    encoder_inputs = (c.width, *c.units[:-1])
    decoder_inputs = (c.width + c.context_size * c.feeds_context, *c.units[:-1])

    def cells(inputs: tuple[int, ...], units: int) -> int:
        return sum(GATES[c.cell] * units * (size + units + 2) for size in inputs)

    attention = {"none": 0, "additive": c.head_dim * (2 * c.hidden_size + 1), "dot": c.head_dim * c.hidden_size}
    embeddings = c.vocab * c.width * (1 if c.tie_embeddings else 2)
    encoder = directions * cells(encoder_inputs, c.hidden_size // directions)
    readout = c.width * (c.hidden_size + c.context_size + c.width + 1)
    return embeddings + encoder + cells(decoder_inputs, c.hidden_size) + attention[c.attention] + readout


def scale_recurrent_seq2seq(config: RecurrentSeq2SeqConfig, target: int) -> RecurrentSeq2SeqConfig:
    """The same layers at about `target` parameters: width and hidden size in their proportion, in steps of 16.

    >>> small = RecurrentSeq2SeqConfig(vocab=100, width=64, hidden_size=128)
    >>> seq2seq_parameter_count(scale_recurrent_seq2seq(small, 1_000_000)) // 50_000
    19
    """
    candidates = (
        replace(config, hidden_size=size, width=max(8, round(config.width / config.hidden_size * size / 8) * 8))
        for size in range(16, 8193, 16)
    )
    return min(candidates, key=lambda each: abs(math.log(seq2seq_parameter_count(each) / target)))


LSTM_ATTENTION = RecurrentSeq2SeqConfig(vocab=8192, width=256, hidden_size=512, dropout=0.3)

RECURRENT_SEQ2SEQ_PRESETS: dict[str, RecurrentSeq2SeqConfig] = {
    "lstm-seq2seq": replace(LSTM_ATTENTION, bidirectional=False, reverse_source=True, attention="none"),
    "gru-seq2seq": replace(LSTM_ATTENTION, cell="gru", bidirectional=False, attention="none", feed_summary=True),
    "lstm-attention": LSTM_ATTENTION,
    "gru-attention": replace(LSTM_ATTENTION, cell="gru"),
    "luong": replace(LSTM_ATTENTION, attention="dot"),
}
"""Sutskever et al. 2014; Cho et al. 2014; Bahdanau et al. 2015 with either cell; the attention of Luong et al. 2015."""
