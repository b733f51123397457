"""RecurrentEncoderDecoder: recurrent sequence to sequence. Sutskever et al. 2014; Cho et al. 2014; Bahdanau et al.
2015; Luong et al. 2015.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.models import cross_entropy
from clearstory.models.autograd_functions import dropout
from clearstory.models.base import TokenBatch, check_sources
from clearstory.models.capabilities import Capability
from clearstory.models.recurrent.cells import CellState, RecurrentLayer
from clearstory.models.recurrent.model import check_ids
from clearstory.models.recurrent.seq2seq_config import RecurrentSeq2SeqConfig
from clearstory.models.recurrent.source_decoder import DecoderSource, RecurrentSeq2SeqState, SourceDecoder
from clearstory.models.recurrent.source_encoder import SourceEncoder


class RecurrentEncoderDecoder(nn.Module):
    """A recurrent encoder of a source, whose last states are the first of a recurrent decoder, with or without
    attention to the source; one token embedding serves both.

    >>> model = RecurrentEncoderDecoder(RecurrentSeq2SeqConfig(vocab=32, width=8, hidden_size=16))
    >>> state = model.init_state(1, source=TokenBatch.from_sequences([[5, 6, 7]]))
    >>> hidden, state = model.forward(TokenBatch.from_sequences([[0]]), state)
    >>> model.logits(hidden).shape
    torch.Size([1, 1, 32])
    """

    def __init__(self, config: RecurrentSeq2SeqConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.vocab = c.vocab
        self.context: int | None = None  # unlimited
        self.compute_dtype: torch.dtype | None = None  # of cells and products; None: that of the weights
        self.embedding = nn.Embedding(c.vocab, c.width)
        self.encoder = SourceEncoder(c)
        self.decoder = SourceDecoder(c)
        self.unembedding = None if c.tie_embeddings else nn.Linear(c.width, c.vocab, bias=False)
        self.unembedding_bias: nn.Parameter | None = None
        self.reset()

    @torch.no_grad()
    def reset(self, initialization: Literal["normal", "zero"] = "normal") -> None:
        """Initialise the weights; zero: an untied unembedding is zero."""
        if self.embedding.weight.is_meta:
            return
        # As in Recurrent: U(-0.1, 0.1) for embeddings, U(-1/√H, 1/√H) for the rest, PyTorch's own for cells.
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        bound = self.config.hidden_size**-0.5
        for weight in (*self.encoder.parameters(), *self.decoder.parameters()):
            nn.init.uniform_(weight, -bound, bound)
        if self.config.cell == "lstm":
            for layer in self.modules():
                if isinstance(layer, RecurrentLayer):
                    # Jozefowicz et al. 2015, section 3.2: forget gates that start open.
                    units = len(layer.input.bias) // 4
                    layer.input.bias[units : 2 * units] += 1.0
        if self.unembedding is not None:
            nn.init.uniform_(self.unembedding.weight, -0.1, 0.1)
            self.unembedding.weight *= float(initialization == "normal")

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Capabilities of the model: attention where it has it."""
        always = {
            Capability.CAUSAL,
            Capability.SOURCE,
            Capability.EMBEDDINGS,
            Capability.OUTPUT_EMBEDDINGS,
            Capability.GRADIENTS,
        }
        return frozenset(always if self.config.attention == "none" else always | {Capability.ATTENTION})

    @property
    def output_weight(self) -> Float[Tensor, "V W"]:
        """Output embeddings, (V, W): logits are hidden states times their transpose."""
        return self.embedding.weight if self.unembedding is None else self.unembedding.weight

    def encode(self, source: TokenBatch) -> tuple[list[CellState], DecoderSource]:
        """The decoder's first states, and what it reads of the source."""
        check_ids(source.ids, self.vocab)
        encoded = self.encoder(self.embed(source.ids.t()), source.lengths)
        return encoded.states, self.decoder.source_of(encoded.outputs, encoded.states[-1], source.lengths)

    def embed(self, ids: Int[Tensor, "T B"]) -> Float[Tensor, "T B W"]:
        """Token embeddings, (T, B, W)."""
        x: Tensor = self.embedding(ids)
        x = x if self.compute_dtype is None else x.to(self.compute_dtype)
        return dropout(x, self.config.dropout, self.training)

    @torch.no_grad()
    def init_state(self, batch_size: int = 1, source: TokenBatch | None = None) -> RecurrentSeq2SeqState:
        """The state of `batch_size` empty sequences, each after the source of its row.

        Raises CannotDo without a source, or with another number of sources.
        """
        states, encoded = self.encode(check_sources(source, batch_size))
        zero = RecurrentSeq2SeqState((), (), *encoded, n_read=(0,) * batch_size)
        return zero.updated(states, zero.n_read)

    def forward(
        self, tokens: TokenBatch, state: RecurrentSeq2SeqState | None = None, source: TokenBatch | None = None
    ) -> tuple[Float[Tensor, "B T W"], RecurrentSeq2SeqState | None]:
        """Decoder hidden states after each token, (B, T, W): continuing a state, or from the start with a source.

        Raises CannotDo with neither, VocabularyMismatch for an id outside the vocabulary.
        """
        check_ids(tokens.ids, self.vocab)
        y = self.embed(tokens.ids.t())
        if state is not None:
            return self.continued(y, tokens, state)
        states, encoded = self.encode(check_sources(source, len(tokens.ids)))
        hidden: Tensor = self.decoder(y, states, encoded)
        return hidden, None

    @torch.no_grad()
    def continued(
        self, y: Float[Tensor, "T B W"], tokens: TokenBatch, state: RecurrentSeq2SeqState
    ) -> tuple[Float[Tensor, "B T W"], RecurrentSeq2SeqState]:
        """Decoder hidden states of new tokens, and the state after them."""
        hidden, states = self.decoder.decode(y, state.states, state.source, tokens.lengths)
        new = [len(y)] * len(tokens.ids) if tokens.lengths is None else tokens.lengths.tolist()
        return hidden, state.updated(states, tuple(old + more for old, more in zip(state.n_read, new, strict=True)))

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token for these hidden states, (..., V)."""
        return cross_entropy.output_logits(hidden, self.output_weight)

    def token_nll(
        self,
        tokens: TokenBatch,
        targets: Int[Tensor, "B T"],
        state: RecurrentSeq2SeqState | None = None,
        source: TokenBatch | None = None,
    ) -> tuple[Float[Tensor, "B T"], RecurrentSeq2SeqState | None]:
        """Negative log-likelihood of each target in nats, (B, T), given the source and the tokens up to it; 0 where it
        is IGNORE_INDEX.
        """
        hidden, state = self.forward(tokens, state, source)
        return cross_entropy.linear_cross_entropy(hidden, self.output_weight, targets), state

    def compile(self, *_: object, **__: object) -> None:
        """Does nothing: the layers are fused passes already, at which PyTorch's compiler breaks the graph."""
