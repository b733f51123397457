"""Encoders of transformers, a row each: BERT and its pre-training heads. Devlin et al. 2019."""

from __future__ import annotations

from dataclasses import replace

from clearstory.formats.hf.architecture import ACTIVATION_NAMES, HFArchitecture
from clearstory.formats.hf.attention_keys import HeadDimKey, KVHeadsEqualHeads
from clearstory.formats.hf.config_keys import (
    MAX_LAYERS,
    ChoiceKey,
    ConfigKey,
    DropoutKeys,
    FixedKey,
    FloatKey,
    IntKey,
)
from clearstory.formats.hf.weight_map import Rename, RenameTensor, WeightMap, Weights
from clearstory.models.transformer.config import TransformerConfig


def bert_weights(config: TransformerConfig) -> WeightMap:
    """BERT with any of its heads. Heads that a model lacks are skipped."""
    block, native = "bert.encoder.layer.{layer}", "blocks.{layer}"
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
        ),
        per_layer=(
            Rename(f"{block}.attention.self.query", f"{native}.attention.query"),
            Rename(f"{block}.attention.self.key", f"{native}.attention.key"),
            Rename(f"{block}.attention.self.value", f"{native}.attention.value"),
            Rename(f"{block}.attention.output.dense", f"{native}.attention.output"),
            Rename(f"{block}.attention.output.LayerNorm", f"{native}.attention_norm"),
            Rename(f"{block}.intermediate.dense", f"{native}.feed_forward.up"),
            Rename(f"{block}.output.dense", f"{native}.feed_forward.down"),
            Rename(f"{block}.output.LayerNorm", f"{native}.feed_forward_norm"),
        ),
        layers=config.layers,
    )


POOLER = "bert.pooler.dense.weight"


def infer_pooler(config: TransformerConfig, weights: Weights) -> TransformerConfig:
    """The config with `pooler` inferred from the weights: config.json of a BertModel does not specify it."""
    return replace(config, pooler=POOLER in weights)


def infer_pretraining_heads(config: TransformerConfig, weights: Weights) -> TransformerConfig:
    """The config with `pooler` if pooler and next-sentence head are stored, as in published BertForMaskedLM files."""
    return replace(config, pooler={POOLER, "cls.seq_relationship.weight"} <= weights.keys())


BERT_KEYS: tuple[ConfigKey, ...] = (
    IntKey("vocab_size", "vocab"),
    IntKey("max_position_embeddings", "context"),
    IntKey("hidden_size", "width"),
    IntKey("num_hidden_layers", "layers", MAX_LAYERS),
    IntKey("num_attention_heads", "heads"),
    HeadDimKey(None, "hidden_size", "num_attention_heads"),
    KVHeadsEqualHeads("num_attention_heads"),
    IntKey("intermediate_size", "intermediate_size"),
    IntKey("type_vocab_size", "token_types"),
    ChoiceKey(
        "hidden_act", "activation", {"gelu": "gelu", **{k: v for k, v in ACTIVATION_NAMES.items() if k != "gelu"}}
    ),
    FloatKey("layer_norm_eps", "norm_eps", 1e-12, 1.0),
    DropoutKeys(("hidden_dropout_prob", "attention_probs_dropout_prob")),
    FixedKey("position_embedding_type", "absolute", "absolute"),
    FixedKey("tie_word_embeddings", True, True),
    FixedKey("is_decoder", False, False),
    FixedKey("add_cross_attention", False, False),
)

BERT_DEFAULTS = {
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}

BERT_FIXED_FIELDS = {
    "architecture": "encoder", "norm": "layer", "norm_first": False, "embed_norm": True, "positions": "learned",
    "gated": False, "bias": True,
}  # fmt: skip

MLM_FIXED_FIELDS = {**BERT_FIXED_FIELDS, "mlm_transform": True, "unembed_bias": True}

BERT_DUPLICATES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}

# The published BERT weights use TensorFlow's names for layer norms.
LEGACY_SUFFIXES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

POSITION_BUFFERS = r"bert\.embeddings\.(position_ids|token_type_ids)"


def headless(name: str, head: str | None = None) -> HFArchitecture:
    """An encoder without heads. Weights of heads are ignored; `head` is the one that `omission_note` names."""
    return HFArchitecture(
        name=name,
        model_type="bert",
        keys=BERT_KEYS,
        defaults=BERT_DEFAULTS,
        fixed_fields=BERT_FIXED_FIELDS,
        extra_fields=frozenset({"dropout", "pooler"}),
        weight_prefix="bert.",
        weight_map=bert_weights,
        ignored_weights=(POSITION_BUFFERS, r"(cls|classifier|qa_outputs)\..*"),
        legacy_suffixes=LEGACY_SUFFIXES,
        infer_from_weights=infer_pooler,
        omission_note=f"the head of {name} ({head}) is ignored; only the encoder is opened" if head else None,
        auto_class="AutoModel",
    )


BERT_BACKBONE = headless("BertModel")

ENCODERS = (
    BERT_BACKBONE,
    HFArchitecture(
        name="BertForPreTraining",
        model_type="bert",
        keys=BERT_KEYS,
        defaults=BERT_DEFAULTS,
        fixed_fields={**MLM_FIXED_FIELDS, "pooler": True},
        weight_prefix="bert.",
        weight_map=bert_weights,
        ignored_weights=(POSITION_BUFFERS,),
        duplicate_weights=BERT_DUPLICATES,
        legacy_suffixes=LEGACY_SUFFIXES,
        auto_class="AutoModelForPreTraining",
    ),
    HFArchitecture(
        name="BertForMaskedLM",
        model_type="bert",
        keys=BERT_KEYS,
        defaults=BERT_DEFAULTS,
        fixed_fields=MLM_FIXED_FIELDS,
        weight_prefix="bert.",
        weight_map=bert_weights,
        ignored_weights=(POSITION_BUFFERS, r"bert\.pooler\.dense\..*", r"cls\.seq_relationship\..*"),
        duplicate_weights=BERT_DUPLICATES,
        legacy_suffixes=LEGACY_SUFFIXES,
        infer_from_weights=infer_pretraining_heads,
        auto_class="AutoModelForMaskedLM",
    ),
    headless("BertForQuestionAnswering", "qa_outputs"),
    headless("BertForNextSentencePrediction", "cls.seq_relationship"),
    headless("BertForMultipleChoice", "classifier"),
)
"""Supported classes, in the order in which they are tried for a config: BertModel before those that open as the same.
"""
