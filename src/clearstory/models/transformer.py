"""Transformer: tokens, embedding, positions, blocks, last norm, unembedding by the transpose.

Vaswani et al. 2017; as a decoder, Radford et al. 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import ContextOverflow, VocabularyMismatch
from clearstory.models import unembed
from clearstory.models.base import IGNORE, Padded
from clearstory.models.block import Block, Turn, make_norm
from clearstory.models.cache import Cache, RowCache
from clearstory.models.config import TransformerConfig
from clearstory.models.positions import Rotary
from clearstory.models.recall import Recall

Birth = Literal["normal", "still"]

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
        self.recall = Recall(c.recall, c.recall_rows, c.vocab, c.width) if c.recall else None
        self.reset()

    @torch.no_grad()
    def reset(self, birth: Birth = "normal") -> None:
        """Weights as at birth.

        normal: N(0, 0.02), what is added to the residual stream scaled down by its depth (Radford et al. 2019).
        still: every block and the unembedding begin by saying nothing, embeddings at N(0, 1), all else at a scale that
        keeps a norm's output as large as it was (Zhang et al. 2019, "Fixup"; Yang et al. 2022 for the scales). It
        learns faster where the steps are few; tied embeddings cannot be zero, and keep 0.02.
        """
        for name, weight in self.named_parameters():
            if weight.is_meta:
                return
            if name.startswith("recall."):
                continue
            # What is added to the residual stream, or is the answer itself.
            residual = name.endswith(("output.weight", "down.weight"))
            if weight.ndim < 2:
                nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)
            elif birth == "normal":
                # Section 2.3: 1/√N for N residual layers.
                nn.init.normal_(weight, std=INIT_STD / math.sqrt(2 * self.config.layers) if residual else INIT_STD)
            elif residual or name == "unembedding.weight":
                nn.init.zeros_(weight)
            elif name.startswith(("embedding", "places")):
                nn.init.normal_(weight, std=INIT_STD if self.config.tied else 1.0)
            else:
                nn.init.normal_(weight, std=0.5 / math.sqrt(weight.shape[1]))
        if self.recall is not None:
            self.recall.reset()

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

        Raises ContextOverflow when a row grows past the context, VocabularyMismatch for an id it does not know.
        """
        if state is None:
            self.check(tokens.ids, tokens.ids.shape[1])
            return self(tokens.ids), None
        return self.read_on(tokens, state)

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T W"]:
        """The stack without a cache: what training reads with, and torch.compile sees. Padding must stand on the right,
        where what comes before it cannot look.
        """
        remembered = None if self.recall is None else self.recall(ids)
        x = self.embed(ids, slice(0, ids.shape[1]), remembered)
        turn = None if self.rotary is None else self.rotary.at(slice(0, ids.shape[1]), x.dtype)
        for block in self.blocks:
            x = block(x, turn)
        return self.finish(x, remembered)

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
        remembered = None
        if self.recall is not None:
            rows, remembered = self.remember(tokens.ids, state.rows, rows, new)
        x = self.embed(tokens.ids, places, remembered)
        turn: Turn | None = None if self.rotary is None else self.rotary.at(places, x.dtype)
        layers = zip(*(row.by_layer(n) for row, n in zip(rows, new, strict=True)), strict=True)
        for block, past in zip(self.blocks, layers, strict=True):
            x = block(x, turn, list(past))
        return self.finish(x, remembered), replace(state, rows=rows)

    def remember(
        self, ids: Tensor, before: Sequence[RowCache], after: Sequence[RowCache], new: Sequence[int]
    ) -> tuple[tuple[RowCache, ...], Tensor]:
        """What the n-grams that end in these tokens recall, those that began before them too."""
        assert self.recall is not None
        back = max(self.recall.orders) - 1
        found, rows = [], []
        for row, old, grown, count in zip(ids, before, after, new, strict=True):
            whole = torch.cat([torch.tensor(old.recent, dtype=row.dtype, device=row.device), row])
            found.append(self.recall(whole[None])[0, len(old.recent) :])
            rows.append(replace(grown, recent=tuple((*old.recent, *row[:count].tolist())[-back:])))
        return tuple(rows), torch.stack(found)

    def finish(self, x: Float[Tensor, "B T W"], remembered: Tensor | None) -> Float[Tensor, "B T K"]:
        """The last norm; where n-grams are recalled, their logits stand behind it (K is W, or W + V)."""
        x = self.norm(x)
        if self.recall is None or remembered is None:
            return x
        return torch.cat([x.to(remembered.dtype), self.recall.weigh(remembered, x)], -1)

    def embed(
        self, ids: Int[Tensor, "B T"], places: Int[Tensor, "B T"] | slice, remembered: Tensor | None = None
    ) -> Float[Tensor, "B T W"]:
        """Each token's vector, plus its place's where places are learned, plus what is recalled."""
        x: Tensor = self.embedding(ids)
        if self.places is not None:
            x = x + self.places.weight[places]
        if self.arithmetic is not None:
            x = x.to(self.arithmetic)
        if self.recall is not None and remembered is not None:
            x = x + self.recall.hint(remembered, x.dtype)
        return F.dropout(x, self.config.dropout, self.training)

    def predict(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token, only where asked for."""
        if self.recall is None:
            return unembed.logits(hidden, self.output_weight)
        known, recalled = hidden[..., : self.config.width], hidden[..., self.config.width :]
        return unembed.logits(known, self.output_weight) + recalled

    def score(
        self, tokens: Padded, targets: Int[Tensor, "B T"], state: Cache | None = None
    ) -> tuple[Float[Tensor, "B T"], Cache | None]:
        """Nats of each target after reading up to it, 0 where it is IGNORE."""
        hidden, state = self.read(tokens, state)
        if self.recall is not None:  # for small vocabularies, whose logits may be dense
            logits = self.predict(hidden).transpose(1, 2)
            return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORE), state
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
