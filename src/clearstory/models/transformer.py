"""Transformer: tokens, embedding, positions, blocks, last norm, unembedding by the transpose.

Vaswani et al. 2017; as a decoder, Radford et al. 2018.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import ContextOverflow, VocabularyMismatch
from clearstory.models import unembed
from clearstory.models.base import Padded
from clearstory.models.block import Block, Turn, make_norm
from clearstory.models.cache import Cache
from clearstory.models.config import TransformerConfig
from clearstory.models.positions import Rotary

INIT_STD = 0.02
"""Radford et al. 2019. torch's own N(0, 1) embedding, tied to the output, begins at 34 nats where ln V is 3.4."""


class Transformer(nn.Module):
    """A decoder: reads left to right; after every token says how likely each next one is.

    >>> from clearstory.models.presets import NANOGPT_CHAR
    >>> model = Transformer(NANOGPT_CHAR)
    >>> hidden, _ = model.read(Padded.rows([[1, 2, 3]]))
    >>> model.predict(hidden).shape
    torch.Size([1, 3, 67])
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.vocab = c.vocab
        self.context: int | None = c.context
        self.arithmetic: torch.dtype | None = None  # of the stream; None: that of the weights
        self.embedding = nn.Embedding(c.vocab, c.width)
        self.places = nn.Embedding(c.context, c.width) if c.positions == "learned" else None
        self.rotary = Rotary(c.head_width, c.context, c.rope_theta) if c.positions == "rotary" else None
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = make_norm(c, c.width)
        self.unembedding = None if c.tied else nn.Linear(c.width, c.vocab, bias=False)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Weights as at birth: N(0, 0.02); what is added to the residual stream scaled down by its depth."""
        for name, weight in self.named_parameters():
            if weight.is_meta:
                return
            if weight.ndim < 2:
                nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)
            else:
                # Radford et al. 2019, section 2.3: 1/√N for N residual layers.
                residual = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(weight, std=INIT_STD / math.sqrt(2 * self.config.layers) if residual else INIT_STD)

    @property
    def output_weight(self) -> Float[Tensor, "V W"]:
        """One vector for each word, to be held against what the model knows."""
        return self.embedding.weight if self.unembedding is None else self.unembedding.weight

    def begin(self, rows: int = 1) -> Cache:
        """The memory of `rows` rows that have read nothing."""
        c = self.config
        return Cache.empty(rows, self.embedding.weight, c.layers, c.kv_heads, c.head_width)

    def read(self, tokens: Padded, state: Cache | None = None) -> tuple[Float[Tensor, "B T W"], Cache | None]:
        """What the model knows after each token.

        Raises ContextOverflow when a row grows past the context, VocabularyMismatch when an id is not in the vocabulary.
        """
        if state is None:
            self.check(tokens.ids, tokens.ids.shape[1])
            return self(tokens.ids), None
        return self.read_on(tokens, state)

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T W"]:
        """The stack without a cache: what training reads with, and torch.compile sees. Padding must stand on the right,
        where what comes before it cannot look.
        """
        x = self.embed(ids, slice(0, ids.shape[1]))
        turn = None if self.rotary is None else self.rotary.at(slice(0, ids.shape[1]), x.dtype)
        for block in self.blocks:
            x = block(x, turn)
        return cast(Tensor, self.norm(x))

    @torch.no_grad()
    def read_on(self, tokens: Padded, state: Cache) -> tuple[Tensor, Cache]:
        """Read after what each row has read already; keys and values are kept, gradients are not."""
        count = tokens.ids.shape[1]
        new = [count] * len(state.rows) if tokens.lengths is None else tokens.lengths.tolist()
        before = state.lengths
        self.check(tokens.ids, max(b + n for b, n in zip(before, new, strict=True)))
        rows = tuple(row.grown(n, self.config.window) for row, n in zip(state.rows, new, strict=True))
        starts = torch.tensor(before, device=tokens.ids.device)
        # Padding may stand past the context; its place does not matter, only that it has one.
        places = (starts[:, None] + torch.arange(count, device=starts.device)).clamp(max=self.config.context - 1)
        x = self.embed(tokens.ids, places)
        turn: Turn | None = None if self.rotary is None else self.rotary.at(places, x.dtype)
        layers = zip(*(row.by_layer(n) for row, n in zip(rows, new, strict=True)), strict=True)
        for block, past in zip(self.blocks, layers, strict=True):
            x = block(x, turn, list(past))
        return self.norm(x), replace(state, rows=rows)

    def embed(self, ids: Int[Tensor, "B T"], places: Int[Tensor, "B T"] | slice) -> Float[Tensor, "B T W"]:
        """Each token's vector, plus its place's where places are learned."""
        x: Tensor = self.embedding(ids)
        if self.places is not None:
            x = x + self.places.weight[places]
        if self.arithmetic is not None:
            x = x.to(self.arithmetic)
        return F.dropout(x, self.config.dropout, self.training)

    def predict(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token, only where asked for."""
        return unembed.logits(hidden, self.output_weight)

    def score(
        self, tokens: Padded, targets: Int[Tensor, "B T"], state: Cache | None = None
    ) -> tuple[Float[Tensor, "B T"], Cache | None]:
        """Nats of each target after reading up to it, 0 where it is IGNORE."""
        hidden, state = self.read(tokens, state)
        return unembed.nats(hidden, self.output_weight, targets), state

    def check(self, ids: Tensor, length: int) -> None:
        """Refuse what would otherwise fail far away, or not at all."""
        if length > self.config.context:
            raise ContextOverflow(
                f"{length:,} tokens do not fit the model's context of {self.config.context:,}; "
                "shorten the text, or pass --truncate left to keep its end"
            )
        if ids.numel() and not ids.is_meta and (worst := int(ids.max())) >= self.vocab:
            raise VocabularyMismatch(
                f"token id {worst:,} lies outside the model's vocabulary of {self.vocab:,}; "
                "open the tokenizer saved beside the model"
            )
