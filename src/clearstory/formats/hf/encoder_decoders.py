"""Architectures of encoder-decoders: T5 (Raffel et al. 2020) and Marian, whose wiring the Transformer of 2017 is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearstory.formats.hf.architecture import ACTIVATION_NAMES, HFArchitecture
from clearstory.formats.hf.config_keys import MAX_LAYERS, ChoiceKey, FixedKey, BoolKey, FloatKey, IgnoredKeys, IntKey
from clearstory.formats.hf.weight_map import Rename, WeightMap, WeightRule, Weights
from clearstory.formats.hf.encoder_decoder_keys import (
    SameAsEncoderKey,
    DecoderStartKeys,
    DecoderLayersKey,
    T5FeedForwardKeys,
    LogitScaleKey,
    T5ContextKey,
    Share,
    NoForcedEosKey,
)
from clearstory.formats.hf.attention_keys import KVHeadsEqualHeads, HeadDimKey
from clearstory.models.config import TransformerConfig

# What generation does unless told otherwise, and shares dropped in training only.
OF_GENERATION = IgnoredKeys(
    (
        *("max_length", "num_beams", "bad_words_ids", "length_penalty", "early_stopping"),
        *("no_repeat_ngram_size", "num_hidden_layers", "output_past", "is_decoder", "prefix", "activation_dropout"),
        *("classifier_dropout", "classif_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std"),
        *("initializer_factor", "num_labels"),
    )
)


@dataclass(frozen=True)
class RenameRow:
    """A vector that they keep as a matrix of one row, under a name without `.weight`."""

    theirs: str
    ours: str

    def to_native(self, theirs: Weights, layer: int) -> dict[str, Tensor]:
        return {self.ours: theirs[self.theirs][0]} if self.theirs in theirs else {}

    def from_native(self, ours: Weights, layer: int) -> dict[str, Tensor]:
        return {self.theirs: ours[self.ours].unsqueeze(0)} if self.ours in ours else {}


def t5_weights(config: TransformerConfig) -> WeightMap:
    """Every step is a numbered layer of its block; the first block of each stack holds the biases of distance."""
    c = config
    return WeightMap(
        outside=(
            Rename("shared", "embedding"),
            Rename("lm_head", "unembedding"),
            *(
                rule
                for stack in ("encoder", "decoder")
                for rule in (
                    Rename(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias", f"{stack}.relative_position_bias.bias"),
                    Rename(f"{stack}.final_layer_norm", f"{stack}.norm"),
                )
            ),
        ),
        inside=t5_block("encoder", c.gated, cross=False),
        layers=c.layers,
        beside=WeightMap((), t5_block("decoder", c.gated, cross=True), c.decoder_layers or c.layers),
    )


def t5_block(stack: str, gated: bool, cross: bool) -> tuple[WeightRule, ...]:
    """One block of either stack."""
    block, ours = f"{stack}.block.{{layer}}.layer", f"{stack}.blocks.{{layer}}"
    steps = (("SelfAttention", "attention"), *((("EncDecAttention", "cross_attention"),) if cross else ()))
    letters = {"q": "query", "k": "key", "v": "value", "o": "output"}
    last = f"{block}.{len(steps)}"
    return (
        *(
            Rename(f"{block}.{number}.{theirs}.{letter}", f"{ours}.{name}.{word}")
            for number, (theirs, name) in enumerate(steps)
            for letter, word in letters.items()
        ),
        *(
            Rename(f"{block}.{number}.layer_norm", f"{ours}.{name}_norm")
            for number, (_, name) in enumerate((*steps, ("", "feed_forward")))
        ),
        Rename(f"{last}.DenseReluDense.wi_0", f"{ours}.feed_forward.gate"),
        Rename(f"{last}.DenseReluDense.{'wi_1' if gated else 'wi'}", f"{ours}.feed_forward.up"),
        Rename(f"{last}.DenseReluDense.wo", f"{ours}.feed_forward.down"),
    )


def marian_weights(config: TransformerConfig) -> WeightMap:
    """BART's names; the embedding stands outside both stacks."""
    c = config
    return WeightMap(
        outside=(Rename("model.shared", "embedding"), RenameRow("final_logits_bias", "unembedding_bias")),
        inside=marian_block("encoder", cross=False),
        layers=c.layers,
        beside=WeightMap((), marian_block("decoder", cross=True), c.decoder_layers or c.layers),
    )


def marian_block(stack: str, cross: bool) -> tuple[WeightRule, ...]:
    """One block of either stack."""
    block, ours = f"model.{stack}.layers.{{layer}}", f"{stack}.blocks.{{layer}}"
    steps = (("self_attn", "attention"), *((("encoder_attn", "cross_attention"),) if cross else ()))
    words = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    return (
        *(Rename(f"{block}.{theirs}.{a}", f"{ours}.{name}.{b}") for theirs, name in steps for a, b in words.items()),
        *(Rename(f"{block}.{theirs}_layer_norm", f"{ours}.{name}_norm") for theirs, name in steps),
        Rename(f"{block}.fc1", f"{ours}.feed_forward.up"),
        Rename(f"{block}.fc2", f"{ours}.feed_forward.down"),
        Rename(f"{block}.final_layer_norm", f"{ours}.feed_forward_norm"),
    )


LM_HEAD = "lm_head.weight"


def untied(config: TransformerConfig, weights: Weights) -> TransformerConfig:
    """Release 5 of transformers calls every T5 tied, and unties those whose files hold two matrices that differ."""
    if not config.tie_embeddings or LM_HEAD not in weights or "shared.weight" not in weights:
        return config
    return replace(config, tie_embeddings=torch.equal(weights[LM_HEAD], weights["shared.weight"]))


GIVEN = {"architecture": "encoder-decoder"}

ENCODER_DECODERS = (
    HFArchitecture(
        name="T5ForConditionalGeneration",
        model_type="t5",
        keys=(
            IntKey("vocab_size", "vocab"),
            T5ContextKey(),
            IntKey("d_model", "width"),
            IntKey("num_layers", "layers", MAX_LAYERS),
            DecoderLayersKey("num_decoder_layers", "num_layers"),
            IntKey("num_heads", "heads"),
            KVHeadsEqualHeads("num_heads"),
            IntKey("d_kv", "head_dim"),
            IntKey("d_ff", "intermediate_size"),
            T5FeedForwardKeys(),
            FloatKey("layer_norm_epsilon", "norm_eps", 1e-12, 1.0),
            Share("dropout_rate"),
            BoolKey(("tie_word_embeddings",), "tie_embeddings", True),
            LogitScaleKey(),
            DecoderStartKeys(),
            FixedKey("relative_attention_num_buckets", 32, 32),
            FixedKey("relative_attention_max_distance", 128, 128),
            OF_GENERATION,
        ),
        fixed_fields={
            **GIVEN,
            "norm": "rms",
            "positions": "relative_bias",
            "bias": False,
            "attention_scale": 1.0,
        },
        extra_fields=frozenset({"decoder_layers"}),
        weight_prefix="",
        weight_map=t5_weights,
        # Old files of theirs carry biases that no code reads.
        ignored_weights=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
        duplicate_weights=dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", LM_HEAD), "shared.weight"),
        infer_from_weights=untied,
        auto_class="AutoModelForSeq2SeqLM",
    ),
    HFArchitecture(
        name="MarianMTModel",
        model_type="marian",
        keys=(
            IntKey("vocab_size", "vocab"),
            IntKey("max_position_embeddings", "context"),
            IntKey("d_model", "width"),
            IntKey("encoder_layers", "layers", MAX_LAYERS),
            DecoderLayersKey("decoder_layers", "encoder_layers"),
            IntKey("encoder_attention_heads", "heads"),
            KVHeadsEqualHeads("encoder_attention_heads"),
            HeadDimKey(None, "d_model", "encoder_attention_heads"),
            IntKey("encoder_ffn_dim", "intermediate_size"),
            SameAsEncoderKey("decoder_attention_heads", "encoder_attention_heads", "heads"),
            SameAsEncoderKey("decoder_ffn_dim", "encoder_ffn_dim", "intermediate_size"),
            SameAsEncoderKey("decoder_vocab_size", "vocab_size", "vocab"),
            ChoiceKey("activation_function", "activation", {"swish": "silu", **ACTIVATION_NAMES}),
            Share("dropout"),
            BoolKey(("scale_embedding",), "embed_scale", False),
            DecoderStartKeys(),
            NoForcedEosKey(),
            FixedKey("static_position_embeddings", True, True),
            FixedKey("share_encoder_decoder_embeddings", True, True),
            FixedKey("tie_word_embeddings", True, True),
            FixedKey("normalize_before", False, False),
            FixedKey("normalize_embedding", False, False),
            FixedKey("add_final_layer_norm", False, False),
            FixedKey("add_bias_logits", False, False),
            OF_GENERATION,
        ),
        fixed_fields={
            **GIVEN,
            "norm_first": False,
            "positions": "sinusoidal",
            "unembed_bias": True,
        },
        extra_fields=frozenset({"decoder_layers", "unembed_bias"}),
        weight_prefix="model.",
        weight_map=marian_weights,
        ignored_weights=(r"model\.(encoder|decoder)\.embed_positions\.weight",),
        duplicate_weights=dict.fromkeys(
            ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", LM_HEAD),
            "model.shared.weight",
        ),
        auto_class="AutoModelForSeq2SeqLM",
    ),
)
"""In the order in which they are tried for a config of ours."""
