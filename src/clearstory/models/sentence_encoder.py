"""Sentence encoder: a model whose hidden states are pooled into vectors of texts, for training and saving."""

from __future__ import annotations

from typing import Any

from torch import nn

from clearstory.errors import CannotDo
from clearstory.models.capabilities import Capability, family_name, has_capability
from clearstory.models.heads import LANGUAGE_MODEL_HEADS, backbone_of, bare_backbone, share_weights
from clearstory.models.pooling import PoolingName


def has_sentence_vectors(model: object) -> bool:
    """Whether a model has hidden states of tokens that can be pooled: those of one stack of layers."""
    return has_capability(model, Capability.EMBEDDINGS) and not has_capability(model, Capability.SOURCE)


def no_sentence_vectors(model: object) -> CannotDo:
    """The error for a model without such hidden states."""
    return CannotDo(
        f"this model ({family_name(model)}) has no sentence vectors, which are pooled from the hidden states of a "
        "single stack of layers; use an encoder, a decoder, or a model of the family rnn, gru or lstm"
    )


def default_pooling(model: object) -> PoolingName:
    """The mean of an encoder's hidden states; of other models the last one, which alone has read the whole text."""
    return "mean" if has_capability(model, Capability.BIDIRECTIONAL) else "lasttoken"


def sentence_encoder(model: nn.Module) -> Any:
    """The model to be trained for vectors; weights are shared. Of a classifier, the backbone.

    An encoder loses its language modelling heads and its pooler. Another model stays whole, so that its folder opens as
    before, and its output embeddings are frozen unless they are tied. Raises CannotDo for a model without hidden
    states, and for the backbone of a classifier whose output embeddings were others.
    """
    if not has_sentence_vectors(model):
        raise no_sentence_vectors(model)
    backbone = backbone_of(model)
    if backbone.config.architecture == "encoder":
        return bare_backbone(backbone)
    if backbone is not model and not backbone.config.tie_embeddings:
        raise CannotDo(
            f"this model ({family_name(model)}) has a classification head in place of its output embeddings, so it is "
            "not a complete model; fine-tune its base model"
        )
    encoder = share_weights(backbone)
    for name in LANGUAGE_MODEL_HEADS:
        head = getattr(encoder, name, None)
        if head is not None:
            head.requires_grad_(False)
    return encoder
