"""Encoder-decoders of transformers, a row each: T5 (Raffel et al. 2020) and Marian, which has the 2017 Transformer's
architecture.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clearstory.formats.hf.architecture import ACTIVATION_NAMES, LM_HEAD, HFArchitecture, infer_tie_embeddings
from clearstory.formats.hf.attention_keys import HeadDimKey, KVHeadsEqualHeads
from clearstory.formats.hf.config_keys import (
    MAX_LAYERS,
    BoolKey,
    ChoiceKey,
    DropoutKeys,
    FixedKey,
    FloatKey,
    IgnoredKeys,
    IntKey,
)
from clearstory.formats.hf.encoder_decoder_keys import (
    DecoderLayersKey,
    DecoderStartKeys,
    LogitScaleKey,
    NoForcedEosKey,
    SameAsEncoderKey,
    T5ContextKey,
    T5FeedForwardKeys,
)
from clearstory.formats.hf.weight_map import Rename, WeightMap, WeightRule, Weights
from clearstory.models.transformer.config import TransformerConfig

# Settings of training, and of the stacks inside a model.
TRAINING_KEYS = IgnoredKeys(
    (
        *("activation_dropout", "classif_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std"),
        *("initializer_factor", "is_decoder"),
    )
)


@dataclass(frozen=True)
class RenameRow:
    """A vector, stored externally as a matrix of one row under a name without `.weight`."""

    external: str
    native: str

    def to_native(self, external: Weights, layer: int) -> dict[str, Tensor]:
        return {self.native: external[self.external][0]} if self.external in external else {}

    def from_native(self, native: Weights, layer: int) -> dict[str, Tensor]:
        return {self.external: native[self.native].unsqueeze(0)} if self.native in native else {}


def t5_weights(config: TransformerConfig) -> WeightMap:
    """T5: each sublayer is a numbered `layer` of its block; block 0 of each stack has the relative position biases."""
    c = config
    return WeightMap(
        outside=(
            Rename("shared", "embedding"),
            Rename("lm_head", "unembedding"),
            *(
                rule
                for stack in ("encoder", "decoder")
                for rule in (
                    Rename(
                        f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias",
                        f"{stack}.relative_position_bias.bias",
                    ),
                    Rename(f"{stack}.final_layer_norm", f"{stack}.norm"),
                )
            ),
        ),
        per_layer=t5_block("encoder", c.gated, cross=False),
        layers=c.layers,
        second_stack=WeightMap((), t5_block("decoder", c.gated, cross=True), c.decoder_layers or c.layers),
    )


def t5_block(stack: str, gated: bool, cross: bool) -> tuple[WeightRule, ...]:
    """Rules of one block of the encoder or decoder."""
    block, native = f"{stack}.block.{{layer}}.layer", f"{stack}.blocks.{{layer}}"
    sublayers = (("SelfAttention", "attention"), *((("EncDecAttention", "cross_attention"),) if cross else ()))
    letters = {"q": "query", "k": "key", "v": "value", "o": "output"}
    feed_forward = f"{block}.{len(sublayers)}"
    return (
        *(
            Rename(f"{block}.{index}.{hf_name}.{letter}", f"{native}.{name}.{projection}")
            for index, (hf_name, name) in enumerate(sublayers)
            for letter, projection in letters.items()
        ),
        *(
            Rename(f"{block}.{index}.layer_norm", f"{native}.{name}_norm")
            for index, (_, name) in enumerate((*sublayers, ("", "feed_forward")))
        ),
        Rename(f"{feed_forward}.DenseReluDense.wi_0", f"{native}.feed_forward.gate"),
        Rename(f"{feed_forward}.DenseReluDense.{'wi_1' if gated else 'wi'}", f"{native}.feed_forward.up"),
        Rename(f"{feed_forward}.DenseReluDense.wo", f"{native}.feed_forward.down"),
    )


def marian_weights(config: TransformerConfig) -> WeightMap:
    """Marian: BART's names, one embedding for encoder and decoder."""
    c = config
    return WeightMap(
        outside=(Rename("model.shared", "embedding"), RenameRow("final_logits_bias", "unembedding_bias")),
        per_layer=marian_block("encoder", cross=False),
        layers=c.layers,
        second_stack=WeightMap((), marian_block("decoder", cross=True), c.decoder_layers or c.layers),
    )


def marian_block(stack: str, cross: bool) -> tuple[WeightRule, ...]:
    """Rules of one block of the encoder or decoder."""
    block, native = f"model.{stack}.layers.{{layer}}", f"{stack}.blocks.{{layer}}"
    sublayers = (("self_attn", "attention"), *((("encoder_attn", "cross_attention"),) if cross else ()))
    projections = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    return (
        *(
            Rename(f"{block}.{hf_name}.{hf_projection}", f"{native}.{name}.{projection}")
            for hf_name, name in sublayers
            for hf_projection, projection in projections.items()
        ),
        *(Rename(f"{block}.{hf_name}_layer_norm", f"{native}.{name}_norm") for hf_name, name in sublayers),
        Rename(f"{block}.fc1", f"{native}.feed_forward.up"),
        Rename(f"{block}.fc2", f"{native}.feed_forward.down"),
        Rename(f"{block}.final_layer_norm", f"{native}.feed_forward_norm"),
    )


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
            DropoutKeys(("dropout_rate",)),
            BoolKey(("tie_word_embeddings",), "tie_embeddings", True),
            LogitScaleKey(),
            DecoderStartKeys(),
            FixedKey("relative_attention_num_buckets", 32, 32),
            FixedKey("relative_attention_max_distance", 128, 128),
            TRAINING_KEYS,
        ),
        defaults={
            "vocab_size": 32_128,
            "d_model": 512,
            "num_layers": 6,
            "num_heads": 8,
            "d_kv": 64,
            "d_ff": 2048,
            "layer_norm_epsilon": 1e-6,
        },
        aliases={
            "hidden_size": "d_model",
            "num_hidden_layers": "num_layers",
            "num_attention_heads": "num_heads",
            "head_dim": "d_kv",
        },
        fixed_fields={
            "architecture": "encoder-decoder",
            "norm": "rms",
            "positions": "relative_bias",
            "bias": False,
            "attention_scale": 1.0,
        },
        extra_fields=frozenset({"decoder_layers"}),
        weight_prefix="",
        weight_map=t5_weights,
        # Unused weights of older T5 files.
        ignored_weights=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
        duplicate_weights=dict.fromkeys(
            ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", LM_HEAD), "shared.weight"
        ),
        infer_from_weights=infer_tie_embeddings("shared.weight", tie_missing=True),
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
            DropoutKeys(("dropout",)),
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
            TRAINING_KEYS,
        ),
        defaults={
            "vocab_size": 58_101,
            "max_position_embeddings": 1024,
            "d_model": 1024,
            "encoder_layers": 12,
            "encoder_attention_heads": 16,
            "encoder_ffn_dim": 4096,
            "decoder_layers": 12,
            "decoder_attention_heads": 16,
            "decoder_ffn_dim": 4096,
            "activation_function": "gelu",
        },
        aliases={
            "hidden_size": "d_model",
            "num_hidden_layers": "encoder_layers",
            "num_attention_heads": "encoder_attention_heads",
        },
        fixed_fields={
            "architecture": "encoder-decoder",
            "norm_first": False,
            "positions": "sinusoidal",
            "unembed_bias": True,
        },
        extra_fields=frozenset({"decoder_layers", "unembed_bias"}),
        weight_prefix="model.",
        weight_map=marian_weights,
        ignored_weights=(r"model\.(encoder|decoder)\.embed_positions\.weight",),
        # A bare MarianModel has none.
        zero_biases=lambda external: "final_logits_bias",
        duplicate_weights=dict.fromkeys(
            ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", LM_HEAD),
            "model.shared.weight",
        ),
        auto_class="AutoModelForSeq2SeqLM",
    ),
)
"""Supported classes, in the order in which they are tried for a config."""
