"""Encoder: bidirectional Transformer with heads for masked language modelling and next-sentence prediction. Devlin et
al. 2019.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearstory.errors import CannotDo
from clearstory.models import cross_entropy
from clearstory.models.autograd_functions import Linear
from clearstory.models.base import IGNORE_INDEX, State, TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.block import ACTIVATIONS, make_norm
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.stack import TRANSFORMER_CAPABILITIES, Initialization, Stack, init_weights


class Encoder(Stack):
    """A bidirectional stack (BERT) with the heads in its config.

    Pre-training heads predict masked tokens (MLM) and whether one sentence follows another (NSP). Heads for labels are
    in models/heads.py.

    >>> from clearstory.models.transformer.presets import BERT_TINY
    >>> model = Encoder(BERT_TINY)
    >>> model.encode(TokenBatch.from_sequences([[2, 5, 6, 3], [2, 3]])).shape
    torch.Size([2, 4, 128])
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config, config.layers, causal=False)
        c = config
        self.mlm_transform = Linear(c.width, c.width, bias=c.bias) if c.mlm_transform else None
        self.mlm_transform_norm = make_norm(c, c.width) if c.mlm_transform else None
        self.activation = ACTIVATIONS[c.activation]
        self.unembedding = None if c.tie_embeddings else nn.Linear(c.width, c.vocab, bias=False)
        self.unembedding_bias = nn.Parameter(torch.zeros(c.vocab)) if c.unembed_bias else None
        self.pooler = Linear(c.width, c.width) if c.pooler else None
        # Beside the head for masked tokens, as BERT was pre-trained; a bare stack has a pooler alone.
        self.nsp_head = Linear(c.width, 2) if c.pooler and c.mlm_transform else None
        self.reset()

    def reset(self, initialization: Initialization = "normal") -> None:
        """Initialise the weights; see `init_weights`."""
        init_weights(self, self.config, initialization)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Capabilities of an encoder; heads as the config has them."""
        c = self.config
        heads = {
            Capability.MLM_HEAD: c.mlm_transform,
            Capability.NSP_HEAD: c.pooler and c.mlm_transform,
            Capability.POOLER: c.pooler,
        }
        return TRANSFORMER_CAPABILITIES | {Capability.BIDIRECTIONAL} | {each for each, there in heads.items() if there}

    @property
    def output_weight(self) -> Float[Tensor, "V W"]:
        """Output embeddings, (V, W): logits are transformed hidden states times their transpose."""
        return self.embedding.weight if self.unembedding is None else self.unembedding.weight

    def encode(self, tokens: TokenBatch, token_type_ids: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T W"]:
        """Hidden states of every token, (B, T, W); those of padding are meaningless.

        Raises ContextOverflow for a sequence longer than the context, VocabularyMismatch for an id outside the
        vocabulary.
        """
        self.check_ids(tokens.ids, tokens.ids.shape[1])
        out: Tensor = self.compiled_stack(tokens.ids, tokens.lengths, token_type_ids)
        return out

    def encode_first(
        self, tokens: TokenBatch, token_type_ids: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B W"]:
        """Hidden state of the first token of each sequence, (B, W). Raises the errors of `encode`."""
        if self._compiled_run_stack is not None:
            return self.encode(tokens, token_type_ids)[:, 0]
        self.check_ids(tokens.ids, tokens.ids.shape[1])
        return self.run_blocks_for_first(self.embed_tokens(tokens.ids, token_type_ids), tokens.lengths)

    def embed_tokens(
        self, ids: Int[Tensor, "B T"], token_type_ids: Int[Tensor, "B T"] | None
    ) -> Float[Tensor, "B T W"]:
        """Input of the first block, (B, T, W)."""
        return self.apply_dropout(self.embed_inputs(self.embedding(ids), slice(0, ids.shape[1]), token_type_ids))

    def run_stack(
        self,
        ids: Int[Tensor, "B T"],
        lengths: Int[Tensor, "B"] | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T W"]:
        """Hidden states, (B, T, W): what training runs and torch.compile compiles."""
        return self.run_blocks(self.embed_tokens(ids, token_type_ids), lengths)

    def mlm_features(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D W"]:
        """Hidden states after the MLM head's linear map, activation and norm, (..., W); unchanged without a head."""
        if self.mlm_transform is None or self.mlm_transform_norm is None:
            return hidden
        out: Tensor = self.mlm_transform_norm(self.activation(self.mlm_transform(hidden)))
        return out

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the token at each position, (..., V), or of the one that was there before it was masked."""
        logits = cross_entropy.output_logits(self.mlm_features(hidden), self.output_weight)
        return logits if self.unembedding_bias is None else logits + self.unembedding_bias.to(logits.dtype)

    def pool(self, hidden: Float[Tensor, "B T W"]) -> Float[Tensor, "B W"]:
        """One vector per text, (B, W): the first token's hidden state after the pooler. Raises CannotDo without one."""
        if self.pooler is None:
            raise CannotDo(
                "this encoder has no pooler; train one with --model.pooler true, or use the mean of its vectors"
            )
        return torch.tanh(self.pooler(hidden[:, 0]))

    def nsp_logits(self, hidden: Float[Tensor, "B T W"]) -> Float[Tensor, "B 2"]:
        """Logits of whether the second segment follows the first (0) or was drawn at random (1), (B, 2)."""
        pooled = self.pool(hidden)
        if self.nsp_head is None:
            raise CannotDo("this encoder has no next-sentence prediction head; train one with --objective mlm+nsp")
        out: Tensor = self.nsp_head(pooled)
        return out

    def masked_nll(self, hidden: Float[Tensor, "B T W"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Negative log-likelihood of each target at its own position in nats, (B, T); 0 where it is IGNORE_INDEX.

        Positions that are not scored cost no logits.
        """
        scored = (targets != IGNORE_INDEX).flatten().nonzero().squeeze(1)
        features = self.mlm_features(hidden.flatten(0, 1)[scored])
        nll = cross_entropy.linear_cross_entropy(
            features, self.output_weight, targets.flatten()[scored], self.unembedding_bias
        )
        return nll.new_zeros(targets.numel()).index_copy(0, scored, nll).view(targets.shape)

    def token_nll(
        self,
        tokens: TokenBatch,
        targets: Int[Tensor, "B T"],
        state: State | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T"], None]:
        """Negative log-likelihood of the tokens at masked positions in nats, (B, T), given all others; 0 elsewhere.

        Raises CannotDo if given a state.
        """
        if state is not None:
            self.raise_not_causal()
        return self.masked_nll(self.encode(tokens, token_type_ids), targets), None

    def forward(self, tokens: TokenBatch, state: State | None = None) -> tuple[Float[Tensor, "B T W"], None]:
        """Hidden states as `encode` returns them, and None. Raises CannotDo if given a state."""
        if state is not None:
            self.raise_not_causal()
        return self.encode(tokens), None

    def init_state(self, batch_size: int = 1) -> NoReturn:
        """Raises CannotDo: an encoder has no state to continue from."""
        self.raise_not_causal()

    def raise_not_causal(self) -> NoReturn:
        """Raise CannotDo for a request to generate."""
        raise CannotDo(
            "this model is a bidirectional encoder and does not generate text; use `clearstory fill-mask` for a "
            "[MASK], `embed` for vectors, or `classify` where it has a classification head"
        )
