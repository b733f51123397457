"""BERT: the encoders of transformers, a row each. Devlin et al. 2019."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clearstory.formats.hf.architecture import ACTIVATION_NAMES, HFArchitecture
from clearstory.formats.hf.config_keys import MAX_LAYERS, ChoiceKey, FixedKey, ConfigKey, FloatKey, IgnoredKeys, IntKey
from clearstory.formats.hf.weight_map import RenameTensor, Rename, WeightMap, Weights
from clearstory.formats.hf.attention_keys import KVHeadsEqualHeads, DropoutKeys, HeadDimKey, LabelKeys
from clearstory.models.config import TransformerConfig


def bert_weights(config: TransformerConfig) -> WeightMap:
    """One set of names for all: a head that is not there is not carried."""
    block, ours = "bert.encoder.layer.{layer}", "blocks.{layer}"
    return WeightMap(
        outside=(
            Rename("bert.embeddings.word_embeddings", "embedding"),
            Rename("bert.embeddings.position_embeddings", "position_embedding"),
            Rename("bert.embeddings.token_type_embeddings", "token_type_embedding"),
            Rename("bert.embeddings.LayerNorm", "embedding_norm"),
            Rename("bert.pooler.dense", "pooler"),
            Rename("cls.predictions.transform.dense", "mlm_transform"),
            Rename("cls.predictions.transform.LayerNorm", "mlm_transform_norm"),
            RenameTensor("cls.predictions.bias", "unembedding_bias"),
            Rename("cls.seq_relationship", "nsp_head"),
            Rename("classifier", "classifier"),
        ),
        inside=(
            Rename(f"{block}.attention.self.query", f"{ours}.attention.query"),
            Rename(f"{block}.attention.self.key", f"{ours}.attention.key"),
            Rename(f"{block}.attention.self.value", f"{ours}.attention.value"),
            Rename(f"{block}.attention.output.dense", f"{ours}.attention.output"),
            Rename(f"{block}.attention.output.LayerNorm", f"{ours}.attention_norm"),
            Rename(f"{block}.intermediate.dense", f"{ours}.feed_forward.up"),
            Rename(f"{block}.output.dense", f"{ours}.feed_forward.down"),
            Rename(f"{block}.output.LayerNorm", f"{ours}.feed_forward_norm"),
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


KEYS: tuple[ConfigKey, ...] = (
    IntKey("vocab_size", "vocab"),
    IntKey("max_position_embeddings", "context"),
    IntKey("hidden_size", "width"),
    IntKey("num_hidden_layers", "layers", MAX_LAYERS),
    IntKey("num_attention_heads", "heads"),
    HeadDimKey(None, "hidden_size", "num_attention_heads"),
    KVHeadsEqualHeads("num_attention_heads"),
    IntKey("intermediate_size", "intermediate_size"),
    IntKey("type_vocab_size", "token_types"),
    ChoiceKey("hidden_act", "activation", {"gelu": "gelu", **{k: v for k, v in ACTIVATION_NAMES.items() if k != "gelu"}}),
    FloatKey("layer_norm_eps", "norm_eps", 1e-12, 1.0),
    DropoutKeys(("hidden_dropout_prob", "attention_probs_dropout_prob")),
    FixedKey("position_embedding_type", "absolute", "absolute"),
    FixedKey("tie_word_embeddings", True, True),
    FixedKey("is_decoder", False, False),
    FixedKey("add_cross_attention", False, False),
    IgnoredKeys(("classifier_dropout",)),
)

STACK = {
    "architecture": "encoder", "norm": "layer", "norm_first": False, "embed_norm": True, "positions": "learned",
    "gated": False, "bias": True,
}  # fmt: skip

WORDS = {**STACK, "mlm_transform": True, "unembed_bias": True}

COPIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}

# BERT as published was written by another library, whose norms had a gamma and a beta.
OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

PLACES = r"bert\.embeddings\.(position_ids|token_type_ids)"


def bare(name: str, head: str | None = None) -> HFArchitecture:
    """A stack alone. Heads for tasks are left out; of `head`, which makes the class, that is told."""
    return HFArchitecture(
        name=name,
        model_type="bert",
        keys=KEYS,
        fixed_fields=STACK,
        extra_fields=frozenset({"dropout", "pooler"}),
        weight_prefix="bert.",
        weight_map=bert_weights,
        ignored_weights=(PLACES, r"(cls|classifier|qa_outputs)\..*"),
        legacy_suffixes=OLD,
        infer_from_weights=with_pooler,
        omission_note=f"the head of {name} ({head}) is left out: what opens is the encoder below it" if head else None,
        auto_class="AutoModel",
    )


def labelled(name: str, auto: str, given: Mapping[str, Any], least: int) -> HFArchitecture:
    """A stack with a head that tells labels."""
    return HFArchitecture(
        name=name,
        model_type="bert",
        keys=(*KEYS, LabelKeys(least)),
        fixed_fields={**STACK, **given},
        weight_prefix="bert.",
        weight_map=bert_weights,
        ignored_weights=(PLACES, *(() if given.get("pooler") else (r"bert\.pooler\.dense\..*",))),
        legacy_suffixes=OLD,
        auto_class=auto,
    )


ENCODERS = (
    bare("BertModel"),
    HFArchitecture(
        name="BertForPreTraining",
        model_type="bert",
        keys=KEYS,
        fixed_fields={**WORDS, "pooler": True},
        weight_prefix="bert.",
        weight_map=bert_weights,
        ignored_weights=(PLACES,),
        duplicate_weights=COPIES,
        legacy_suffixes=OLD,
        auto_class="AutoModelForPreTraining",
    ),
    HFArchitecture(
        name="BertForMaskedLM",
        model_type="bert",
        keys=KEYS,
        fixed_fields=WORDS,
        weight_prefix="bert.",
        weight_map=bert_weights,
        ignored_weights=(PLACES, r"bert\.pooler\.dense\..*", r"cls\.seq_relationship\..*"),
        duplicate_weights=COPIES,
        legacy_suffixes=OLD,
        infer_from_weights=with_both_heads,
        auto_class="AutoModelForMaskedLM",
    ),
    labelled(
        "BertForSequenceClassification",
        "AutoModelForSequenceClassification",
        {"pooler": True, "label_level": "text"},
        least=2,
    ),
    labelled("BertForTokenClassification", "AutoModelForTokenClassification", {"label_level": "token"}, least=1),
    bare("BertForQuestionAnswering", "qa_outputs"),
)
"""The bare stack comes first: it carries what the last, without its head, could carry as well."""
