"""Transformer: the decoder-only language model.

Token embedding, positions, blocks, final norm, unembedding. Vaswani et al. 2017; as a decoder alone, Radford et al.
2018. The other architectures are in encoder.py and encoder_decoder.py.
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
from clearstory.models.transformer.stack import TRANSFORMER_CAPABILITIES, Initialization, Stack, init_weights


class Transformer(Stack):
    """A causal decoder (GPT, Llama): logits of the next token after each token.

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
        self.recall = HashedNGrams(c.recall, c.recall_rows, c.vocab, c.width, c.recall_dim) if c.recall else None
        self.reset()

    def reset(self, initialization: Initialization = "normal") -> None:
        """Initialise the weights; see `init_weights`."""
        init_weights(self, self.config, initialization)
        if self.recall is not None and not self.embedding.weight.is_meta:
            self.recall.reset()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Capabilities of a decoder; hashed n-grams where the config has them."""
        always = TRANSFORMER_CAPABILITIES | {Capability.CAUSAL}
        return always | {Capability.HASHED_NGRAMS} if self.config.recall else always

    @property
    def has_hashed_logits(self) -> bool:
        """Whether logits of hashed n-grams follow the hidden states."""
        return bool(self.config.recall) and not self.config.recall_dim

    @property
    def output_weight(self) -> Float[Tensor, "V W"]:
        """Output embeddings, (V, W): logits are hidden states times their transpose."""
        return self.embedding.weight if self.unembedding is None else self.unembedding.weight

    def init_state(self, batch_size: int = 1) -> KVCache:
        """The KV cache of `batch_size` empty sequences."""
        c = self.config
        return KVCache.empty(batch_size, self.embedding.weight, c.layers, c.kv_heads, c.head_dim)

    def forward(
        self, tokens: TokenBatch, state: KVCache | None = None
    ) -> tuple[Float[Tensor, "B T W"], KVCache | None]:
        """Hidden states after each token, (B, T, W), and the KV cache after the last; without a state, None.

        The logits of hashed n-grams (`recall`) follow each hidden state, (B, T, W + V); with `recall_dim` the hidden
        state itself has what they add. Raises ContextOverflow when a sequence outgrows the context, VocabularyMismatch
        for an id outside the vocabulary.
        """
        if state is None:
            self.check_ids(tokens.ids, tokens.ids.shape[1])
            hidden: Tensor = self.compiled_stack(tokens.ids)
            return hidden, None
        return self.forward_with_cache(tokens, state)

    def run_stack(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T W"]:
        """Hidden states without a cache, (B, T, W): what training runs and torch.compile compiles.

        Padding must be on the right, where no token before it attends to it.
        """
        stored = None if self.recall is None else self.recall(ids)
        x = self.embed_tokens(ids, slice(0, ids.shape[1]), stored)
        return self.apply_hashed_ngrams(self.run_blocks(x), stored)

    @torch.no_grad()
    def forward_with_cache(self, tokens: TokenBatch, state: KVCache) -> tuple[Tensor, KVCache]:
        """Hidden states of new tokens after each sequence's cached ones, and the extended cache; without gradients."""
        rows, new, positions = self.extend_caches(tokens, state.rows)
        stored = None
        if self.recall is not None:
            rows, stored = self.look_up_hashed_ngrams(tokens.ids, state.rows, rows, new)
        x = self.embed_tokens(tokens.ids, positions, stored)
        hidden = self.apply_hashed_ngrams(self.run_blocks_with_cache(x, rows, new, positions), stored)
        return hidden, replace(state, rows=rows)

    def look_up_hashed_ngrams(
        self, ids: Tensor, before: Sequence[RowCache], after: Sequence[RowCache], new: Sequence[int]
    ) -> tuple[tuple[RowCache, ...], Tensor]:
        """The caches with their recent ids, and the stored rows of the n-grams ending in the new tokens, which may
        start before them, (B, T, orders, R).
        """
        assert self.recall is not None
        reach = max(self.recall.orders) - 1
        stored, rows = [], []
        for row_ids, old, extended, count in zip(ids, before, after, new, strict=True):
            recent = old.recent_ids
            whole = torch.cat([torch.tensor(recent, dtype=row_ids.dtype, device=row_ids.device), row_ids])
            stored.append(self.recall(whole[None])[0, len(recent) :])
            rows.append(replace(extended, recent_ids=tuple((*recent, *row_ids[:count].tolist())[-reach:])))
        return tuple(rows), torch.stack(stored)

    def apply_hashed_ngrams(self, x: Float[Tensor, "B T W"], stored: Tensor | None) -> Float[Tensor, "B T K"]:
        """Hidden states followed by the logits of hashed n-grams, K = W + V, or with what short rows add to it, K = W.

        Without hashed n-grams x itself.
        """
        return x if self.recall is None or stored is None else self.recall.add_to_hidden(x, stored)

    def embed_tokens(
        self, ids: Int[Tensor, "B T"], positions: Int[Tensor, "B T"] | slice, stored: Tensor | None = None
    ) -> Float[Tensor, "B T W"]:
        """Input of the first block, (B, T, W), including what hashed n-grams add to it."""
        x = self.embed_inputs(self.embedding(ids), positions)
        if self.recall is not None and stored is not None:
            x = x + self.recall.input_vectors(stored, x.dtype)
        return self.apply_dropout(x)

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the next token for these hidden states, (..., V)."""
        if not self.has_hashed_logits:
            return cross_entropy.output_logits(hidden, self.output_weight)
        own, hashed = hidden[..., : self.config.width], hidden[..., self.config.width :]
        return cross_entropy.output_logits(own, self.output_weight) + hashed

    def token_nll(
        self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: KVCache | None = None
    ) -> tuple[Float[Tensor, "B T"], KVCache | None]:
        """Negative log-likelihood of each target in nats, (B, T); 0 where it is IGNORE_INDEX."""
        hidden, state = self.forward(tokens, state)
        if self.has_hashed_logits:  # for small vocabularies, whose logits may be held at once
            logits = self.logits(hidden).flatten(0, 1)
            nll = F.cross_entropy(logits, targets.flatten(), reduction="none", ignore_index=IGNORE_INDEX)
            return nll.view(targets.shape), state
        return cross_entropy.linear_cross_entropy(hidden, self.output_weight, targets), state
