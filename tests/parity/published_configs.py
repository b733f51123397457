"""config.json of published models, with their keys and switches and in tiny sizes."""

from __future__ import annotations

from typing import Any

ConfigJSON = dict[str, Any]

GPT2: ConfigJSON = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 60,
    "embd_pdrop": 0.1, "eos_token_id": 60, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2", "n_ctx": 32, "n_embd": 24, "n_head": 4, "n_layer": 2, "n_positions": 32,
    "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True,
    "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 61,
}  # fmt: skip

LLAMA: ConfigJSON = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 40, "max_position_embeddings": 64,
    "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 4,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
    "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": True, "vocab_size": 61,
}  # fmt: skip

LLAMA3: ConfigJSON = {
    **LLAMA, "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 58, "eos_token_id": 59,
    "num_key_value_heads": 2, "rope_theta": 500000.0, "torch_dtype": "bfloat16", "transformers_version": "4.40.0.dev0",
}  # fmt: skip

STRETCH = {
    "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 16,
    "rope_type": "llama3",
}  # fmt: skip

MISTRAL: ConfigJSON = {
    "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 24, "initializer_range": 0.02, "intermediate_size": 40, "max_position_embeddings": 64,
    "model_type": "mistral", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 5, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0", "use_cache": True, "vocab_size": 61,
}  # fmt: skip

PHI3: ConfigJSON = {
    "_name_or_path": "Phi-3-mini-4k-instruct", "architectures": ["Phi3ForCausalLM"], "attention_dropout": 0.0,
    "auto_map": {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
    "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 60, "hidden_act": "silu", "hidden_size": 24,
    "initializer_range": 0.02, "intermediate_size": 40, "max_position_embeddings": 64, "model_type": "phi3",
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 4,
    "original_max_position_embeddings": 64, "pad_token_id": 60, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 7, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": True, "attention_bias": False,
    "vocab_size": 61,
}  # fmt: skip

QWEN3: ConfigJSON = {
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 58,
    "eos_token_id": 59, "head_dim": 8, "hidden_act": "silu", "hidden_size": 24, "initializer_range": 0.02,
    "intermediate_size": 40, "max_position_embeddings": 64, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False,
    "vocab_size": 61,
}  # fmt: skip

BERT: ConfigJSON = {
    "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "gradient_checkpointing": False,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 24, "initializer_range": 0.02,
    "intermediate_size": 40, "layer_norm_eps": 1e-12, "max_position_embeddings": 32, "model_type": "bert",
    "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": 0, "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0", "type_vocab_size": 2, "use_cache": True, "vocab_size": 61,
}  # fmt: skip

T5: ConfigJSON = {
    "architectures": ["T5WithLMHeadModel"], "d_ff": 40, "d_kv": 6, "d_model": 24, "decoder_start_token_id": 0,
    "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0, "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06, "model_type": "t5", "n_positions": 32, "num_heads": 4, "num_layers": 2,
    "output_past": True, "pad_token_id": 0, "relative_attention_num_buckets": 32,
    "task_specific_params": {
        "summarization": {"early_stopping": True, "length_penalty": 2.0, "max_length": 200, "num_beams": 4,
                          "prefix": "summarize: "},
        "translation_en_to_fr": {"early_stopping": True, "max_length": 300, "num_beams": 4,
                                 "prefix": "translate English to French: "},
    },
    "vocab_size": 61,
}  # fmt: skip

MARIAN: ConfigJSON = {
    "_name_or_path": "/tmp/Helsinki-NLP/opus-mt-en-fr", "_num_labels": 3, "activation_dropout": 0.0,
    "activation_function": "swish", "add_bias_logits": False, "add_final_layer_norm": False,
    "architectures": ["MarianMTModel"], "attention_dropout": 0.0, "bad_words_ids": [[60]], "bos_token_id": 0,
    "classif_dropout": 0.0, "classifier_dropout": 0.0, "d_model": 24, "decoder_attention_heads": 4,
    "decoder_ffn_dim": 40, "decoder_layerdrop": 0.0, "decoder_layers": 2, "decoder_start_token_id": 60,
    "decoder_vocab_size": 61, "dropout": 0.1, "encoder_attention_heads": 4, "encoder_ffn_dim": 40,
    "encoder_layerdrop": 0.0, "encoder_layers": 2, "eos_token_id": 0, "forced_eos_token_id": 0,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, "init_std": 0.02, "is_encoder_decoder": True,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}, "max_length": 512, "max_position_embeddings": 32,
    "model_type": "marian", "normalize_before": False, "normalize_embedding": False, "num_beams": 4,
    "num_hidden_layers": 2, "pad_token_id": 60, "scale_embedding": True, "share_encoder_decoder_embeddings": True,
    "static_position_embeddings": True, "transformers_version": "4.22.0.dev0", "use_cache": True, "vocab_size": 61,
}  # fmt: skip

V11: ConfigJSON = {
    **T5, "architectures": ["T5ForConditionalGeneration"], "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False, "use_cache": True, "transformers_version": "4.23.1",
}  # fmt: skip


def without(config: ConfigJSON, *keys: str) -> ConfigJSON:
    """The config without some keys."""
    return {key: value for key, value in config.items() if key not in keys}


PUBLISHED: dict[str, ConfigJSON] = {
    "gpt2": GPT2,
    "gpt2-medium": {**GPT2, "n_special": 0, "predict_special_tokens": True},
    "distilgpt2": {
        **GPT2, "_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
    },
    "dialogpt": {**GPT2, "task_specific_params": {"conversational": {"max_length": 1000}}},
    "cerebras-gpt": {**GPT2, "activation_function": "gelu", "n_inner": 50, "reorder_and_upcast_attn": False,
                     "scale_attn_by_inverse_layer_idx": False, "scale_attn_weights": True, "use_cache": True},
    "gpt2-unscaled": {**GPT2, "scale_attn_weights": False, "num_key_value_heads": 4},
    "chinese-gpt2": {**GPT2, "gradient_checkpointing": False, "output_past": True, "tokenizer_class": "BertTokenizer"},
    "llama-2": LLAMA,
    "llama-1": without(LLAMA, "num_key_value_heads", "pretraining_tp", "rope_scaling") | {"max_sequence_length": 2048,
                                                                                          "pad_token_id": 0},
    "vicuna": {**LLAMA, "_name_or_path": "vicuna", "max_length": 4096, "temperature": 0.9, "top_p": 0.6},
    "llama-3": LLAMA3,
    "llama-3.1": {**LLAMA3, "eos_token_id": [57, 58, 59], "mlp_bias": False, "rope_scaling": STRETCH},
    "llama-3.2": {**LLAMA3, "head_dim": 6, "mlp_bias": False, "tie_word_embeddings": True,
                  "rope_scaling": {**STRETCH, "factor": 32.0}},
    "tinyllama": {**LLAMA, "num_key_value_heads": 1, "rope_theta": 10000.0, "attention_bias": False},
    "smollm": {**LLAMA3, "tie_word_embeddings": True, "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 0},
    "smollm2": {**LLAMA3, "is_llama_config": True, "rope_interleaved": False, "tie_word_embeddings": True,
                "rope_theta": 100000, "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}},
    "deepseek-coder": {**LLAMA, "rope_scaling": {"factor": 4.0, "type": "linear"}, "rope_theta": 100000},
    "mistral-0.1": MISTRAL,
    "mistral-0.2": {**MISTRAL, "sliding_window": None, "rope_theta": 1000000.0, "attention_dropout": 0.0},
    "mistral-0.3": {**MISTRAL, "sliding_window": None, "neftune_noise_alpha": 5.0, "vocab_size": 61},
    "zephyr": {**MISTRAL, "pad_token_id": 2, "unsloth_version": "2024.9", "quantization_config": None},
    "phi-3-mini-4k": PHI3,
    "phi-4-mini": {**PHI3, "num_key_value_heads": 2, "head_dim": 6, "tie_word_embeddings": True, "mlp_bias": False,
                   "partial_rotary_factor": 1.0, "lm_head_bias": False, "logit_scale": 1.0, "sliding_window": 64},
    "qwen3": QWEN3,
    "qwen3-window": {**QWEN3, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
    "bert-base-uncased": BERT,
    "bert-without-model-type": without(BERT, "model_type", "position_embedding_type", "use_cache"),
    "bert-chinese": {**BERT, "directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12,
                     "pooler_num_fc_layers": 3, "pooler_size_per_head": 128, "pooler_type": "first_token_transform"},
    "minilm": {**BERT, "_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "architectures": ["BertModel"],
               "classifier_dropout": None, "pruned_heads": {}},
    "t5-small": T5,
    "t5-v1.1": V11,
    "flan-t5": {**V11, "classifier_dropout": 0.0, "dense_act_fn": "gelu_new", "is_gated_act": True,
                "relative_attention_max_distance": 128, "torch_dtype": "float32"},
    "opus-mt-en-fr": MARIAN,
    "opus-mt-2020": without(MARIAN, "decoder_vocab_size", "share_encoder_decoder_embeddings") | {
        "gradient_checkpointing": False, "extra_pos_embeddings": 0},
}  # fmt: skip
