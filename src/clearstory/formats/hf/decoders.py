"""Architectures: the models of transformers that this house expresses, a row each.

Which row carries a config is not stated anywhere a second time: it is the first whose keys, pushed and pulled back,
give the config again.
"""

from __future__ import annotations

from clearstory.formats.hf.architecture import ACTIVATION_NAMES, HFArchitecture
from clearstory.formats.hf.encoders import ENCODERS
from clearstory.formats.hf.config_keys import MAX_LAYERS, ChoiceKey, IntKeyWithDefault, FixedKey, BoolKey, ConfigKey, FloatKey, IgnoredKeys, IntKey
from clearstory.formats.hf.weight_map import Fuse, Rename, WeightMap, WeightRule
from clearstory.formats.hf.encoder_decoders import ENCODER_DECODERS
from clearstory.formats.hf.attention_keys import KVHeadsEqualHeads, DropoutKeys, HeadDimKey, QwenSlidingWindowKeys, RopeKeys, SlidingWindowKey
from clearstory.models.config import TransformerConfig

# GPT-2's head for choosing among answers, which reads the same stack.
SUMMARY = (
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    "summary_first_dropout",
)


def gpt2_weights(config: TransformerConfig) -> WeightMap:
    """Conv1D stores every map turned; query, key and value are one."""
    block, ours = "transformer.h.{layer}", "blocks.{layer}"
    attention = tuple(f"{ours}.attention.{name}" for name in ("query", "key", "value"))
    return WeightMap(
        outside=(
            Rename("transformer.wte", "embedding"),
            Rename("transformer.wpe", "places"),
            Rename("transformer.ln_f", "norm"),
            Rename("lm_head", "unembedding"),
        ),
        inside=(
            Rename(f"{block}.ln_1", f"{ours}.attention_norm"),
            Fuse(f"{block}.attn.c_attn", attention, (config.width,) * 3, transposed=True),
            Rename(f"{block}.attn.c_proj", f"{ours}.attention.output", transposed=True),
            Rename(f"{block}.ln_2", f"{ours}.feed_forward_norm"),
            Rename(f"{block}.mlp.c_fc", f"{ours}.feed_forward.up", transposed=True),
            Rename(f"{block}.mlp.c_proj", f"{ours}.feed_forward.down", transposed=True),
        ),
        layers=config.layers,
    )


def llama_weights(config: TransformerConfig) -> WeightMap:
    """Llama's names, which Mistral and Qwen share; a norm that is not there is not carried."""
    block, ours = "model.layers.{layer}", "blocks.{layer}"
    return WeightMap(
        outside=LLAMA_OUTSIDE,
        inside=(
            *llama_frame(block, ours),
            Rename(f"{block}.self_attn.q_proj", f"{ours}.attention.query"),
            Rename(f"{block}.self_attn.k_proj", f"{ours}.attention.key"),
            Rename(f"{block}.self_attn.v_proj", f"{ours}.attention.value"),
            Rename(f"{block}.self_attn.q_norm", f"{ours}.attention.query_norm"),
            Rename(f"{block}.self_attn.k_norm", f"{ours}.attention.key_norm"),
            Rename(f"{block}.mlp.gate_proj", f"{ours}.feed_forward.gate"),
            Rename(f"{block}.mlp.up_proj", f"{ours}.feed_forward.up"),
        ),
        layers=config.layers,
    )


def phi3_weights(config: TransformerConfig) -> WeightMap:
    """Llama's frame; query, key and value are one, and so are gate and up."""
    block, ours, c = "model.layers.{layer}", "blocks.{layer}", config
    attention = tuple(f"{ours}.attention.{name}" for name in ("query", "key", "value"))
    rows = (c.heads * c.head_width, c.kv_heads * c.head_width, c.kv_heads * c.head_width)
    think = (f"{ours}.feed_forward.gate", f"{ours}.feed_forward.up")
    return WeightMap(
        outside=LLAMA_OUTSIDE,
        inside=(
            *llama_frame(block, ours),
            Fuse(f"{block}.self_attn.qkv_proj", attention, rows),
            Fuse(f"{block}.mlp.gate_up_proj", think, (c.hidden, c.hidden)),
        ),
        layers=c.layers,
    )


LLAMA_OUTSIDE: tuple[WeightRule, ...] = (
    Rename("model.embed_tokens", "embedding"),
    Rename("model.norm", "norm"),
    Rename("lm_head", "unembedding"),
)


def llama_frame(block: str, ours: str) -> tuple[WeightRule, ...]:
    """What Llama and Phi-3 name alike."""
    return (
        Rename(f"{block}.input_layernorm", f"{ours}.attention_norm"),
        Rename(f"{block}.self_attn.o_proj", f"{ours}.attention.output"),
        Rename(f"{block}.post_attention_layernorm", f"{ours}.feed_forward_norm"),
        Rename(f"{block}.mlp.down_proj", f"{ours}.feed_forward.down"),
    )


LLAMA_GIVEN = {"norm": "rms", "positions": "rotary", "gated": True}

LLAMA_COPIES = {"lm_head.weight": "model.embed_tokens.weight"}

LLAMA_KEYS: tuple[ConfigKey, ...] = (
    IntKey("vocab_size", "vocab"),
    IntKey("max_position_embeddings", "context"),
    IntKey("hidden_size", "width"),
    IntKey("num_hidden_layers", "layers", MAX_LAYERS),
    IntKey("num_attention_heads", "heads"),
    IntKeyWithDefault("num_key_value_heads", "kv_heads", "num_attention_heads"),
    IntKey("intermediate_size", "hidden"),
    ChoiceKey("hidden_act", "activation", {"silu": "silu", **{k: v for k, v in ACTIVATION_NAMES.items() if k != "silu"}}),
    FloatKey("rms_norm_eps", "norm_eps", 1e-12, 1.0),
    RopeKeys(),
    BoolKey(("tie_word_embeddings",), "tied", False),
    FixedKey("pretraining_tp", 1, 1),
)

ARCHITECTURES: dict[str, HFArchitecture] = {
    a.name: a
    for a in (
        HFArchitecture(
            name="GPT2LMHeadModel",
            model_type="gpt2",
            keys=(
                IntKey("vocab_size", "vocab"),
                IntKey("n_positions", "context"),
                IntKey("n_embd", "width"),
                IntKey("n_layer", "layers", MAX_LAYERS),
                IntKey("n_head", "heads"),
                IntKeyWithDefault("n_inner", "hidden", "n_embd", 4),
                HeadDimKey(None, "n_embd", "n_head"),
                KVHeadsEqualHeads("n_head"),
                ChoiceKey("activation_function", "activation", ACTIVATION_NAMES),
                FloatKey("layer_norm_epsilon", "norm_eps", 1e-12, 1.0),
                DropoutKeys(),
                BoolKey(("tie_word_embeddings",), "tied", True),
                FixedKey("scale_attn_weights", True, True),
                FixedKey("scale_attn_by_inverse_layer_idx", False, False),
                FixedKey("add_cross_attention", False, False),
                # A matter of precision: the same numbers summed in fp32.
                IgnoredKeys(("reorder_and_upcast_attn",)),
                IgnoredKeys(SUMMARY),
            ),
            fixed_fields={"norm": "layer", "positions": "learned", "gated": False, "bias": True},
            extra_fields=frozenset({"bias"}),
            weight_prefix="transformer.",
            weight_map=gpt2_weights,
            # The causal mask and its filling, which openai's own files carry.
            ignored_weights=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
            duplicate_weights={"lm_head.weight": "transformer.wte.weight"},
        ),
        HFArchitecture(
            name="LlamaForCausalLM",
            model_type="llama",
            keys=(
                *LLAMA_KEYS,
                HeadDimKey("head_dim", "hidden_size", "num_attention_heads"),
                BoolKey(("attention_bias", "mlp_bias"), "bias", False),
            ),
            fixed_fields=LLAMA_GIVEN,
            weight_prefix="model.",
            duplicate_weights=LLAMA_COPIES,
            weight_map=llama_weights,
            ignored_weights=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
        ),
        HFArchitecture(
            name="Qwen3ForCausalLM",
            model_type="qwen3",
            keys=(
                *LLAMA_KEYS,
                HeadDimKey("head_dim", "hidden_size", "num_attention_heads", default=128, even=False),
                QwenSlidingWindowKeys(),
                FixedKey("attention_bias", False, False),
            ),
            fixed_fields={**LLAMA_GIVEN, "bias": False, "qk_norm": True},
            weight_prefix="model.",
            duplicate_weights=LLAMA_COPIES,
            weight_map=llama_weights,
        ),
        HFArchitecture(
            name="Phi3ForCausalLM",
            model_type="phi3",
            keys=(
                *LLAMA_KEYS,
                HeadDimKey(None, "hidden_size", "num_attention_heads"),
                SlidingWindowKey(),
                FixedKey("attention_bias", False, False),
                # Only its longer contexts, whose rope_scaling is refused above, look at it. Shares dropped in training.
                IgnoredKeys(("original_max_position_embeddings", "resid_pdrop", "embd_pdrop")),
            ),
            fixed_fields={**LLAMA_GIVEN, "bias": False},
            weight_prefix="model.",
            duplicate_weights=LLAMA_COPIES,
            weight_map=phi3_weights,
        ),
        HFArchitecture(
            name="MistralForCausalLM",
            model_type="mistral",
            keys=(*LLAMA_KEYS, HeadDimKey("head_dim", "hidden_size", "num_attention_heads", even=False), SlidingWindowKey()),
            fixed_fields={**LLAMA_GIVEN, "bias": False},
            weight_prefix="model.",
            duplicate_weights=LLAMA_COPIES,
            weight_map=llama_weights,
        ),
        *ENCODERS,
        *ENCODER_DECODERS,
    )
}
"""In the order in which they are tried for a config of ours."""
