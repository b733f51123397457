"""Architectures: the models of transformers that this house expresses, a row each.

Which row carries a config is not stated anywhere a second time: it is the first whose keys, pushed and pulled back,
give the config again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from clearstory.errors import BadInput, BadSetting
from clearstory.formats.keys import (
    MOST_LAYERS,
    Choice,
    Default,
    Fixed,
    Flag,
    Key,
    Real,
    Theirs,
    Unread,
    Whole,
    check_known,
)
from clearstory.formats.rules import Fused, Moved, Renaming, Rule
from clearstory.formats.wiring import AllHeads, Dropout, HeadWidth, QwenWindow, Rope, Window
from clearstory.models.config import TransformerConfig

# Of the file and the run, not of the model; ids of special tokens come from the tokenizer beside it.
OF_THE_FILE = Unread(
    (
        *("model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path", "clearstory"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "initializer_range", "use_cache"),
        *("attention_dropout", "task_specific_params", "id2label", "label2id", "problem_type", "n_ctx", "auto_map"),
        *("return_dict", "gradient_checkpointing", "chunk_size_feed_forward", "_attn_implementation"),
    )
)

# GPT-2's head for choosing among answers, which reads the same stack.
SUMMARY = (
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels"),
    "summary_first_dropout",
)

BENDS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""transformers' names of activations, and ours."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One class of transformers: its keys, its weights, and what it always is.

    Args:
        name: the class.
        model_type: its short name in config.json.
        keys: how config.json and our fields say the same.
        given: what of ours it always is.
        noted: fields of ours it cannot say but that change no logit; noted in config.json under `clearstory`.
        prefix: what all names but the unembedding's begin with, left out by some.
        renaming: the weights' names and layouts for one config.
        idle: buffers that older files carry and nobody needs, as regular expressions.
    """

    name: str
    model_type: str
    keys: tuple[Key, ...]
    given: Mapping[str, Any]
    noted: frozenset[str] = frozenset({"dropout"})
    prefix: str
    renaming: Callable[[TransformerConfig], Renaming]
    idle: tuple[str, ...] = ()

    def pull_config(self, theirs: Theirs) -> TransformerConfig:
        """Our config from theirs. Raises BadInput naming the key that cannot be honoured."""
        keys = (*self.keys, OF_THE_FILE)
        check_known(theirs, {name for key in keys for name in key.names}, self.name)
        found: dict[str, Any] = dict(self.given)
        for key in keys:
            found |= key.pull(theirs)
        return TransformerConfig(**found)

    def push_config(self, config: TransformerConfig) -> dict[str, Any]:
        """Theirs from ours: what transformers reads, and under `clearstory` what it has no word for."""
        out: dict[str, Any] = {"architectures": [self.name], "model_type": self.model_type}
        for key in self.keys:
            out |= key.push(config)
        return out

    def note(self, config: TransformerConfig) -> dict[str, Any] | None:
        """The fields of a config that get lost on the way there and back; None where one of them changes a logit."""
        try:
            back = self.pull_config(self.push_config(config))
        except (BadInput, BadSetting, KeyError):  # KeyError: a word they have no word for
            return None
        lost = {
            f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != getattr(back, f.name)
        }
        return lost if lost.keys() <= self.noted and lost.get("bias") is not True else None

    def remember(self, config: TransformerConfig, noted: Mapping[str, Any]) -> TransformerConfig:
        """The config with what was noted. Whether biases are truly zero is for the weights to say."""
        known = {name: value for name, value in noted.items() if name in self.noted and name != "bias"}
        if "dropout" in known and not isinstance(known["dropout"], (int, float)):
            raise BadInput(f"config.json notes a dropout of {known['dropout']!r}; it must be a number under 1")
        return replace(config, **known)


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
            renaming=phi3_weights,
        ),
        Architecture(
            name="MistralForCausalLM",
            model_type="mistral",
            keys=(*LLAMA_KEYS, HeadWidth("head_dim", "hidden_size", "num_attention_heads", even=False), Window()),
            given={**LLAMA_GIVEN, "bias": False},
            prefix="model.",
            renaming=llama_weights,
        ),
    )
}
"""In the order in which they are tried for a config of ours."""
