"""Capabilities: abilities and components of a model, declared by each model class from its config.

Code that needs a part asks for the capability, not for the class: `Capability.ATTENTION in model.capabilities`, or
`require(model, Capability.ATTENTION)` to refuse in one sentence.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from clearstory.errors import CannotDo


class Capability(StrEnum):
    """One ability or component of a model."""

    CAUSAL = "causal"  # predicts the next token
    BIDIRECTIONAL = "bidirectional"  # an encoder: each token attends to all others
    SOURCE = "source"  # an encoder-decoder: reads a source before it writes
    COUNT_FITTED = "count-fitted"  # fitted by counting or by EM, not by gradient descent
    GRADIENTS = "gradients"  # its outputs are differentiable in its parameters
    ATTENTION = "attention"
    HIDDEN_STATES = "hidden-states"  # a residual stream with one state per layer
    EMBEDDINGS = "embeddings"  # `embedding`: one input vector per token of the vocabulary
    OUTPUT_EMBEDDINGS = "output-embeddings"  # `output_weight`: logits are hidden states times its transpose
    MLM_HEAD = "mlm-head"  # predicts masked tokens
    NSP_HEAD = "nsp-head"  # predicts whether the second segment follows the first
    POOLER = "pooler"  # one vector per text
    CLASSIFIER = "classifier"  # predicts labels of texts or of tokens
    RECURRENT_STATE = "recurrent-state"  # one hidden vector per recurrent layer
    GATES = "gates"  # recurrent cells with named gate activations
    HMM_STATES = "hmm-states"  # a distribution over discrete hidden states
    TAGS = "tags"  # part-of-speech tags, counted from tagged text
    NGRAM_COUNTS = "ngram-counts"  # tables of n-grams
    EXPERTS = "experts"  # a mixture: several models, and a gate that weighs them at every token
    HASHED_NGRAMS = "hashed-ngrams"  # learned tables of hashed n-grams beside the network (recall)


class _Refusal(NamedTuple):
    lacks: str  # completes "this model (FAMILY) ..."
    alternative: str  # what to use instead


_REFUSALS: dict[Capability, _Refusal] = {
    Capability.CAUSAL: _Refusal("does not predict the next token", "a model of any family except an encoder"),
    Capability.BIDIRECTIONAL: _Refusal("is not bidirectional", "an encoder"),
    Capability.SOURCE: _Refusal("reads no source text", "an encoder-decoder"),
    Capability.COUNT_FITTED: _Refusal("is trained by gradient descent", "an n-gram model or an HMM"),
    Capability.GRADIENTS: _Refusal("has no gradients", "a Transformer, a recurrent model or an HMM"),
    Capability.ATTENTION: _Refusal("has no attention", "a Transformer, or lstm-attention"),
    Capability.HIDDEN_STATES: _Refusal("has no residual stream of layers", "a Transformer"),
    Capability.EMBEDDINGS: _Refusal("has no token embeddings", "a Transformer or a recurrent model"),
    Capability.OUTPUT_EMBEDDINGS: _Refusal(
        "has no output embeddings", "a Transformer, or a recurrent model with a plain softmax"
    ),
    Capability.MLM_HEAD: _Refusal("has no masked language modelling head", "an encoder trained with --objective mlm"),
    Capability.NSP_HEAD: _Refusal("has no next-sentence head", "an encoder trained with --objective mlm+nsp"),
    Capability.POOLER: _Refusal("has no pooler", "an encoder with model.pooler true"),
    Capability.CLASSIFIER: _Refusal(
        "has no classification head", "a model fine-tuned with: clearstory finetune MODEL DATA --task classify"
    ),
    Capability.RECURRENT_STATE: _Refusal("has no recurrent state", "a model of the family rnn, gru or lstm"),
    Capability.GATES: _Refusal("has no gates", "a model of the family rnn, gru or lstm"),
    Capability.HMM_STATES: _Refusal("has no discrete hidden states", "a model of the family hmm"),
    Capability.TAGS: _Refusal("has no tags", "an HMM trained with model.learn tags on tagged text"),
    Capability.NGRAM_COUNTS: _Refusal("has no n-gram tables", "a model of the family ngram"),
    Capability.EXPERTS: _Refusal("is not a mixture of models", "a model of the family mixture"),
    Capability.HASHED_NGRAMS: _Refusal("has no hashed n-gram tables", "a decoder with model.recall"),
}


def has_capability(model: object, capability: Capability) -> bool:
    """Whether a model declares a capability; False for an object that declares none."""
    return capability in getattr(model, "capabilities", frozenset())


def require(model: object, capability: Capability) -> None:
    """Raise CannotDo, in one sentence, for a model without this capability.

    >>> from clearstory.models.build import build
    >>> from clearstory.models.families import PRESETS
    >>> require(build(PRESETS["nanogpt-char"]), Capability.GATES)
    Traceback (most recent call last):
    clearstory.errors.CannotDo: this model (decoder) has no gates; use a model of the family rnn, gru or lstm
    """
    if not has_capability(model, capability):
        refusal = _REFUSALS[capability]
        raise CannotDo(f"this model ({family_name(model)}) {refusal.lacks}; use {refusal.alternative}")


def family_name(model: object) -> str:
    """A model's architecture (decoder, encoder, encoder-decoder) or family (lstm, hmm, ngram), for messages."""
    config = getattr(model, "config", None)
    if config is None:
        return type(model).__name__
    return str(config.architecture if config.family == "transformer" else config.family)
