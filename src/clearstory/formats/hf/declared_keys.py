"""Keys of config.json that belong to no single class: those that change no logit, and those of other classes that do.

A key is in one of four groups. A class's own keys (`HFArchitecture.keys`) are read. Keys about the file, training and
generation are ignored. Keys of other classes that change numbers are rejected by name. All others are declared by no
configuration class of transformers, which ignores them: so do we, with a note that names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from clearstory.formats.hf.config_keys import IgnoredKeys, reject
from clearstory.models.transformer.config import TransformerConfig

# About the file, or for training. Ids of special tokens are taken from the tokenizer.
METADATA_KEYS = IgnoredKeys(
    (
        *("model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path", "clearstory"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "tokenizer_class", "prefix"),
        *("initializer_range", "use_cache", "attention_dropout", "classifier_dropout", "task_specific_params"),
        *("id2label", "label2id", "num_labels", "_num_labels", "problem_type", "finetuning_task", "n_ctx", "auto_map"),
        *("return_dict", "output_attentions", "_output_attentions", "output_hidden_states", "gradient_checkpointing"),
        *("chunk_size_feed_forward", "_attn_implementation", "attn_implementation", "torchscript", "use_bfloat16"),
    )
)

# Declared by GenerationConfig, which older folders keep in config.json: generation reads those that it supports.
GENERATION_KEYS = IgnoredKeys(
    (
        *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "early_stopping", "max_time", "stop_strings"),
        *("do_sample", "num_beams", "num_beam_groups", "num_return_sequences", "penalty_alpha", "dola_layers"),
        *("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
        *("diversity_penalty", "repetition_penalty", "encoder_repetition_penalty", "length_penalty", "sequence_bias"),
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "force_words_ids", "constraints"),
        *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "guidance_scale"),
        *("exponential_decay_length_penalty", "renormalize_logits", "remove_invalid_values", "watermarking_config"),
        *("decoder_start_token_id", "token_healing", "return_dict_in_generate", "output_scores", "output_logits"),
        *("cache_implementation", "cache_config", "compile_config", "disable_compile", "prefill_chunk_size"),
        *("low_memory", "max_cache_len", "continuous_batching_config", "speculation_type", "use_mtp"),
        *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"),
        *("assistant_early_exit", "assistant_ensemble_weight", "assistant_lookbehind", "target_lookbehind"),
        *("max_matching_ngram_size", "prompt_lookup_num_tokens", "_from_model_config"),
    )
)

OTHER_CLASSES_KEYS = frozenset(
    {
        # Weights in another form, or only some of them.
        *("quantization_config", "compression_config", "pruned_heads", "adapter_config", "add_adapter"),
        # Encoders as decoders and the reverse.
        *("is_decoder", "is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size"),
        *("is_causal", "tie_encoder_decoder", "prefix_lm", "use_bidirectional_attention"),
        # Experts.
        *("num_local_experts", "num_experts", "n_routed_experts", "n_shared_experts", "moe_num_experts"),
        *("num_experts_per_tok", "moe_intermediate_size", "first_k_dense_replace", "ffn_config", "decoder_sparse_step"),
        # Positions.
        *("position_embedding_type", "alibi", "rotary", "rotary_pct", "rotary_dim", "rotary_emb_base"),
        *("rotary_embedding_base", "rope_interleave", "rope_interleaved", "rope_theta", "rope_scaling"),
        *("rope_parameters", "rope_local_base_freq", "partial_rotary_factor", "no_rope_layers", "mrope_section"),
        *("no_rope_layer_interval", "relative_attention", "max_relative_positions", "position_biased_input"),
        # Attention.
        *("attention_bias", "qkv_bias", "head_dim", "num_key_value_heads", "num_kv_heads", "multi_query"),
        *("sliding_window", "sliding_window_pattern", "use_sliding_window", "layer_types", "attention_chunk_size"),
        *("attention_window", "attention_types", "attn_config", "attn_temperature_tuning", "qk_layernorm"),
        *("qk_layer_norms", "use_qk_norm", "q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim"),
        *("v_head_dim", "clip_qkv", "parallel_attn", "use_parallel_residual", "new_decoder_architecture"),
        *("query_pre_attn_scalar", "attn_logit_softcapping", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
        # Layers, activation functions and scales.
        *("mlp_bias", "use_bias", "hidden_activation", "gated_activation", "embedding_size", "word_embed_proj_dim"),
        *("num_hidden_groups", "inner_group_num", "num_kv_shared_layers", "do_layer_norm_before", "norm_type"),
        *("apply_residual_connection_post_layernorm", "use_post_norm", "embedding_multiplier", "residual_multiplier"),
        *("attention_multiplier", "logits_scaling", "logit_scale", "scale_emb", "scale_depth", "dim_model_base"),
        *("scale_embedding", "final_logit_softcapping", "mup_width_multiplier", "activation_sparsity_pattern"),
    }
)
"""Keys of other classes that change the computation of a model. If one is in use, the weights do not belong to the
class of the folder.
"""

OFF: tuple[Any, ...] = (None, False, {}, [], "")
"""Values that switch a key off; 0 equals False."""


FACTORS = frozenset(
    {
        *("embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale", "scale_emb", "rotary_pct"),
        *("partial_rotary_factor", "mup_width_multiplier"),
    }
)
"""Keys of other classes that are factors: 1 changes nothing."""


def check_other_keys(
    external: Mapping[str, Any], known: Iterable[str], architecture: str, config: TransformerConfig
) -> None:
    """Raise BadInput for a key of another class that is in use, and whose value is not that of the class anyway."""
    for key in sorted(external.keys() & OTHER_CLASSES_KEYS - frozenset(known)):
        value = external[key]
        # transformers makes the attention of every class causal or not as is_causal says; other keys are off if false.
        off = value is None if key == "is_causal" else value in OFF
        if not off and not (key in FACTORS and value == 1) and not agrees(key, external, config):
            reason = f"the supported {architecture} has no such setting, and ignoring it could change the output"
            reject(key, external[key], reason)


def agrees(key: str, external: Mapping[str, Any], config: TransformerConfig) -> bool:
    """Whether the value of a key of another class agrees with the config."""
    value = external[key]
    if key in ("is_causal", "is_decoder"):
        return value is {"decoder": True, "encoder": False}.get(config.architecture)
    if key == "sliding_window":
        return external.get("use_sliding_window") is False
    same: Mapping[str, object] = {
        "head_dim": config.head_dim,
        "num_key_value_heads": config.kv_heads,
        "layer_types": ["full_attention" if config.sliding_window is None else "sliding_attention"] * config.layers,
        "position_embedding_type": "absolute" if config.positions == "learned" else None,
    }
    return key in same and value == same[key] and not isinstance(value, bool)


def undeclared_keys(external: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    """Keys in use that no configuration class of transformers declares for the architecture, sorted."""
    ignored = {*known, *METADATA_KEYS.keys, *GENERATION_KEYS.keys, *OTHER_CLASSES_KEYS}
    return [key for key in sorted(external.keys() - ignored) if external[key] not in OFF]


def undeclared_keys_note(external: Mapping[str, Any], keys: list[str]) -> str | None:
    """A sentence that names the ignored keys and their values; None for no keys.

    >>> undeclared_keys_note({"neftune_noise_alpha": 5, "output_past": True}, ["neftune_noise_alpha", "output_past"])
    'config.json has unknown keys, which are ignored: neftune_noise_alpha = 5, output_past = True'
    """
    if not keys:
        return None
    named = [
        f"{key[:60] if key.isprintable() else ascii(key)[:60]} = {shorten(external[key])}" for key in keys[:MAX_NAMED]
    ]
    more = [f"{len(keys) - MAX_NAMED:,} more"] if len(keys) > MAX_NAMED else []
    return f"config.json has unknown keys, which are ignored: {', '.join([*named, *more])}"


MAX_NAMED = 12
"""Most keys that a note names."""


def shorten(value: object) -> str:
    """A value in at most 40 characters."""
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
