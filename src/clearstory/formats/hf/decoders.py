"""Decoders of transformers: GPT-2, the family of Llama, and Gemma 3."""

from __future__ import annotations

from clearstory.formats.hf.architecture import ACTIVATION_NAMES, HFArchitecture, infer_tie_embeddings
from clearstory.formats.hf.attention_keys import HeadDimKey, KVHeadsEqualHeads, ScaleAttentionKey
from clearstory.formats.hf.config_keys import (
    MAX_LAYERS,
    BoolKey,
    ChoiceKey,
    DropoutKeys,
    FixedKey,
    FloatKey,
    IgnoredKeys,
    IntKey,
    IntKeyWithDefault,
)
from clearstory.formats.hf.gemma3 import GEMMA3
from clearstory.formats.hf.llama import LLAMA_DECODERS
from clearstory.formats.hf.weight_map import Fuse, Rename, WeightMap
from clearstory.models.transformer.config import TransformerConfig

# GPT-2's multiple-choice head.
SUMMARY_KEYS = (
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    "summary_first_dropout",
)


def gpt2_weights(config: TransformerConfig) -> WeightMap:
    """GPT-2: Conv1D stores every matrix transposed; query, key and value are fused."""
    block, native = "transformer.h.{layer}", "blocks.{layer}"
    attention = tuple(f"{native}.attention.{name}" for name in ("query", "key", "value"))
    return WeightMap(
        outside=(
            Rename("transformer.wte", "embedding"),
            Rename("transformer.wpe", "position_embedding"),
            Rename("transformer.ln_f", "norm"),
            Rename("lm_head", "unembedding"),
        ),
        per_layer=(
            Rename(f"{block}.ln_1", f"{native}.attention_norm"),
            Fuse(f"{block}.attn.c_attn", attention, (config.width,) * 3, transposed=True),
            Rename(f"{block}.attn.c_proj", f"{native}.attention.output", transposed=True),
            Rename(f"{block}.ln_2", f"{native}.feed_forward_norm"),
            Rename(f"{block}.mlp.c_fc", f"{native}.feed_forward.up", transposed=True),
            Rename(f"{block}.mlp.c_proj", f"{native}.feed_forward.down", transposed=True),
        ),
        layers=config.layers,
    )


GPT2 = HFArchitecture(
    name="GPT2LMHeadModel",
    model_type="gpt2",
    keys=(
        IntKey("vocab_size", "vocab"),
        IntKey("n_positions", "context"),
        IntKey("n_embd", "width"),
        IntKey("n_layer", "layers", MAX_LAYERS),
        IntKey("n_head", "heads"),
        IntKeyWithDefault("n_inner", "intermediate_size", "n_embd", 4),
        HeadDimKey(None, "n_embd", "n_head"),
        KVHeadsEqualHeads("n_head"),
        ChoiceKey("activation_function", "activation", ACTIVATION_NAMES),
        FloatKey("layer_norm_epsilon", "norm_eps", 1e-12, 1.0),
        DropoutKeys(),
        BoolKey(("tie_word_embeddings",), "tie_embeddings", True),
        ScaleAttentionKey(),
        FixedKey("scale_attn_by_inverse_layer_idx", False, False),
        FixedKey("add_cross_attention", False, False),
        # Changes the precision of attention scores only.
        IgnoredKeys(("reorder_and_upcast_attn",)),
        IgnoredKeys(SUMMARY_KEYS),
    ),
    defaults={
        "vocab_size": 50_257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    },
    aliases={
        "max_position_embeddings": "n_positions",
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
    },
    fixed_fields={"norm": "layer", "positions": "learned", "gated": False, "bias": True},
    extra_fields=frozenset({"bias"}),
    weight_prefix="transformer.",
    infer_from_weights=infer_tie_embeddings("transformer.wte.weight"),
    weight_map=gpt2_weights,
    # The causal mask and its fill value, stored in OpenAI's own files; the head of GPT2DoubleHeadsModel.
    ignored_weights=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)", r"multiple_choice_head\..*"),
    duplicate_weights={"lm_head.weight": "transformer.wte.weight"},
)

DECODERS: tuple[HFArchitecture, ...] = (GPT2, *LLAMA_DECODERS, GEMMA3)
"""Supported classes, in the order in which they are tried for a config."""
