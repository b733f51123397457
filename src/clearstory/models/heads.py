"""Classification heads on any backbone with hidden states: labels of texts and of tokens.

encoder      pooler (first token, linear layer, tanh) ─► dropout ─► classifier      Devlin et al. 2019, section 4.1
decoder      hidden state of the last token ─────────► dropout ─► classifier      Radford et al. 2018, section 3.2
recurrent    output after the last token ─────────────► dropout ─► classifier
each token   its hidden state ────────────────────────► dropout ─► classifier      Devlin et al. 2019, section 4.3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from clearstory.errors import CannotDo
from clearstory.models.autograd_functions import Linear
from clearstory.models.base import State, TokenBatch
from clearstory.models.build import build
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.head_config import (
    DEFAULT_THRESHOLD,
    ClassifierConfig,
    HeadPooling,
    ProblemType,
    TagScheme,
    hidden_width,
)
from clearstory.models.pooling import pool
from clearstory.models.shallow_copy import shallow_copy
from clearstory.models.transformer.stack import INIT_STD

HEAD_MODULES = ("pooler", "classifier")
"""Modules of a head; all others are the backbone's."""

LANGUAGE_MODEL_HEADS = (
    *("unembedding", "unembedding_bias", "cluster_embeddings"),
    *("mlm_transform", "mlm_transform_norm", "nsp_head", "pooler"),
)
"""Modules and parameters of language models that a backbone lacks."""

BARE_ENCODER = {"mlm_transform": False, "pooler": False, "unembed_bias": False, "tie_embeddings": True}
"""Config fields of an encoder without heads; those of others say nothing about what a backbone has."""


GONE = frozenset(
    {
        Capability.CAUSAL,
        Capability.OUTPUT_EMBEDDINGS,
        Capability.MLM_HEAD,
        Capability.NSP_HEAD,
        Capability.POOLER,
    }
)
"""Capabilities of a language model that its backbone lacks."""


class ClassificationHead(nn.Module):
    """A backbone and a classifier of its hidden states: base class of both classifiers.

    The config says what is labelled; `SequenceClassifier` and `TokenClassifier` make one.
    """

    def __init__(self, backbone: nn.Module, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.vocab = config.vocab
        self.context = config.context
        self.backbone: Any = backbone
        self.pooler = Linear(config.width, config.width) if config.pooling == "pooler" else None
        self.classifier = Linear(config.width, len(config.labels), bias=config.classifier_bias)
        self.reset_head()

    @torch.no_grad()
    def reset_head(self) -> None:
        """Initialise the head: weights N(0, 0.02), biases 0, as in transformers."""
        for linear in (self.pooler, self.classifier):
            if linear is not None and not linear.weight.is_meta:
                nn.init.normal_(linear.weight, std=INIT_STD)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Capabilities of the backbone without those of language models, and those of the head."""
        pooler = {Capability.POOLER} if self.pooler is not None else set()
        own: frozenset[Capability] = self.backbone.capabilities
        return (own - GONE) | {Capability.CLASSIFIER} | pooler

    def encode(self, tokens: TokenBatch, token_types: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B T W"]:
        """Hidden states of every token, (B, T, W); those of padding are meaningless.

        Token types are read by backbones that have them. Raises ContextOverflow and VocabularyMismatch.
        """
        return hidden_states(self.backbone, tokens, token_types)

    def forward(self, tokens: TokenBatch, state: State | None = None) -> tuple[Float[Tensor, "B T W"], None]:
        """Hidden states as `encode` returns them, and None. Raises CannotDo if given a state."""
        if state is not None:
            self.raise_no_language_model()
        return self.encode(tokens), None

    def logits(self, hidden: Float[Tensor, "*D W"]) -> Float[Tensor, "*D V"]:
        """Hidden states times the embeddings, (..., V), for views of what they hold. Raises CannotDo for a backbone
        whose output embeddings were others, and are left out.
        """
        if not self.backbone.config.tie_embeddings:
            raise CannotDo(
                f"this model ({family_name(self)}) has a classification head in place of its output embeddings, so "
                "its hidden states do not predict tokens; use its base model"
            )
        logits: Tensor = self.backbone.logits(hidden)
        return logits

    def token_nll(self, tokens: TokenBatch, targets: Int[Tensor, "B T"], state: State | None = None) -> NoReturn:
        """Raises CannotDo: no token is predicted."""
        self.raise_no_language_model()

    def init_state(self, batch_size: int = 1) -> NoReturn:
        """Raises CannotDo: there is no text to continue."""
        self.raise_no_language_model()

    def raise_no_language_model(self) -> NoReturn:
        """Raise CannotDo for a request to predict tokens."""
        raise CannotDo(
            f"this model ({family_name(self)}) has a classification head and does not predict tokens; use clearstory "
            "classify, or its base model"
        )

    def class_logits(
        self, tokens: TokenBatch, token_types: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B *positions labels"]:
        """Logits of the labels: (B, labels) of texts, (B, T, labels) of tokens."""
        return self.head_logits(self.encode(tokens, token_types), tokens)

    def head_logits(self, hidden: Float[Tensor, "B T W"], tokens: TokenBatch) -> Float[Tensor, "B *positions labels"]:
        """Logits of the labels for hidden states of these tokens."""
        raise NotImplementedError

    def classify_features(self, features: Float[Tensor, "*D W"]) -> Float[Tensor, "*D labels"]:
        """Logits of pooled or single hidden states, after dropout in training."""
        dropped = F.dropout(features, self.config.classifier_dropout, self.training)
        logits: Tensor = self.classifier(dropped.to(self.classifier.weight.dtype))
        return logits

    @property
    def compute_dtype(self) -> torch.dtype | None:
        """Dtype of the backbone's activations; None for that of the weights."""
        dtype: torch.dtype | None = self.backbone.compute_dtype
        return dtype

    @compute_dtype.setter
    def compute_dtype(self, dtype: torch.dtype | None) -> None:
        self.backbone.compute_dtype = dtype

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the backbone."""
        self.backbone.compile(*args, **kwargs)


class SequenceClassifier(ClassificationHead):
    """A model that predicts the labels of a text, or numbers, from its pooled vector.

    The pooler of the backbone is reused; without one, or with another pooling, the head is initialized randomly.
    Raises CannotDo for a model without hidden states that can be trained.

    Args:
        backbone: a model of any family trained by gradient descent; its weights are shared, its language modelling
            heads left out.
        labels: names of the labels, in the order of the logits.
        problem_type: what is predicted; `classify` and the loss follow it.
        pooling: the vector of a text; pooler for encoders, else last.
        classifier_dropout: dropout rate of the classifier's input; the backbone's own when None.
        threshold: the probability from which on one of several labels is predicted.

    >>> from clearstory.models.transformer.presets import BERT_TINY, NANOGPT_CHAR
    >>> model = SequenceClassifier(build(NANOGPT_CHAR), ("bad", "good"))
    >>> model.class_logits(TokenBatch.from_sequences([[1, 2, 3], [4]])).shape, model.config.pooling
    (torch.Size([2, 2]), 'last')
    """

    def __init__(
        self,
        backbone: nn.Module,
        labels: Sequence[str],
        *,
        problem_type: ProblemType = "single_label_classification",
        pooling: HeadPooling | None = None,
        classifier_dropout: float | None = None,
        threshold: float = DEFAULT_THRESHOLD,
    ) -> None:
        bare = bare_backbone(backbone)
        config = ClassifierConfig(
            backbone=bare.config,
            labels=tuple(labels),
            pooling=pooling or ("pooler" if bare.config.architecture == "encoder" else "last"),
            problem_type=problem_type,
            classifier_dropout=bare.config.dropout if classifier_dropout is None else classifier_dropout,
            threshold=threshold,
        )
        super().__init__(bare, config)
        trained = getattr(backbone, "pooler", None)
        if self.pooler is not None and trained is not None:
            self.pooler = share_weights(trained)
        self.train(backbone.training)

    def features(self, tokens: TokenBatch, token_types: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B W"]:
        """The vector of each text that the classifier reads, (B, W)."""
        if self.pooler is not None and hasattr(self.backbone, "encode_first"):
            types = token_types if self.backbone.config.token_types else None
            return self.pool(self.backbone.encode_first(tokens, types).unsqueeze(1))
        return self.pool(self.encode(tokens, token_types), tokens)

    def class_logits(
        self, tokens: TokenBatch, token_types: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B labels"]:
        """Logits of the labels, (B, labels)."""
        return self.classify_features(self.features(tokens, token_types))

    def head_logits(self, hidden: Float[Tensor, "B T W"], tokens: TokenBatch) -> Float[Tensor, "B labels"]:
        """Logits of the labels, (B, labels), for hidden states of these tokens."""
        return self.classify_features(self.pool(hidden, tokens))

    def pool(self, hidden: Float[Tensor, "B T W"], tokens: TokenBatch | None = None) -> Float[Tensor, "B W"]:
        """One vector per text, (B, W), as the config pools. Without `tokens` no text is padded."""
        if self.pooler is not None:
            return torch.tanh(self.pooler(hidden[:, 0].to(self.pooler.weight.dtype)))
        tokens = tokens or TokenBatch(hidden.new_zeros(hidden.shape[:2], dtype=torch.long))
        return pool(hidden, tokens, "lasttoken" if self.config.pooling == "last" else "mean")


class TokenClassifier(ClassificationHead):
    """A model that predicts a label of each token from its hidden state.

    Args as those of `SequenceClassifier`, and `tag_scheme` as in `ClassifierConfig`.

    >>> from clearstory.models.transformer.presets import NANOGPT_CHAR
    >>> model = TokenClassifier(build(NANOGPT_CHAR), ("O", "B-PER", "I-PER"))
    >>> model.class_logits(TokenBatch.from_sequences([[1, 2, 3], [4]])).shape
    torch.Size([2, 3, 3])
    """

    def __init__(
        self,
        backbone: nn.Module,
        labels: Sequence[str],
        *,
        classifier_dropout: float | None = None,
        tag_scheme: TagScheme = "",
    ) -> None:
        bare = bare_backbone(backbone)
        dropout: float = bare.config.dropout if classifier_dropout is None else classifier_dropout
        config = ClassifierConfig(
            backbone=bare.config, labels=tuple(labels), classifier_dropout=dropout, tag_scheme=tag_scheme
        )
        super().__init__(bare, config)
        self.train(backbone.training)

    def head_logits(self, hidden: Float[Tensor, "B T W"], tokens: TokenBatch) -> Float[Tensor, "B T labels"]:
        """Logits of the labels of each token, (B, T, labels)."""
        return self.classify_features(hidden)


def build_classifier(config: ClassifierConfig) -> ClassificationHead:
    """A new classifier with random weights."""
    backbone, dropout = build(config.backbone), config.classifier_dropout
    if config.pooling is None:
        return TokenClassifier(backbone, config.labels, classifier_dropout=dropout, tag_scheme=config.tag_scheme)
    return SequenceClassifier(
        backbone,
        config.labels,
        problem_type=config.problem_type,
        pooling=config.pooling,
        classifier_dropout=dropout,
        threshold=config.threshold,
    )


def share_weights(module: nn.Module) -> Any:
    """A copy of a module that shares its weights, which are trainable."""
    return shallow_copy(module, lambda name, each: None).requires_grad_(True).train(module.training)


def hidden_states(
    backbone: Any, tokens: TokenBatch, token_types: Int[Tensor, "B T"] | None = None
) -> Float[Tensor, "B T W"]:
    """Hidden states of every token from a model of any family, (B, T, W); those of padding are undefined.

    Token types are read by models that have them. Raises ContextOverflow and VocabularyMismatch.
    """
    if hasattr(backbone, "encode"):
        types = token_types if backbone.config.token_types else None
        hidden: Tensor = backbone.encode(tokens, types)
    else:
        hidden, _ = backbone.forward(tokens)
    return hidden[..., : hidden_width(backbone.config)]  # behind it may be the logits of hashed n-grams


def backbone_of(model: nn.Module) -> Any:
    """The backbone of a classifier; a model without a head itself."""
    return model.backbone if isinstance(model, ClassificationHead) else model


def bare_backbone(model: nn.Module) -> Any:
    """A copy of a model without its language modelling heads and its pooler; weights are shared and trainable.

    Of a classifier, the backbone. Raises CannotDo for a model that is fitted by counting, mixes others or reads a
    source.
    """
    model = backbone_of(model)
    if not has_capability(model, Capability.EMBEDDINGS) or has_capability(model, Capability.SOURCE):
        raise CannotDo(
            f"this model ({family_name(model)}) cannot have a classification head, which needs the hidden states of a "
            "single stack of layers; use an encoder, a decoder, or a model of the family rnn, gru or lstm"
        )
    bare = share_weights(model)
    for name in LANGUAGE_MODEL_HEADS:
        if getattr(bare, name, None) is not None:
            setattr(bare, name, None)
    if bare.config.architecture == "encoder":
        bare.config = replace(bare.config, **BARE_ENCODER)
    return bare


def is_bare_encoder(model: nn.Module) -> bool:
    """Whether a model is an encoder without heads and without a pooler."""
    config: Any = getattr(model, "config", None)
    is_encoder = getattr(config, "architecture", "") == "encoder" and not isinstance(model, ClassificationHead)
    return is_encoder and all(getattr(config, name) == value for name, value in BARE_ENCODER.items())
