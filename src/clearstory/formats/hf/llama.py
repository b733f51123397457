"""The decoders of transformers that are Llama but for a few keys: Llama, Qwen3, Phi-3 and Mistral."""

from __future__ import annotations

from clearstory.formats.hf.architecture import ACTIVATION_NAMES, HFArchitecture, infer_tie_embeddings
from clearstory.formats.hf.attention_keys import (
    HeadDimKey,
    KVHeadsKey,
    LlamaBiasKeys,
    QwenSlidingWindowKeys,
    RopeKeys,
    SlidingWindowKey,
)
from clearstory.formats.hf.config_keys import (
    MAX_LAYERS,
    BoolKey,
    ChoiceKey,
    ConfigKey,
    FixedKey,
    FloatKey,
    IgnoredKeys,
    IntKey,
)
from clearstory.formats.hf.weight_map import Fuse, Rename, WeightMap, WeightRule
from clearstory.models.transformer.config import TransformerConfig


def llama_weights(config: TransformerConfig) -> WeightMap:
    """Llama, Mistral and Qwen3. Norms that a model lacks are skipped."""
    block, native = "model.layers.{layer}", "blocks.{layer}"
    return WeightMap(
        outside=LLAMA_OUTSIDE,
        per_layer=(
            *llama_common_rules(block, native),
            Rename(f"{block}.self_attn.q_proj", f"{native}.attention.query"),
            Rename(f"{block}.self_attn.k_proj", f"{native}.attention.key"),
            Rename(f"{block}.self_attn.v_proj", f"{native}.attention.value"),
            Rename(f"{block}.self_attn.q_norm", f"{native}.attention.query_norm"),
            Rename(f"{block}.self_attn.k_norm", f"{native}.attention.key_norm"),
            Rename(f"{block}.mlp.gate_proj", f"{native}.feed_forward.gate"),
            Rename(f"{block}.mlp.up_proj", f"{native}.feed_forward.up"),
        ),
        layers=config.layers,
    )


def phi3_weights(config: TransformerConfig) -> WeightMap:
    """Phi-3: Llama with fused query, key, value and fused gate, up."""
    block, native, c = "model.layers.{layer}", "blocks.{layer}", config
    attention = tuple(f"{native}.attention.{name}" for name in ("query", "key", "value"))
    out_features = (c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim)
    feed_forward = (f"{native}.feed_forward.gate", f"{native}.feed_forward.up")
    return WeightMap(
        outside=LLAMA_OUTSIDE,
        per_layer=(
            *llama_common_rules(block, native),
            Fuse(f"{block}.self_attn.qkv_proj", attention, out_features),
            Fuse(f"{block}.mlp.gate_up_proj", feed_forward, (c.intermediate_size, c.intermediate_size)),
        ),
        layers=c.layers,
    )


LLAMA_OUTSIDE: tuple[WeightRule, ...] = (
    Rename("model.embed_tokens", "embedding"),
    Rename("model.norm", "norm"),
    Rename("lm_head", "unembedding"),
)


def llama_common_rules(block: str, native: str) -> tuple[WeightRule, ...]:
    """Rules common to Llama and Phi-3."""
    return (
        Rename(f"{block}.input_layernorm", f"{native}.attention_norm"),
        Rename(f"{block}.self_attn.o_proj", f"{native}.attention.output"),
        llama_feed_forward_norm(block, native),
        Rename(f"{block}.mlp.down_proj", f"{native}.feed_forward.down"),
    )


def llama_feed_forward_norm(block: str, native: str) -> Rename:
    """The rule of the norm before the feed-forward layers, which Llama names after the preceding sublayer."""
    return Rename(f"{block}.post_attention_layernorm", f"{native}.feed_forward_norm")


LLAMA_FIXED_FIELDS = {"norm": "rms", "positions": "rotary", "gated": True}

LLAMA_DUPLICATES = {"lm_head.weight": "model.embed_tokens.weight"}

LLAMA_KEYS: tuple[ConfigKey, ...] = (
    IntKey("vocab_size", "vocab"),
    IntKey("max_position_embeddings", "context"),
    IntKey("hidden_size", "width"),
    IntKey("num_hidden_layers", "layers", MAX_LAYERS),
    IntKey("num_attention_heads", "heads"),
    KVHeadsKey(),
    IntKey("intermediate_size", "intermediate_size"),
    ChoiceKey(
        "hidden_act", "activation", {"silu": "silu", **{k: v for k, v in ACTIVATION_NAMES.items() if k != "silu"}}
    ),
    FloatKey("rms_norm_eps", "norm_eps", 1e-12, 1.0),
    RopeKeys(),
    BoolKey(("tie_word_embeddings",), "tie_embeddings", False),
    # How Meta's training split matrices; transformers multiplies them whole.
    IgnoredKeys(("pretraining_tp",)),
)

LLAMA_DEFAULTS: dict[str, str | int | float] = {
    "vocab_size": 32_000,
    "max_position_embeddings": 2048,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11_008,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
}

# Rotary frequencies that older files store, and the causal mask of some.
LLAMA_BUFFERS = (r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)",)

LLAMA_DECODERS: tuple[HFArchitecture, ...] = (
    HFArchitecture(
        name="LlamaForCausalLM",
        model_type="llama",
        keys=(
            *LLAMA_KEYS,
            HeadDimKey("head_dim", "hidden_size", "num_attention_heads"),
            LlamaBiasKeys(),
        ),
        defaults=LLAMA_DEFAULTS,
        fixed_fields=LLAMA_FIXED_FIELDS,
        weight_prefix="model.",
        infer_from_weights=infer_tie_embeddings("model.embed_tokens.weight"),
        duplicate_weights=LLAMA_DUPLICATES,
        weight_map=llama_weights,
        ignored_weights=LLAMA_BUFFERS,
        zero_biases=LlamaBiasKeys.zero_biases,
    ),
    HFArchitecture(
        name="Qwen3ForCausalLM",
        model_type="qwen3",
        keys=(
            *LLAMA_KEYS,
            HeadDimKey("head_dim", "hidden_size", "num_attention_heads", divisible=False),
            QwenSlidingWindowKeys(),
            FixedKey("attention_bias", False, False),
        ),
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 151_936,
            "max_position_embeddings": 32_768,
            "num_key_value_heads": 32,
            "intermediate_size": 22_016,
            "head_dim": 128,
            "sliding_window": 4096,
        },
        fixed_fields={**LLAMA_FIXED_FIELDS, "bias": False, "qk_norm": True},
        weight_prefix="model.",
        infer_from_weights=infer_tie_embeddings("model.embed_tokens.weight"),
        duplicate_weights=LLAMA_DUPLICATES,
        weight_map=llama_weights,
        ignored_weights=LLAMA_BUFFERS,
    ),
    HFArchitecture(
        name="Phi3ForCausalLM",
        model_type="phi3",
        keys=(
            *LLAMA_KEYS,
            HeadDimKey(None, "hidden_size", "num_attention_heads"),
            SlidingWindowKey(),
            FixedKey("attention_bias", False, False),
            # original_max_position_embeddings is used by longrope only, which RopeKeys rejects; the others are dropout.
            IgnoredKeys(("original_max_position_embeddings", "resid_pdrop", "embd_pdrop")),
        ),
        defaults={
            **LLAMA_DEFAULTS,
            "vocab_size": 32_064,
            "max_position_embeddings": 4096,
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "rms_norm_eps": 1e-5,
        },
        fixed_fields={**LLAMA_FIXED_FIELDS, "bias": False},
        weight_prefix="model.",
        infer_from_weights=infer_tie_embeddings("model.embed_tokens.weight"),
        duplicate_weights=LLAMA_DUPLICATES,
        weight_map=phi3_weights,
        ignored_weights=LLAMA_BUFFERS,
    ),
    HFArchitecture(
        name="MistralForCausalLM",
        model_type="mistral",
        keys=(
            *LLAMA_KEYS,
            HeadDimKey("head_dim", "hidden_size", "num_attention_heads", divisible=False),
            SlidingWindowKey(),
        ),
        defaults={
            **LLAMA_DEFAULTS,
            "max_position_embeddings": 131_072,
            "num_key_value_heads": 8,
            "intermediate_size": 14_336,
            "sliding_window": 4096,
        },
        fixed_fields={**LLAMA_FIXED_FIELDS, "bias": False},
        weight_prefix="model.",
        infer_from_weights=infer_tie_embeddings("model.embed_tokens.weight"),
        duplicate_weights=LLAMA_DUPLICATES,
        weight_map=llama_weights,
        ignored_weights=LLAMA_BUFFERS,
    ),
)
