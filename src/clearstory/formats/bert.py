"""BERT: the encoders of transformers, a row each. Devlin et al. 2019."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clearstory.formats.architecture import BENDS, Architecture
from clearstory.formats.keys import MOST_LAYERS, Choice, Fixed, Key, Real, Unread, Whole
from clearstory.formats.rules import Bare, Moved, Renaming, Weights
from clearstory.formats.wiring import AllHeads, Dropout, HeadWidth, Labels
from clearstory.models.config import TransformerConfig


def bert_weights(config: TransformerConfig) -> Renaming:
    """One set of names for all: a head that is not there is not carried."""
    block, ours = "bert.encoder.layer.{layer}", "blocks.{layer}"
    return Renaming(
        outside=(
            Moved("bert.embeddings.word_embeddings", "embedding"),
            Moved("bert.embeddings.position_embeddings", "places"),
            Moved("bert.embeddings.token_type_embeddings", "segments"),
            Moved("bert.embeddings.LayerNorm", "embedding_norm"),
            Moved("bert.pooler.dense", "pooler"),
            Moved("cls.predictions.transform.dense", "transform"),
            Moved("cls.predictions.transform.LayerNorm", "transform_norm"),
            Bare("cls.predictions.bias", "unembedding_bias"),
            Moved("cls.seq_relationship", "follows"),
            Moved("classifier", "classifier"),
        ),
        inside=(
            Moved(f"{block}.attention.self.query", f"{ours}.attention.query"),
            Moved(f"{block}.attention.self.key", f"{ours}.attention.key"),
            Moved(f"{block}.attention.self.value", f"{ours}.attention.value"),
            Moved(f"{block}.attention.output.dense", f"{ours}.attention.output"),
            Moved(f"{block}.attention.output.LayerNorm", f"{ours}.attention_norm"),
            Moved(f"{block}.intermediate.dense", f"{ours}.feed_forward.up"),
            Moved(f"{block}.output.dense", f"{ours}.feed_forward.down"),
            Moved(f"{block}.output.LayerNorm", f"{ours}.feed_forward_norm"),
        ),
        layers=config.layers,
    )


POOLER = "bert.pooler.dense.weight"


def with_pooler(config: TransformerConfig, weights: Weights) -> TransformerConfig:
    """A bare stack is saved with a pooler, or without; config.json does not say."""
    return replace(config, pooler=POOLER in weights)


def with_both_heads(config: TransformerConfig, weights: Weights) -> TransformerConfig:
    """The published BERTs call themselves masked, and bring the head for the next sentence along."""
    return replace(config, pooler={POOLER, "cls.seq_relationship.weight"} <= weights.keys())


KEYS: tuple[Key, ...] = (
    Whole("vocab_size", "vocab"),
    Whole("max_position_embeddings", "context"),
    Whole("hidden_size", "width"),
    Whole("num_hidden_layers", "layers", MOST_LAYERS),
    Whole("num_attention_heads", "heads"),
    HeadWidth(None, "hidden_size", "num_attention_heads"),
    AllHeads("num_attention_heads"),
    Whole("intermediate_size", "hidden"),
    Whole("type_vocab_size", "segments"),
    Choice("hidden_act", "activation", {"gelu": "gelu", **{k: v for k, v in BENDS.items() if k != "gelu"}}),
    Real("layer_norm_eps", "norm_eps", 1e-12, 1.0),
    Dropout(("hidden_dropout_prob", "attention_probs_dropout_prob")),
    Fixed("position_embedding_type", "absolute", "absolute"),
    Fixed("tie_word_embeddings", True, True),
    Fixed("is_decoder", False, False),
    Fixed("add_cross_attention", False, False),
    Unread(("classifier_dropout",)),
)

STACK = {
    "kind": "encoder", "norm": "layer", "norm_first": False, "embed_norm": True, "positions": "learned",
    "gated": False, "bias": True,
}  # fmt: skip

WORDS = {**STACK, "transform": True, "unembed_bias": True}

COPIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}

# BERT as published was written by another library, whose norms had a gamma and a beta.
OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

PLACES = r"bert\.embeddings\.(position_ids|token_type_ids)"


def bare(name: str, head: str | None = None) -> Architecture:
    """A stack alone. Heads for tasks are left out; of `head`, which makes the class, that is told."""
    return Architecture(
        name=name,
        model_type="bert",
        keys=KEYS,
        given=STACK,
        noted=frozenset({"dropout", "pooler"}),
        prefix="bert.",
        renaming=bert_weights,
        idle=(PLACES, r"(cls|classifier|qa_outputs)\..*"),
        old=OLD,
        settle=with_pooler,
        left_out=f"the head of {name} ({head}) is left out: what opens is the encoder below it" if head else None,
        auto="AutoModel",
    )


def labelled(name: str, auto: str, given: Mapping[str, Any], least: int) -> Architecture:
    """A stack with a head that tells labels."""
    return Architecture(
        name=name,
        model_type="bert",
        keys=(*KEYS, Labels(least)),
        given={**STACK, **given},
        prefix="bert.",
        renaming=bert_weights,
        idle=(PLACES, *(() if given.get("pooler") else (r"bert\.pooler\.dense\..*",))),
        old=OLD,
        auto=auto,
    )


BERTS = (
    bare("BertModel"),
    Architecture(
        name="BertForPreTraining",
        model_type="bert",
        keys=KEYS,
        given={**WORDS, "pooler": True},
        prefix="bert.",
        renaming=bert_weights,
        idle=(PLACES,),
        copies=COPIES,
        old=OLD,
        auto="AutoModelForPreTraining",
    ),
    Architecture(
        name="BertForMaskedLM",
        model_type="bert",
        keys=KEYS,
        given=WORDS,
        prefix="bert.",
        renaming=bert_weights,
        idle=(PLACES, r"bert\.pooler\.dense\..*", r"cls\.seq_relationship\..*"),
        copies=COPIES,
        old=OLD,
        settle=with_both_heads,
        auto="AutoModelForMaskedLM",
    ),
    labelled(
        "BertForSequenceClassification",
        "AutoModelForSequenceClassification",
        {"pooler": True, "labels_of": "text"},
        least=2,
    ),
    labelled("BertForTokenClassification", "AutoModelForTokenClassification", {"labels_of": "token"}, least=1),
    bare("BertForQuestionAnswering", "qa_outputs"),
)
"""The bare stack comes first: it carries what the last, without its head, could carry as well."""
