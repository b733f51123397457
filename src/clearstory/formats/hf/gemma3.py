"""Gemma 3 of transformers: Llama with more norms and two kinds of attention layers."""

from __future__ import annotations

from dataclasses import replace

from clearstory.formats.hf.architecture import ACTIVATION_NAMES, HFArchitecture, infer_tie_embeddings
from clearstory.formats.hf.attention_keys import HeadDimKey
from clearstory.formats.hf.config_keys import ChoiceKey, FixedKey
from clearstory.formats.hf.llama import (
    LLAMA_BUFFERS,
    LLAMA_DEFAULTS,
    LLAMA_DUPLICATES,
    LLAMA_FIXED_FIELDS,
    LLAMA_KEYS,
    llama_feed_forward_norm,
    llama_weights,
)
from clearstory.formats.hf.local_layer_keys import LocalLayerKeys, LocalRopeKeys, QueryScaleKey
from clearstory.formats.hf.weight_map import Rename, WeightMap
from clearstory.models.transformer.config import TransformerConfig


def gemma3_weights(config: TransformerConfig) -> WeightMap:
    """Gemma 3: Llama with norms before and after each sublayer, and of queries and keys."""
    block, native = "model.layers.{layer}", "blocks.{layer}"
    llama = llama_weights(config)
    norms = {
        "post_attention_layernorm": "attention.output_norm",
        "pre_feedforward_layernorm": "feed_forward_norm",
        "post_feedforward_layernorm": "feed_forward.output_norm",
    }
    others = [rule for rule in llama.per_layer if rule != llama_feed_forward_norm(block, native)]
    renamed = [Rename(f"{block}.{theirs}", f"{native}.{ours}") for theirs, ours in norms.items()]
    return replace(llama, per_layer=(*others, *renamed))


GEMMA3_FIXED_FIELDS = {
    **LLAMA_FIXED_FIELDS,
    "norm": "rms_unit_offset",
    "sandwich_norm": True,
    "embed_scale": True,
    "qk_norm": True,
    "bias": False,
}

GEMMA3 = HFArchitecture(
    name="Gemma3ForCausalLM",
    model_type="gemma3_text",
    keys=(
        *(each for each in LLAMA_KEYS if not set(each.keys) & {"hidden_act", "rope_theta", "pretraining_tp"}),
        ChoiceKey("hidden_activation", "activation", ACTIVATION_NAMES),
        HeadDimKey("head_dim", "hidden_size", "num_attention_heads"),
        LocalLayerKeys(),
        LocalRopeKeys(),
        QueryScaleKey(),
        FixedKey("attention_bias", False, False),
        FixedKey("attn_logit_softcapping", None, None),
        FixedKey("final_logit_softcapping", None, None),
        FixedKey("use_bidirectional_attention", False, False),
    ),
    defaults={
        **{key: value for key, value in LLAMA_DEFAULTS.items() if key != "hidden_act"},
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "hidden_size": 2304,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "intermediate_size": 9216,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
        "tie_word_embeddings": True,
    },
    fixed_fields=GEMMA3_FIXED_FIELDS,
    weight_prefix="model.",
    infer_from_weights=infer_tie_embeddings("model.embed_tokens.weight"),
    duplicate_weights=LLAMA_DUPLICATES,
    weight_map=gemma3_weights,
    ignored_weights=LLAMA_BUFFERS,
)
