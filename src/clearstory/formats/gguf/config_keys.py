"""GGUF metadata keys: how a file's fields and our config convert into each other. Keys are prefixed with the
architecture's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearstory.formats.hf.attention_keys import MAX_ROPE_THETA, HeadDimKey, KVHeadsEqualHeads, SlidingWindowKey
from clearstory.formats.hf.config_keys import (
    MAX_LAYERS,
    ConfigKey,
    ExternalConfig,
    FixedKey,
    FloatKey,
    IgnoredKeys,
    IntKey,
    IntKeyWithDefault,
    reject,
)
from clearstory.models.transformer.config import TransformerConfig

ORIGINAL_CONTEXT = "rope.scaling.original_context_length"


@dataclass(frozen=True)
class GGUFHeadDimKeys:
    """The head dimension, in three keys that must agree, or absent; the whole head is rotated."""

    name: str

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(
            f"{self.name}.{key}" for key in ("attention.key_length", "attention.value_length", "rope.dimension_count")
        )

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        width_key, heads_key = f"{self.name}.embedding_length", f"{self.name}.attention.head_count"
        key_dim, value_dim, rotated_dim = self.keys
        first = next((key for key in (key_dim, value_dim) if external.get(key) is not None), None)
        native = HeadDimKey(first, width_key, heads_key, divisible=first is None).to_native(external)
        for key in (key_dim, value_dim):
            if external.get(key, native["head_dim"]) not in (None, native["head_dim"]):
                reject(key, external[key], f"but {first} = {native['head_dim']}; supported: one dimension for both")
        if (rotated := external.get(rotated_dim)) not in (None, native["head_dim"]):
            reject(
                rotated_dim,
                rotated,
                f"but heads have dimension {native['head_dim']}; supported: heads that are rotated completely",
            )
        return native

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return dict.fromkeys(self.keys, config.head_dim)


@dataclass(frozen=True)
class GGUFRopeKeys:
    """Rotary embeddings: their base frequency and a linear scaling factor."""

    name: str

    @property
    def keys(self) -> tuple[str, ...]:
        keys = ("freq_base", "scaling.type", "scaling.factor", "scaling.original_context_length", "scaling.finetuned")
        return tuple(f"{self.name}.rope.{key}" for key in (*keys, "scale_linear"))

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        base_key, type_key, factor_key, _, _, legacy_factor_key = self.keys
        has_factor = factor_key in external or legacy_factor_key in external
        scaling = external.get(type_key, "linear" if has_factor else "none")
        if scaling not in ("none", "linear"):
            reject(type_key, scaling, "supported: none, linear, and the factors of Llama 3.1")
        native: dict[str, Any] = (
            {"rope_theta": 10_000.0}
            if external.get(base_key) is None
            else FloatKey(base_key, "rope_theta", 1.0, MAX_ROPE_THETA).to_native(external)
        )
        key = factor_key if factor_key in external else legacy_factor_key
        if scaling == "linear" and external.get(key) not in (None, 0, 0.0):
            native |= FloatKey(key, "rope_factor", 1.0, 2**16).to_native(external)
        return native

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        base_key, type_key, factor_key, *_ = self.keys
        linear = config.rope_original_context is None and config.rope_factor != 1
        return {base_key: config.rope_theta} | ({type_key: "linear", factor_key: config.rope_factor} if linear else {})


def common_keys(name: str) -> tuple[ConfigKey, ...]:
    """Keys of all architectures."""
    return (
        IntKey(f"{name}.context_length", "context"),
        IntKey(f"{name}.embedding_length", "width"),
        IntKey(f"{name}.block_count", "layers", MAX_LAYERS),
        IntKey(f"{name}.feed_forward_length", "intermediate_size"),
        IntKey(f"{name}.attention.head_count", "heads"),
        # The embedding and the list of tokens determine it.
        IgnoredKeys((f"{name}.vocab_size",)),
    )


def llama_keys(name: str) -> tuple[ConfigKey, ...]:
    """Keys of Llama and Qwen3."""
    return (
        *common_keys(name),
        IntKeyWithDefault(f"{name}.attention.head_count_kv", "kv_heads", f"{name}.attention.head_count"),
        FloatKey(f"{name}.attention.layer_norm_rms_epsilon", "norm_eps", 1e-12, 1.0),
        GGUFHeadDimKeys(name),
        GGUFRopeKeys(name),
        FixedKey(f"{name}.attention.causal", True, True),
        IgnoredKeys((f"{name}.tensor_data_layout",)),
    )


def phi3_keys(name: str) -> tuple[ConfigKey, ...]:
    """Keys of Phi-3: Llama's and a sliding window, which llama.cpp reads and ignores."""
    return (*llama_keys(name), SlidingWindowKey(f"{name}.attention.sliding_window", disabled=0))


@dataclass(frozen=True)
class Gemma3AttentionKeys:
    """Sliding window, interval of the layers without one, and rotary base of those with one. llama.cpp takes 6 and
    10,000 where a file names neither, and scales scores by the root of width / heads in the model of 62 layers.
    """

    name: str

    @property
    def keys(self) -> tuple[str, ...]:
        names = ("attention.sliding_window", "attention.sliding_window_pattern", "rope.freq_base_swa")
        return tuple(f"{self.name}.{key}" for key in names)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        window, interval, base = self.keys
        native = IntKey(window, "sliding_window").to_native(external)
        native |= IntKey(interval, "global_interval").to_native({interval: 6, **external})
        native |= FloatKey(base, "local_rope_theta", 1.0, MAX_ROPE_THETA).to_native({base: 10_000.0, **external})
        if external.get(f"{self.name}.block_count") == LAYERS_WITH_OTHER_SCALE:
            width, heads = (external[f"{self.name}.{key}"] for key in ("embedding_length", "attention.head_count"))
            native["attention_scale"] = (width // heads) ** -0.5
        return native

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        window, interval, base = self.keys
        written = {window: config.sliding_window}
        # Readers that know no other value refuse a file that names one.
        if config.global_interval != 6:
            written[interval] = config.global_interval
        return written if config.local_rope_theta == 10_000.0 else {**written, base: config.local_rope_theta}


LAYERS_WITH_OTHER_SCALE = 62
"""Layers of Gemma 3 27B, by which llama.cpp recognizes it."""


def gemma3_keys(name: str) -> tuple[ConfigKey, ...]:
    """Keys of Gemma 3: Llama's and those of layers of two kinds."""
    return (
        *llama_keys(name),
        Gemma3AttentionKeys(name),
        FixedKey(f"{name}.attn_logit_softcapping", None, None),
        FixedKey(f"{name}.final_logit_softcapping", None, None),
    )


def gpt2_keys(name: str) -> tuple[ConfigKey, ...]:
    """Keys of GPT-2."""
    return (
        *common_keys(name),
        KVHeadsEqualHeads(f"{name}.attention.head_count"),
        HeadDimKey(None, f"{name}.embedding_length", f"{name}.attention.head_count"),
        FloatKey(f"{name}.attention.layer_norm_epsilon", "norm_eps", 1e-12, 1.0),
    )
