"""EncoderDecoder: an encoder of a source and a decoder with cross-attention. Vaswani et al. 2017; T5; Marian."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.models import cross_entropy
from clearstory.models.base import TokenBatch, check_sources
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.attention import Source
from clearstory.models.transformer.block import Block
from clearstory.models.transformer.cache import KVCache
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.stack import (
    TRANSFORMER_CAPABILITIES,
    CompilableStack,
    Initialization,
    Stack,
    init_weights,
    padding_mask,
)


class EncoderDecoder(CompilableStack):
    """A bidirectional encoder of a source and a causal decoder; one token embedding serves both.

    >>> from clearstory.models.transformer.presets import T5_SMALL
    >>> small = replace(T5_SMALL, vocab=32, width=16, heads=2, kv_heads=2, head_dim=8, intermediate_size=32, layers=1)
    >>> model = EncoderDecoder(small)
    >>> state = model.init_state(1, source=TokenBatch.from_sequences([[5, 6, 7]]))
    >>> hidden, state = model.forward(TokenBatch.from_sequences([[0]]), state)
    >>> model.logits(hidden).shape
    torch.Size([1, 1, 32])
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.vocab = c.vocab
        self.context: int | None = c.context
        self.embedding = nn.Embedding(c.vocab, c.width)
        self.encoder = Stack(c, c.layers, causal=False, embed=False)
        self.decoder = Stack(c, c.decoder_layers or c.layers, cross=True, embed=False)
        self.unembedding = None if c.tie_embeddings else nn.Linear(c.width, c.vocab, bias=False)
        self.unembedding_bias = nn.Parameter(torch.zeros(c.vocab)) if c.unembed_bias else None
        self.reset()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Those of every Transformer; where a recurrence replaces the decoder's attention, without views of it."""
        views = {Capability.ATTENTION, Capability.HIDDEN_STATES} if self.is_recurrent else set()
        return (TRANSFORMER_CAPABILITIES | {Capability.CAUSAL, Capability.SOURCE}) - views

    @property
    def is_recurrent(self) -> bool:
        """Whether the decoder has SSRUs in place of self-attention."""
        return self.config.decoder_autoregression == "ssru"

    def reset(self, initialization: Initialization = "normal") -> None:
        """Initialise the weights; see `init_weights`."""
        init_weights(self, self.config, initialization)

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """The dtype of both residual streams; None: that of the weights."""
        return self.encoder.compute_dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype | None) -> None:
        self.encoder.compute_dtype = self.decoder.compute_dtype = dtype

    @property
    def output_weight(self) -> Float[Tensor, "V W"]:
        """Output embeddings, (V, W): logits are hidden states times their transpose."""
        return self.embedding.weight if self.unembedding is None else self.unembedding.weight

    def encode(self, source: TokenBatch) -> Float[Tensor, "B S W"]:
        """Hidden states of the source, (B, S, W). Raises ContextOverflow for a source longer than the context."""
        self.encoder.check_ids(source.ids, source.ids.shape[1])
        x = self.encoder.embed_inputs(self.embedding(source.ids), slice(0, source.ids.shape[1]))
        return self.encoder.run_blocks(self.encoder.apply_dropout(x), source.lengths)

    @torch.no_grad()
    def init_state(self, batch_size: int = 1, source: TokenBatch | None = None) -> KVCache:
        """The KV cache of `batch_size` empty sequences, each with the encoded source of its row.

        Raises CannotDo without a source, or with another number of sources.
        """
        source = check_sources(source, batch_size)
        hidden = self.encode(source)
        c = self.config
        layers = len(self.decoder.blocks)
        cache = (
            KVCache.of_cells(batch_size, hidden, layers)
            if self.is_recurrent
            else KVCache.empty(batch_size, hidden, layers, c.kv_heads, c.head_dim)
        )
        projected = torch.stack(
            [cast(Block, block).project_source(hidden) for block in self.decoder.blocks], 1
        )  # (B, layers, 2, kv_heads, S, head_dim)
        sizes = [source.ids.shape[1]] * batch_size if source.lengths is None else source.lengths.tolist()
        unpadded = [each[:, :, :, :size] for each, size in zip(projected.unbind(), sizes, strict=True)]
        return replace(
            cache, rows=tuple(replace(row, source=own) for row, own in zip(cache.rows, unpadded, strict=True))
        )

    def forward(
        self, tokens: TokenBatch, state: KVCache | None = None, source: TokenBatch | None = None
    ) -> tuple[Float[Tensor, "B T W"], KVCache | None]:
        """Decoder hidden states after each token, (B, T, W): continuing a state, or from the start with a source.

        Raises CannotDo with neither, ContextOverflow when a sequence outgrows the context, VocabularyMismatch for an id
        outside the vocabulary.
        """
        if state is not None:
            return self.forward_with_cache(tokens, state)
        source = check_sources(source, len(tokens.ids))
        self.decoder.check_ids(tokens.ids, tokens.ids.shape[1])
        hidden: Tensor = self.compiled_stack(tokens.ids, source)
        return hidden, None

    def run_stack(self, ids: Int[Tensor, "B T"], source: TokenBatch) -> Float[Tensor, "B T W"]:
        """Decoder hidden states without a cache, (B, T, W): what training runs."""
        hidden = self.encode(source)
        bias = None if source.lengths is None else padding_mask(source.lengths, source.ids.shape[1], hidden.dtype)
        encoded: Source = (hidden, bias)
        x = self.embed_target(ids, slice(0, ids.shape[1]))
        return self.scale_hidden(self.decoder.run_blocks(x, source=encoded))

    def embed_target(self, ids: Int[Tensor, "B T"], positions: Int[Tensor, "B T"] | slice) -> Float[Tensor, "B T W"]:
        """Input of the decoder's first block, (B, T, W)."""
        return self.decoder.apply_dropout(self.decoder.embed_inputs(self.embedding(ids), positions))

    @torch.no_grad()
    def forward_with_cache(self, tokens: TokenBatch, state: KVCache) -> tuple[Tensor, KVCache]:
        """Decoder hidden states of new tokens after each sequence's cached ones, and the extended cache."""
        rows, new, positions = self.decoder.extend_caches(tokens, state.rows)
        x = self.embed_target(tokens.ids, positions)
        hidden = self.decoder.run_blocks_with_cache(x, rows, new, positions)
        return self.scale_hidden(hidden), replace(state, rows=rows)

    def scale_hidden(self, x: Float[Tensor, "*D W"]) -> Float[Tensor, "*D W"]:
        """x / √W where the config has `logit_scale` (T5 with tied embeddings; Raffel et al. 2020, in their code)."""
        return x / math.sqrt(self.config.width) if self.config.logit_scale else x

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token for these hidden states, (..., V)."""
        logits = cross_entropy.output_logits(hidden, self.output_weight)
        return logits if self.unembedding_bias is None else logits + self.unembedding_bias.to(logits.dtype)

    def token_nll(
        self,
        tokens: TokenBatch,
        targets: Int[Tensor, "B T"],
        state: KVCache | None = None,
        source: TokenBatch | None = None,
    ) -> tuple[Float[Tensor, "B T"], KVCache | None]:
        """Negative log-likelihood of each target in nats, (B, T), given the source and the tokens up to it; 0 where it
        is IGNORE_INDEX.
        """
        hidden, state = self.forward(tokens, state, source)
        return cross_entropy.linear_cross_entropy(hidden, self.output_weight, targets, self.unembedding_bias), state
