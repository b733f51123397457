"""Recurrent: token embedding, recurrent layers, unembedding. Mikolov et al. 2010; Merity et al. 2018."""

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
from clearstory.models.recurrent.cells import CellState, RecurrentLayer, RecurrentState
from clearstory.models.recurrent.config import RecurrentConfig


class Recurrent(nn.Module):
    """A recurrent language model: the next token is predicted from a state of constant size, which each token updates.

    >>> model = Recurrent(RecurrentConfig(vocab=67, width=8, hidden_size=16, layers=2))
    >>> hidden, state = model.forward(TokenBatch.from_sequences([[1, 2, 3]]), model.init_state())
    >>> model.logits(hidden).shape, state.lengths
    (torch.Size([1, 3, 67]), [3])
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.vocab = c.vocab
        self.context: int | None = None  # unlimited
        self.compute_dtype: torch.dtype | None = None  # of cells and products; None: that of the weights
        self.embedding = nn.Embedding(c.vocab, c.width)
        inputs = (c.width, *c.units[:-1])
        self.layers = nn.ModuleList(
            RecurrentLayer(c.cell, size, units, c.weight_drop) for size, units in zip(inputs, c.units, strict=True)
        )
        self.unembedding = None if c.tie_embeddings else nn.Linear(c.units[-1], c.vocab, bias=False)
        self.cluster_embeddings = nn.Parameter(torch.empty(len(c.cutoffs), c.units[-1])) if c.cutoffs else None
        self.reset()

    @torch.no_grad()
    def reset(self, initialization: Literal["normal", "zero"] = "normal") -> None:
        """Initialise the weights; zero: an untied unembedding is zero."""
        c = self.config
        if self.embedding.weight.is_meta:
            return
        # Merity et al. 2018, section 4: U(-0.1, 0.1) for embeddings, U(-1/√H, 1/√H) for cells, PyTorch's own.
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        for layer, units in zip(self.layers, c.units, strict=True):
            for weight in layer.parameters():
                nn.init.uniform_(weight, -(units**-0.5), units**-0.5)
            if c.cell == "lstm":
                # Jozefowicz et al. 2015, section 3.2: forget gates that start open.
                cast(RecurrentLayer, layer).input.bias[units : 2 * units] += 1.0
        for output in (None if self.unembedding is None else self.unembedding.weight, self.cluster_embeddings):
            if output is not None:
                nn.init.uniform_(output, -0.1, 0.1)
                output *= float(initialization == "normal")

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Capabilities of a recurrent model; an adaptive softmax has no plain output embeddings."""
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
        """One output vector for each token, (V, W), under a plain and an adaptive softmax alike."""
        return self.embedding.weight if self.unembedding is None else self.unembedding.weight

    @property
    def output_weight(self) -> Float[Tensor, "V W"] | None:
        """Output embeddings where logits are hidden states times their transpose; None under an adaptive softmax."""
        return self.output_embeddings if self.cluster_embeddings is None else None

    def init_state(self, batch_size: int = 1) -> RecurrentState:
        """The zero state of `batch_size` empty sequences."""
        zeros = tuple(self.embedding.weight.new_zeros(batch_size, units) for units in self.config.units)
        return RecurrentState(zeros, zeros if self.config.cell == "lstm" else (), n_read=(0,) * batch_size)

    def forward(
        self, tokens: TokenBatch, state: RecurrentState | None = None
    ) -> tuple[Float[Tensor, "B T W"], RecurrentState | None]:
        """Last layer's output after each token, (B, T, W), and the state after the last; without a state, None.

        Raises VocabularyMismatch for an id outside the vocabulary.
        """
        check_ids(tokens.ids, self.vocab)
        batch_size, count = tokens.ids.shape
        before = self.init_state(batch_size) if state is None else state
        x = self.embed_tokens(tokens.ids.t())
        cells = before.cells or (None,) * len(self.layers)
        after: list[CellState] = []
        for index, (layer, hidden, cell) in enumerate(zip(self.layers, before.hidden, cells, strict=True)):
            x, cell_state = layer(x, CellState(hidden, cell), tokens.lengths)
            after.append(cell_state)
            last = index == len(self.layers) - 1
            x = self.drop_units(x, self.config.dropout if last else self.config.dropout_hidden)
        out = x.transpose(0, 1)
        if state is None:
            return out, None
        new = [count] * batch_size if tokens.lengths is None else tokens.lengths.tolist()
        return out, RecurrentState(
            tuple(each.hidden for each in after),
            tuple(each.cell for each in after if each.cell is not None),
            n_read=tuple(old + more for old, more in zip(state.n_read, new, strict=True)),
        )

    def embed_tokens(self, ids: Int[Tensor, "T B"]) -> Float[Tensor, "T B W"]:
        """Token embeddings, (T, B, W). In training some tokens are dropped everywhere (Gal and Ghahramani 2016, section
        4.2).
        """
        x: Tensor = self.embedding(ids)
        if self.training and self.config.dropout_embedding:
            keep = F.dropout(x.new_ones(self.vocab), self.config.dropout_embedding)
            x = x * keep[ids].unsqueeze(-1)
        if self.compute_dtype is not None:
            x = x.to(self.compute_dtype)
        return self.drop_units(x, self.config.dropout_input)

    def drop_units(self, x: Float[Tensor, "T B W"], rate: float) -> Float[Tensor, "T B W"]:
        """Variational dropout: in training, the same units are dropped at every time step."""
        if not self.training or not rate:
            return x
        return x * F.dropout(x.new_ones(1, *x.shape[1:]), rate)

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token for these hidden states, (..., V); log-probabilities under an adaptive softmax."""
        if self.cluster_embeddings is None:
            return cross_entropy.output_logits(hidden, self.output_embeddings)
        return cross_entropy.adaptive_log_probs(
            hidden, self.output_embeddings, self.config.cutoffs, self.cluster_embeddings
        )

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: RecurrentState | None = None
    ) -> tuple[Float[Tensor, "B T"], RecurrentState | None]:
        """Negative log-likelihood of each target in nats, (B, T); 0 where it is IGNORE_INDEX."""
        hidden, state = self.forward(tokens, state)
        nll = cross_entropy.adaptive_cross_entropy(
            hidden, self.output_embeddings, targets, self.config.cutoffs, self.cluster_embeddings
        )
        return nll, state

    def compile(self, *_: object, **__: object) -> None:
        """Does nothing: PyTorch's cells are fused kernels already, at which its compiler breaks the graph."""


def check_ids(ids: Tensor, vocab: int) -> None:
    """Raises VocabularyMismatch for an id outside the vocabulary."""
    if ids.numel() and not ids.is_meta and (worst := int(ids.max())) >= vocab:
        raise VocabularyMismatch(
            f"token id {worst:,} lies outside the model's vocabulary of {vocab:,}; "
            "open the tokenizer that was saved with the model"
        )
