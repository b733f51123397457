"""Encoder: reads both ways; every token's vector has seen all the others. Devlin et al. 2019 (BERT)."""

from __future__ import annotations

from typing import NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.models import cross_entropy
from clearstory.models.autograd_functions import Linear
from clearstory.models.base import IGNORE_INDEX, State, TokenBatch
from clearstory.models.capabilities import Capability
from clearstory.models.transformer.block import ACTIVATIONS, make_norm
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.stack import TRANSFORMER, Initialization, Stack, init_weights


class Encoder(Stack):
    """A stack without a mask, and what BERT learns by: the words behind [MASK], and whether a sentence follows another;
    or the labels of a text or of its tokens, which it is taught afterwards.

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
        # Beside the head for words, as BERT was pre-trained; a bare stack has a pooler alone.
        self.nsp_head = Linear(c.width, 2) if c.pooler and c.mlm_transform else None
        self.classifier = Linear(c.width, len(c.labels)) if c.labels else None
        self.reset()

    def reset(self, birth: Initialization = "normal") -> None:
        """Weights as at birth; see `draw`."""
        init_weights(self, self.config, birth)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What an encoder can do; heads as the config has them."""
        c = self.config
        heads = {
            Capability.MLM_HEAD: c.mlm_transform,
            Capability.NSP_HEAD: c.pooler and c.mlm_transform,
            Capability.POOLER: c.pooler,
            Capability.CLASSIFIER: bool(c.labels),
        }
        return TRANSFORMER | {Capability.BIDIRECTIONAL} | {each for each, there in heads.items() if there}

    @property
    def output_weight(self) -> Float[Tensor, "V W"]:
        """One vector for each word, to be held against what the model knows."""
        return self.embedding.weight if self.unembedding is None else self.unembedding.weight

    def encode(self, tokens: TokenBatch, token_type_ids: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T W"]:
        """Every token's vector, padding excepted, whose vectors mean nothing.

        Raises ContextOverflow when a row is longer than the context, VocabularyMismatch for an id it does not know.
        """
        self.check_ids(tokens.ids, tokens.ids.shape[1])
        out: Tensor = self.compiled_stack(tokens.ids, tokens.lengths, token_type_ids)
        return out

    def run_stack(
        self,
        ids: Int[Tensor, "B T"],
        lengths: Int[Tensor, "B"] | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T W"]:
        """The stack: what training reads with, and torch.compile sees."""
        x = self.apply_dropout(self.embed_inputs(self.embedding(ids), slice(0, ids.shape[1]), token_type_ids))
        return self.run_blocks(x, lengths)

    def mlm_features(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D W"]:
        """What is held against each word's vector."""
        if self.mlm_transform is None or self.mlm_transform_norm is None:
            return hidden
        out: Tensor = self.mlm_transform_norm(self.activation(self.mlm_transform(hidden)))
        return out

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Logits of the token that stands at each place, or stood there before it was masked."""
        logits = cross_entropy.output_logits(self.mlm_features(hidden), self.output_weight)
        return logits if self.unembedding_bias is None else logits + self.unembedding_bias.to(logits.dtype)

    def pool(self, hidden: Float[Tensor, "B T W"]) -> Float[Tensor, "B W"]:
        """The first token's vector, mapped and bent: BERT's word on a whole text. Raises CannotDo without a pooler."""
        if self.pooler is None:
            raise CannotDo(
                "this encoder has no pooler; train one with --model.pooler true, or use the mean of its vectors"
            )
        return torch.tanh(self.pooler(hidden[:, 0]))

    def nsp_logits(self, hidden: Float[Tensor, "B T W"]) -> Float[Tensor, "B 2"]:
        """Logits of whether the second segment follows the first (0) or was drawn by chance (1): BERT's order."""
        pooled = self.pool(hidden)
        if self.nsp_head is None:
            raise CannotDo(
                "this encoder has no head that says whether a sentence follows another; train one with "
                "--objective mlm+nsp"
            )
        out: Tensor = self.nsp_head(pooled)
        return out

    def class_logits(self, hidden: Float[Tensor, "B T W"]) -> Float[Tensor, "B *places labels"]:
        """Logits of the config's labels: (B, labels) of texts, (B, T, labels) of tokens. Devlin et al. 2019, section 4.

        Raises CannotDo for a model that has learnt no labels.
        """
        if self.classifier is None:
            self.raise_no_classifier()
        known = self.pool(hidden) if self.config.label_level == "text" else hidden
        out: Tensor = self.classifier(F.dropout(known, self.config.dropout, self.training))
        return out

    def masked_nll(self, hidden: Float[Tensor, "B T W"], targets: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Nats of each target at its place, 0 where it is IGNORE_INDEX; what is not asked for costs no logits."""
        known = (targets != IGNORE_INDEX).flatten().nonzero().squeeze(1)
        vectors = self.mlm_features(hidden.flatten(0, 1)[known])
        found = cross_entropy.linear_cross_entropy(
            vectors, self.output_weight, targets.flatten()[known], self.unembedding_bias
        )
        return found.new_zeros(targets.numel()).index_copy(0, known, found).view(targets.shape)

    def token_nll(
        self,
        tokens: TokenBatch,
        targets: Int[Tensor, "B T"],
        state: State | None = None,
        token_type_ids: Int[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T"], None]:
        """Nats of the tokens that stood at masked places (IGNORE_INDEX everywhere else), given all the others."""
        if state is not None:
            self.raise_not_causal()
        return self.masked_nll(self.encode(tokens, token_type_ids), targets), None

    def forward(self, tokens: TokenBatch, state: State | None = None) -> tuple[Float[Tensor, "B T W"], None]:
        """`encode`, where nothing is to be remembered."""
        if state is not None:
            self.raise_not_causal()
        return self.encode(tokens), None

    def init_state(self, batch_size: int = 1) -> NoReturn:
        """Raises CannotDo: who has seen what comes after cannot be asked what comes next."""
        self.raise_not_causal()

    def raise_not_causal(self) -> NoReturn:
        """The one sentence for who asks an encoder to write."""
        raise CannotDo(
            "this model is an encoder: it reads both ways and does not write on; use `clearstory fill-mask` for a [MASK], "
            "`embed` for vectors, or `classify` where it has learnt labels"
        )

    def raise_no_classifier(self) -> NoReturn:
        """The one sentence for who asks for labels that nobody taught."""
        raise CannotDo(
            "this encoder has no head that tells labels; it gives vectors (clearstory embed), and folders of "
            "BertForSequenceClassification and BertForTokenClassification have such a head"
        )
