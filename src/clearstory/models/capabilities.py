"""Capabilities: what a model can do and which parts it has, declared by each model class from its config.

Code that needs a part asks for the capability, not for the class: `Capability.ATTENTION in model.capabilities`, or
`require(model, Capability.ATTENTION)` to refuse in one sentence.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from clearstory.errors import CannotDo


class Capability(StrEnum):
    """One thing that a model can do, or one part that it has."""

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
    HASHED_NGRAMS = "hashed-ngrams"  # learned tables of hashed n-grams beside the network (recall)


class _Words(NamedTuple):
    lacks: str  # completes "this model (FAMILY) ..."
    have: str  # which models have it, a whole clause


_WORDS: dict[Capability, _Words] = {
    Capability.CAUSAL: _Words("does not predict the next token", "every family except encoders does"),
    Capability.BIDIRECTIONAL: _Words("is not bidirectional", "encoders are"),
    Capability.SOURCE: _Words("reads no source text", "encoder-decoders do"),
    Capability.COUNT_FITTED: _Words("is trained by gradient descent", "n-gram models and HMMs are fitted by counting"),
    Capability.GRADIENTS: _Words("has no gradients", "Transformers, recurrent models and HMMs have"),
    Capability.ATTENTION: _Words("has no attention", "Transformers have"),
    Capability.HIDDEN_STATES: _Words("has no residual stream of layers", "Transformers have"),
    Capability.EMBEDDINGS: _Words("has no token embeddings", "Transformers and recurrent models have"),
    Capability.OUTPUT_EMBEDDINGS: _Words(
        "has no output embeddings", "Transformers and recurrent models with a plain softmax have"
    ),
    Capability.MLM_HEAD: _Words(
        "has no head for masked tokens", "encoders trained with masked language modelling have"
    ),
    Capability.NSP_HEAD: _Words("has no next-sentence head", "encoders trained with --objective mlm+nsp have"),
    Capability.POOLER: _Words("has no pooler", "encoders with model.pooler true have"),
    Capability.CLASSIFIER: _Words("has no classification head", "encoders fine-tuned for classification have"),
    Capability.RECURRENT_STATE: _Words("has no recurrent state", "the families rnn, gru and lstm have"),
    Capability.GATES: _Words("has no gates", "the families rnn, gru and lstm have"),
    Capability.HMM_STATES: _Words("has no discrete hidden states", "the family hmm has"),
    Capability.TAGS: _Words("has no tags", "HMMs trained with model.learn tags on tagged text have"),
    Capability.NGRAM_COUNTS: _Words("has no n-gram tables", "the family ngram has"),
    Capability.HASHED_NGRAMS: _Words("has no hashed n-gram tables", "decoders with model.recall have"),
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
    clearstory.errors.CannotDo: this model (decoder) has no gates; the families rnn, gru and lstm have
    """
    if not has_capability(model, capability):
        words = _WORDS[capability]
        raise CannotDo(f"this model ({family_name(model)}) {words.lacks}; {words.have}")


def family_name(model: object) -> str:
    """A model's architecture (decoder, encoder, encoder-decoder) or family (lstm, hmm, ngram), for messages."""
    config = getattr(model, "config", None)
    return str(getattr(config, "architecture", None) or getattr(config, "family", None) or type(model).__name__)
