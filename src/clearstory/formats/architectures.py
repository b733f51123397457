"""Architectures: the models of transformers that this house expresses, a row each.

Which row carries a config is not stated anywhere a second time: it is the first whose keys, pushed and pulled back,
give the config again.
"""

from __future__ import annotations

from clearstory.formats.architecture import BENDS, Architecture
from clearstory.formats.bert import BERTS
from clearstory.formats.keys import MOST_LAYERS, Choice, Default, Fixed, Flag, Key, Real, Unread, Whole
from clearstory.formats.rules import Fused, Moved, Renaming, Rule
from clearstory.formats.seq2seq import ENCODER_DECODERS
from clearstory.formats.wiring import AllHeads, Dropout, HeadWidth, QwenWindow, Rope, Window
from clearstory.models.config import TransformerConfig

# GPT-2's head for choosing among answers, which reads the same stack.
SUMMARY = (
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    "summary_first_dropout",
)


def gpt2_weights(config: TransformerConfig) -> Renaming:
    """Conv1D stores every map turned; query, key and value are one."""
    block, ours = "transformer.h.{layer}", "blocks.{layer}"
    attention = tuple(f"{ours}.attention.{name}" for name in ("query", "key", "value"))
    return Renaming(
        outside=(
            Moved("transformer.wte", "embedding"),
            Moved("transformer.wpe", "places"),
            Moved("transformer.ln_f", "norm"),
            Moved("lm_head", "unembedding"),
        ),
        inside=(
            Moved(f"{block}.ln_1", f"{ours}.attention_norm"),
            Fused(f"{block}.attn.c_attn", attention, (config.width,) * 3, turned=True),
            Moved(f"{block}.attn.c_proj", f"{ours}.attention.output", turned=True),
            Moved(f"{block}.ln_2", f"{ours}.feed_forward_norm"),
            Moved(f"{block}.mlp.c_fc", f"{ours}.feed_forward.up", turned=True),
            Moved(f"{block}.mlp.c_proj", f"{ours}.feed_forward.down", turned=True),
        ),
        layers=config.layers,
    )


def llama_weights(config: TransformerConfig) -> Renaming:
    """Llama's names, which Mistral and Qwen share; a norm that is not there is not carried."""
    block, ours = "model.layers.{layer}", "blocks.{layer}"
    return Renaming(
        outside=LLAMA_OUTSIDE,
        inside=(
            *llama_frame(block, ours),
            Moved(f"{block}.self_attn.q_proj", f"{ours}.attention.query"),
            Moved(f"{block}.self_attn.k_proj", f"{ours}.attention.key"),
            Moved(f"{block}.self_attn.v_proj", f"{ours}.attention.value"),
            Moved(f"{block}.self_attn.q_norm", f"{ours}.attention.query_norm"),
            Moved(f"{block}.self_attn.k_norm", f"{ours}.attention.key_norm"),
            Moved(f"{block}.mlp.gate_proj", f"{ours}.feed_forward.gate"),
            Moved(f"{block}.mlp.up_proj", f"{ours}.feed_forward.up"),
        ),
        layers=config.layers,
    )


def phi3_weights(config: TransformerConfig) -> Renaming:
    """Llama's frame; query, key and value are one, and so are gate and up."""
    block, ours, c = "model.layers.{layer}", "blocks.{layer}", config
    attention = tuple(f"{ours}.attention.{name}" for name in ("query", "key", "value"))
    rows = (c.heads * c.head_width, c.kv_heads * c.head_width, c.kv_heads * c.head_width)
    think = (f"{ours}.feed_forward.gate", f"{ours}.feed_forward.up")
    return Renaming(
        outside=LLAMA_OUTSIDE,
        inside=(
            *llama_frame(block, ours),
            Fused(f"{block}.self_attn.qkv_proj", attention, rows),
            Fused(f"{block}.mlp.gate_up_proj", think, (c.hidden, c.hidden)),
        ),
        layers=c.layers,
    )


LLAMA_OUTSIDE: tuple[Rule, ...] = (
    Moved("model.embed_tokens", "embedding"),
    Moved("model.norm", "norm"),
    Moved("lm_head", "unembedding"),
)


def llama_frame(block: str, ours: str) -> tuple[Rule, ...]:
    """What Llama and Phi-3 name alike."""
    return (
        Moved(f"{block}.input_layernorm", f"{ours}.attention_norm"),
        Moved(f"{block}.self_attn.o_proj", f"{ours}.attention.output"),
        Moved(f"{block}.post_attention_layernorm", f"{ours}.feed_forward_norm"),
        Moved(f"{block}.mlp.down_proj", f"{ours}.feed_forward.down"),
    )


LLAMA_GIVEN = {"norm": "rms", "positions": "rotary", "gated": True}

LLAMA_COPIES = {"lm_head.weight": "model.embed_tokens.weight"}

LLAMA_KEYS: tuple[Key, ...] = (
    Whole("vocab_size", "vocab"),
    Whole("max_position_embeddings", "context"),
    Whole("hidden_size", "width"),
    Whole("num_hidden_layers", "layers", MOST_LAYERS),
    Whole("num_attention_heads", "heads"),
    Default("num_key_value_heads", "kv_heads", "num_attention_heads"),
    Whole("intermediate_size", "hidden"),
    Choice("hidden_act", "activation", {"silu": "silu", **{k: v for k, v in BENDS.items() if k != "silu"}}),
    Real("rms_norm_eps", "norm_eps", 1e-12, 1.0),
    Rope(),
    Flag(("tie_word_embeddings",), "tied", False),
    Fixed("pretraining_tp", 1, 1),
)

ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        Architecture(
            name="GPT2LMHeadModel",
            model_type="gpt2",
            keys=(
                Whole("vocab_size", "vocab"),
                Whole("n_positions", "context"),
                Whole("n_embd", "width"),
                Whole("n_layer", "layers", MOST_LAYERS),
                Whole("n_head", "heads"),
                Default("n_inner", "hidden", "n_embd", 4),
                HeadWidth(None, "n_embd", "n_head"),
                AllHeads("n_head"),
                Choice("activation_function", "activation", BENDS),
                Real("layer_norm_epsilon", "norm_eps", 1e-12, 1.0),
                Dropout(),
                Flag(("tie_word_embeddings",), "tied", True),
                Fixed("scale_attn_weights", True, True),
                Fixed("scale_attn_by_inverse_layer_idx", False, False),
                Fixed("add_cross_attention", False, False),
                # A matter of precision: the same numbers summed in fp32.
                Unread(("reorder_and_upcast_attn",)),
                Unread(SUMMARY),
            ),
            given={"norm": "layer", "positions": "learned", "gated": False, "bias": True},
            noted=frozenset({"bias"}),
            prefix="transformer.",
            renaming=gpt2_weights,
            # The causal mask and its filling, which openai's own files carry.
            idle=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
            copies={"lm_head.weight": "transformer.wte.weight"},
        ),
        Architecture(
            name="LlamaForCausalLM",
            model_type="llama",
            keys=(
                *LLAMA_KEYS,
                HeadWidth("head_dim", "hidden_size", "num_attention_heads"),
                Flag(("attention_bias", "mlp_bias"), "bias", False),
            ),
            given=LLAMA_GIVEN,
            prefix="model.",
            copies=LLAMA_COPIES,
            renaming=llama_weights,
            idle=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
        ),
        Architecture(
            name="Qwen3ForCausalLM",
            model_type="qwen3",
            keys=(
                *LLAMA_KEYS,
                HeadWidth("head_dim", "hidden_size", "num_attention_heads", default=128, even=False),
                QwenWindow(),
                Fixed("attention_bias", False, False),
            ),
            given={**LLAMA_GIVEN, "bias": False, "qk_norm": True},
            prefix="model.",
            copies=LLAMA_COPIES,
            renaming=llama_weights,
        ),
        Architecture(
            name="Phi3ForCausalLM",
            model_type="phi3",
            keys=(
                *LLAMA_KEYS,
                HeadWidth(None, "hidden_size", "num_attention_heads"),
                Window(),
                Fixed("attention_bias", False, False),
                # Only its longer contexts, whose rope_scaling is refused above, look at it. Shares dropped in training.
                Unread(("original_max_position_embeddings", "resid_pdrop", "embd_pdrop")),
            ),
            given={**LLAMA_GIVEN, "bias": False},
            prefix="model.",
            copies=LLAMA_COPIES,
            renaming=phi3_weights,
        ),
        Architecture(
            name="MistralForCausalLM",
            model_type="mistral",
            keys=(*LLAMA_KEYS, HeadWidth("head_dim", "hidden_size", "num_attention_heads", even=False), Window()),
            given={**LLAMA_GIVEN, "bias": False},
            prefix="model.",
            copies=LLAMA_COPIES,
            renaming=llama_weights,
        ),
        *BERTS,
        *ENCODER_DECODERS,
    )
}
"""In the order in which they are tried for a config of ours."""
