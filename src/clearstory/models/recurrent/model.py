"""Recurrent: tokens, embedding, cells one above the other, unembedding. Mikolov et al. 2010; Merity et al. 2018."""

from __future__ import annotations

from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import VocabularyMismatch
from clearstory.models import cross_entropy
from clearstory.models.base import TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.recurrent import adaptive_softmax
from clearstory.models.recurrent.cells import CellState, RecurrentLayer
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.models.recurrent.state import RecurrentState

Birth = Literal["normal", "zero"]


class Recurrent(nn.Module):
    """Reads left to right into a memory of fixed size; after every token says how likely each next one is.

    >>> model = Recurrent(RecurrentConfig(vocab=67, width=8, hidden_size=16, layers=2))
    >>> hidden, memory = model.forward(TokenBatch.from_sequences([[1, 2, 3]]), model.init_state())
    >>> model.logits(hidden).shape, memory.lengths
    (torch.Size([1, 3, 67]), [3])
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.vocab = c.vocab
        self.context: int | None = None  # it forgets, but not on purpose
        self.compute_dtype: torch.dtype | None = None  # of the cells and the products; None: that of the weights
        self.embedding = nn.Embedding(c.vocab, c.width)
        inputs = (c.width, *c.units[:-1])
        self.layers = nn.ModuleList(
            RecurrentLayer(c.cell, below, units, c.weight_drop) for below, units in zip(inputs, c.units, strict=True)
        )
        self.unembedding = None if c.tie_embeddings else nn.Linear(c.units[-1], c.vocab, bias=False)
        self.names = nn.Parameter(torch.empty(len(c.cutoffs), c.units[-1])) if c.cutoffs else None
        self.reset()

    @torch.no_grad()
    def reset(self, birth: Birth = "normal") -> None:
        """Weights as at birth. still: an unembedding of its own begins by saying nothing."""
        c = self.config
        if self.embedding.weight.is_meta:
            return
        # Merity et al. 2018, section 4: U(-0.1, 0.1) for words, U(-1/√H, 1/√H) for cells, which is torch's own.
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        for layer, units in zip(self.layers, c.units, strict=True):
            for weight in layer.parameters():
                nn.init.uniform_(weight, -(units**-0.5), units**-0.5)
            if c.cell == "lstm":
                # Jozefowicz et al. 2015, section 3.2: what begins by remembering learns faster what to forget.
                cast(RecurrentLayer, layer).input.bias[units : 2 * units] += 1.0
        for words in (None if self.unembedding is None else self.unembedding.weight, self.names):
            if words is not None:
                nn.init.uniform_(words, -0.1, 0.1)
                words *= float(birth == "normal")

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What a recurrent model can do; an adaptive softmax has no plain output embeddings."""
        always = {
            Capability.CAUSAL,
            Capability.RECURRENT_STATE,
            Capability.GATES,
            Capability.EMBEDDINGS,
            Capability.GRADIENTS,
        }
        return frozenset(always if self.config.cutoffs else always | {Capability.OUTPUT_EMBEDDINGS})

    @property
    def output_embeddings(self) -> Float[Tensor, "V W"]:
        """One vector for each word, to be held against what the model knows."""
        return self.embedding.weight if self.unembedding is None else self.unembedding.weight

    @property
    def output_weight(self) -> Float[Tensor, "V W"] | None:
        """The word vectors where logits are plain products with them; None under an adaptive softmax."""
        return self.output_embeddings if self.names is None else None

    def init_state(self, batch_size: int = 1) -> RecurrentState:
        """The memory of `batch_size` rows that have read nothing."""
        blank = tuple(self.embedding.weight.new_zeros(batch_size, units) for units in self.config.units)
        return RecurrentState(blank, blank if self.config.cell == "lstm" else (), (0,) * batch_size)

    def forward(
        self, tokens: TokenBatch, state: RecurrentState | None = None
    ) -> tuple[Float[Tensor, "B T W"], RecurrentState | None]:
        """The last layer's vector after each token. Raises VocabularyMismatch for an id it does not know."""
        self.check_ids(tokens.ids)
        rows, count = tokens.ids.shape
        memory = self.init_state(rows) if state is None else state
        x = self.embed_tokens(tokens.ids.t())
        cells = memory.cells or (None,) * len(self.layers)
        kept: list[CellState] = []
        for number, (layer, hidden, cell) in enumerate(zip(self.layers, memory.hidden, cells, strict=True)):
            x, after = layer(x, CellState(hidden, cell), tokens.lengths)
            kept.append(after)
            last = number == len(self.layers) - 1
            x = self.drop(x, self.config.dropout if last else self.config.dropout_hidden)
        out = x.transpose(0, 1)
        if state is None:
            return out, None
        new = [count] * rows if tokens.lengths is None else tokens.lengths.tolist()
        return out, RecurrentState(
            tuple(each.hidden for each in kept),
            tuple(each.cell for each in kept if each.cell is not None),
            tuple(before + more for before, more in zip(state.read, new, strict=True)),
        )

    def embed_tokens(self, ids: Int[Tensor, "T B"]) -> Float[Tensor, "T B W"]:
        """Each token's vector. In training some words are missing altogether (Gal and Ghahramani 2016, section 4.2)."""
        x: Tensor = self.embedding(ids)
        if self.training and self.config.dropout_embedding:
            words = F.dropout(x.new_ones(self.vocab), self.config.dropout_embedding)
            x = x * words[ids].unsqueeze(-1)
        if self.compute_dtype is not None:
            x = x.to(self.compute_dtype)
        return self.drop(x, self.config.dropout_input)

    def drop(self, x: Float[Tensor, "T B W"], share: float) -> Float[Tensor, "T B W"]:
        """In training, without the same units at every time."""
        if not self.training or not share:
            return x
        return x * F.dropout(x.new_ones(1, *x.shape[1:]), share)

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token, only where asked for."""
        if self.names is None:
            return cross_entropy.output_logits(hidden, self.output_embeddings)
        return adaptive_softmax.adaptive_log_probs(hidden, self.output_embeddings, self.config.cutoffs, self.names)

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: RecurrentState | None = None
    ) -> tuple[Float[Tensor, "B T"], RecurrentState | None]:
        """Nats of each target after reading up to it, 0 where it is IGNORE_INDEX."""
        hidden, state = self.forward(tokens, state)
        return adaptive_softmax.adaptive_cross_entropy(
            hidden, self.output_embeddings, targets, self.config.cutoffs, self.names
        ), state

    def compile(self, *_: object, **__: object) -> None:
        """Nothing: torch's cells are kernels already, and its compiler breaks the graph at each of them."""

    def check_ids(self, ids: Tensor) -> None:
        """Refuse what would otherwise fail far away, or not at all."""
        if ids.numel() and not ids.is_meta and (worst := int(ids.max())) >= self.vocab:
            raise VocabularyMismatch(
                f"token id {worst:,} lies outside the model's vocabulary of {self.vocab:,}; "
                "open the tokenizer saved beside the model"
            )
