"""Keys of config.json for attention: head dimension, key-value heads, rotary embeddings, sliding windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearstory.formats.hf.config_keys import ExternalConfig, check_bool, check_float, check_int, reject, required
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.positions import HIGH_FREQUENCY, LOW_FREQUENCY

MAX_ROPE_THETA = 1e12


@dataclass(frozen=True)
class HeadDimKey:
    """The dimension of each head: its own key, or the width divided by the number of heads.

    Args:
        key: the key; None if the architecture has none.
        width_key: the key of the model's width.
        heads_key: the key of the number of heads.
        divisible: whether the width must be a multiple of the number of heads.
    """

    key: str | None
    width_key: str
    heads_key: str
    divisible: bool = True

    @property
    def keys(self) -> tuple[str, ...]:
        return () if self.key is None else (self.key,)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        width = check_int(self.width_key, required(external, self.width_key))
        heads = check_int(self.heads_key, required(external, self.heads_key))
        if self.divisible and width % heads:
            reject(self.width_key, width, f"it must be a multiple of {self.heads_key} = {heads}")
        value = None if self.key is None else external.get(self.key)
        if value is not None:
            return {"head_dim": check_int(str(self.key), value)}
        return {"head_dim": width // heads}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {} if self.key is None else {self.key: config.head_dim}


@dataclass(frozen=True)
class KVHeadsKey:
    """The number of key-value heads, a divisor of the number of query heads; null for as many."""

    keys = ("num_key_value_heads",)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        heads = check_int("num_attention_heads", required(external, "num_attention_heads"))
        value = external.get(self.keys[0])
        kv_heads = heads if value is None else check_int(self.keys[0], value)
        if heads % kv_heads:
            reject(self.keys[0], value, f"it must be a divisor of num_attention_heads = {heads}")
        return {"kv_heads": kv_heads}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {self.keys[0]: config.kv_heads}


@dataclass(frozen=True)
class KVHeadsEqualHeads:
    """Multi-head attention without grouped queries: as many key-value heads as query heads, and no key for it."""

    heads_key: str

    keys = ()

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        return {"kv_heads": check_int(self.heads_key, required(external, self.heads_key))}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class LlamaBiasKeys:
    """Biases of attention and of the feed-forward layers, each with a switch. Our config has one: where only one of the
    two has biases, those of the other are zero.
    """

    keys = ("attention_bias", "mlp_bias")

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        return {"bias": any(check_bool(key, external.get(key, False)) for key in self.keys)}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return dict.fromkeys(self.keys, config.bias)

    @staticmethod
    def zero_biases(external: ExternalConfig) -> str | None:
        """A regular expression of the biases that a file with this config.json lacks, and that are zero."""
        parts = [part for key, part in (("attention_bias", "self_attn"), ("mlp_bias", "mlp")) if not external.get(key)]
        return rf"model\.layers\.\d+\.({'|'.join(parts)})\..*\.bias" if parts else None


@dataclass(frozen=True)
class RopeKeys:
    """Rotary embeddings. transformers 5 nests the keys, older releases and vLLM read them flat: both forms are
    written.
    """

    keys = ("rope_theta", "rope_parameters", "rope_scaling", "partial_rotary_factor", "rope_interleaved")

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        theta, scaling = external.get("rope_theta"), dict[str, Any]()
        for key in ("rope_parameters", "rope_scaling"):
            nested = external.get(key)
            if nested is None:
                continue
            if not isinstance(nested, dict):
                reject(key, nested, "it must be null or an object")
            if (nested_theta := nested.get("rope_theta")) is not None:
                if theta is not None and theta != nested_theta:
                    reject(f"{key}.rope_theta", nested_theta, f"but rope_theta = {theta!r}; both must be equal")
                theta = nested_theta
            check_full_rotation(f"{key}.partial_rotary_factor", nested.get("partial_rotary_factor"))
            scaling = rope_scaling_to_native(key, nested) or scaling
        check_full_rotation("partial_rotary_factor", external.get("partial_rotary_factor"))
        if external.get("rope_interleaved", False):
            reject("rope_interleaved", True, "supported: false (pairs i, i + head_dim / 2)")
        theta = 10_000.0 if theta is None else check_float("rope_theta", theta, 1.0, MAX_ROPE_THETA)
        return {"rope_theta": theta, **scaling}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        scaling: dict[str, Any] = {"rope_type": "default"}
        if config.rope_original_context is not None:
            scaling = {
                "rope_type": "llama3",
                "factor": config.rope_factor,
                "low_freq_factor": LOW_FREQUENCY,
                "high_freq_factor": HIGH_FREQUENCY,
                "original_max_position_embeddings": config.rope_original_context,
            }
        elif config.rope_factor != 1:
            scaling = {"rope_type": "linear", "factor": config.rope_factor}
        flat = {"rope_theta": config.rope_theta, "rope_parameters": {"rope_theta": config.rope_theta, **scaling}}
        return flat if scaling["rope_type"] == "default" else {**flat, "rope_scaling": scaling}


def rope_scaling_to_native(key: str, nested: ExternalConfig) -> dict[str, Any]:
    """Our fields for a rope_scaling object; empty without scaling. Raises BadInput for unsupported types."""
    kind = nested.get("rope_type", nested.get("type", "default"))
    if not isinstance(kind, str) or kind not in ROPE_TYPES:
        type_key = f"{key}.{'rope_type' if 'rope_type' in nested else 'type'}"
        reject(type_key, kind, f"supported: {', '.join(ROPE_TYPES)}")
    known = {"rope_theta", "rope_type", "type", "partial_rotary_factor", *ROPE_TYPES[kind]}
    if kind in ("default", "linear") and nested.keys() & {"rope_type", "type"}:
        known |= KEYS_OF_OTHER_ROPE_TYPES
    for name in sorted(nested.keys() - known):
        reject(f"{key}.{name}", nested[name], f"rotary embeddings of type {kind!r} have no such setting")
    values = {name: required(nested, name, f"{key}.") for name in ROPE_TYPES[kind]}
    for name, supported in (("low_freq_factor", LOW_FREQUENCY), ("high_freq_factor", HIGH_FREQUENCY)):
        if name in values and values[name] != supported:
            reject(f"{key}.{name}", values[name], f"supported: {supported}, the value of all published models")
    out: dict[str, Any] = {}
    if "factor" in values:
        out["rope_factor"] = check_float(f"{key}.factor", values["factor"], 1.0, 2**16)
    original = "original_max_position_embeddings"
    if original in values:
        out["rope_original_context"] = check_int(f"{key}.{original}", values[original])
    return out


def check_full_rotation(key: str, value: object) -> None:
    """Raise BadInput for a partial rotary factor other than 1."""
    if value not in (None, 1, 1.0):
        reject(key, value, "supported: 1.0 (the whole head is rotated)")


ROPE_TYPES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""Supported kinds of rope scaling, each with its required keys."""

KEYS_OF_OTHER_ROPE_TYPES = frozenset(
    {
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
        *("short_factor", "long_factor", "low_freq_factor", "high_freq_factor"),
    }
)
"""Keys of rope scaling that transformers reads for other types only; `default` reads none of them."""


@dataclass(frozen=True)
class ScaleAttentionKey:
    """Whether attention scores are divided by √head_dim."""

    keys = ("scale_attn_weights",)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        return {"attention_scale": None if check_bool(self.keys[0], external.get(self.keys[0], True)) else 1.0}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {self.keys[0]: config.attention_scale is None}


@dataclass(frozen=True)
class SlidingWindowKey:
    """One sliding window for all layers; null, or `disabled`, for none."""

    key: str = "sliding_window"
    disabled: int | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        value = external.get(self.key)
        return {"sliding_window": None if value in (None, self.disabled) else check_int(self.key, value)}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {self.key: self.disabled if config.sliding_window is None else config.sliding_window}


@dataclass(frozen=True)
class QwenSlidingWindowKeys:
    """Qwen's sliding window, with a switch and a first layer. Supported: all layers or none."""

    keys = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        enabled = check_bool("use_sliding_window", external.get("use_sliding_window", False))
        window = external.get("sliding_window")
        layers = check_int("num_hidden_layers", required(external, "num_hidden_layers"))
        first = external.get("max_window_layers", 28)
        types = external.get("layer_types")
        if types is None:
            in_use = enabled and window is not None
            n_windowed = layers - min(layers, check_int("max_window_layers", first, minimum=0)) if in_use else 0
        elif not isinstance(types, list) or len(types) != layers:
            reject("layer_types", types, f"it must name the type of each of the {layers} layers")
        else:
            n_windowed = types.count("sliding_attention")
            if n_windowed + types.count("full_attention") != layers:
                reject("layer_types", types, "supported: full_attention, sliding_attention")
        if n_windowed not in (0, layers):
            key, value = ("max_window_layers", first) if types is None else ("layer_types", types)
            reject(key, value, "supported: the same type for all layers")
        if not n_windowed or not enabled or window is None:
            if n_windowed:
                reject("layer_types", types, "but no sliding_window is in use")
            return {"sliding_window": None}
        return {"sliding_window": check_int("sliding_window", window)}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        layer_type = "full_attention" if config.sliding_window is None else "sliding_attention"
        return {
            "use_sliding_window": config.sliding_window is not None,
            "sliding_window": config.sliding_window,
            "max_window_layers": config.layers if config.sliding_window is None else 0,
            "layer_types": [layer_type] * config.layers,
        }
