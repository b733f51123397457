"""Transformer: tokens, embedding, positions, blocks, last norm, unembedding by the transpose.

Vaswani et al. 2017; as a decoder, Radford et al. 2018. Its other shapes are in encoder.py and encoder_decoder.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.models import cross_entropy
from clearstory.models.base import IGNORE_INDEX, TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.cache import KVCache, RowCache
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.hashed_ngrams import HashedNGrams
from clearstory.models.transformer.stack import TRANSFORMER, Initialization, Stack, init_weights


class Transformer(Stack):
    """A decoder: reads left to right; after every token says how likely each next one is.

    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> model = Transformer(NANOGPT_CHAR)
    >>> hidden, _ = model.forward(TokenBatch.from_sequences([[1, 2, 3]]))
    >>> model.logits(hidden).shape
    torch.Size([1, 3, 67])
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, config.layers)
        c = config
        self.unembedding = None if c.tie_embeddings else nn.Linear(c.width, c.vocab, bias=False)
        self.recall = HashedNGrams(c.recall, c.recall_rows, c.vocab, c.width) if c.recall else None
        self.reset()

    def reset(self, birth: Initialization = "normal") -> None:
        """Weights as at birth; see `draw`."""
        init_weights(self, self.config, birth)
        if self.recall is not None and not self.embedding.weight.is_meta:
            self.recall.reset()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What a decoder can do; hashed n-grams where the config has them."""
        always = TRANSFORMER | {Capability.CAUSAL}
        return always | {Capability.HASHED_NGRAMS} if self.config.recall else always

    @property
    def output_weight(self) -> Float[Tensor, "V W"]:
        """One vector for each word, to be held against what the model knows."""
        return self.embedding.weight if self.unembedding is None else self.unembedding.weight

    def init_state(self, batch_size: int = 1) -> KVCache:
        """The memory of `batch_size` rows that have read nothing."""
        c = self.config
        return KVCache.empty(batch_size, self.embedding.weight, c.layers, c.kv_heads, c.head_dim)

    def forward(
        self, tokens: TokenBatch, state: KVCache | None = None
    ) -> tuple[Float[Tensor, "B T W"], KVCache | None]:
        """What the model knows after each token.

        Raises ContextOverflow when a row grows past the context, VocabularyMismatch for an id it does not know.
        """
        if state is None:
            self.check_ids(tokens.ids, tokens.ids.shape[1])
            hidden: Tensor = self.compiled_stack(tokens.ids)
            return hidden, None
        return self.forward_with_cache(tokens, state)

    def run_stack(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T W"]:
        """The stack without a cache: what training reads with, and torch.compile sees. Padding must stand on the right,
        where what comes before it cannot look.
        """
        remembered = None if self.recall is None else self.recall(ids)
        x = self.embed_tokens(ids, slice(0, ids.shape[1]), remembered)
        return self.append_hashed_logits(self.run_blocks(x), remembered)

    @torch.no_grad()
    def forward_with_cache(self, tokens: TokenBatch, state: KVCache) -> tuple[Tensor, KVCache]:
        """Read after what each row has read already; keys and values are kept, gradients are not."""
        rows, new, places = self.extend_caches(tokens, state.rows)
        remembered = None
        if self.recall is not None:
            rows, remembered = self.remember(tokens.ids, state.rows, rows, new)
        x = self.embed_tokens(tokens.ids, places, remembered)
        return self.append_hashed_logits(self.run_blocks_with_cache(x, rows, new, places), remembered), replace(
            state, rows=rows
        )

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

    def append_hashed_logits(self, x: Float[Tensor, "B T W"], remembered: Tensor | None) -> Float[Tensor, "B T K"]:
        """Where n-grams are recalled, their logits stand behind the vector (K is W, or W + V)."""
        if self.recall is None or remembered is None:
            return x
        return torch.cat([x.to(remembered.dtype), self.recall.logits(remembered, x)], -1)

    def embed_tokens(
        self, ids: Int[Tensor, "B T"], places: Int[Tensor, "B T"] | slice, remembered: Tensor | None = None
    ) -> Float[Tensor, "B T W"]:
        """Each token's vector at the foot of the stack, plus what is recalled."""
        x = self.embed_inputs(self.embedding(ids), places)
        if self.recall is not None and remembered is not None:
            x = x + self.recall.input_vectors(remembered, x.dtype)
        return self.apply_dropout(x)

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token, only where asked for."""
        if self.recall is None:
            return cross_entropy.output_logits(hidden, self.output_weight)
        known, recalled = hidden[..., : self.config.width], hidden[..., self.config.width :]
        return cross_entropy.output_logits(known, self.output_weight) + recalled

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: KVCache | None = None
    ) -> tuple[Float[Tensor, "B T"], KVCache | None]:
        """Nats of each target after reading up to it, 0 where it is IGNORE_INDEX."""
        hidden, state = self.forward(tokens, state)
        if self.recall is not None:  # for small vocabularies, whose logits may be dense
            logits = self.logits(hidden).flatten(0, 1)
            nats = F.cross_entropy(logits, targets.flatten(), reduction="none", ignore_index=IGNORE_INDEX)
            return nats.view(targets.shape), state
        return cross_entropy.linear_cross_entropy(hidden, self.output_weight, targets), state
