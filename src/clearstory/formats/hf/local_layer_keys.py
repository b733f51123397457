"""Keys of config.json for layers of two kinds, as in Gemma 3: with a sliding window, and every n-th without."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearstory.formats.hf.attention_keys import MAX_ROPE_THETA, rope_scaling_to_native
from clearstory.formats.hf.config_keys import ExternalConfig, check_float, check_int, reject, required
from clearstory.models.transformer.config import TransformerConfig

LOCAL, GLOBAL = "sliding_attention", "full_attention"

DEFAULT_INTERVAL = 6
"""Of transformers' Gemma3TextConfig."""


@dataclass(frozen=True)
class LocalLayerKeys:
    """The sliding window and which layers have it: the type of each layer, or in older files the interval."""

    keys = ("sliding_window", "layer_types", "sliding_window_pattern", "_sliding_window_pattern")

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        window = check_int("sliding_window", required(external, "sliding_window"))
        layers = check_int("num_hidden_layers", required(external, "num_hidden_layers"))
        types = external.get("layer_types")
        if types is None:
            key = next((each for each in self.keys[2:] if external.get(each) is not None), "sliding_window_pattern")
            interval = check_int(key, external.get(key, DEFAULT_INTERVAL), minimum=2)
        elif not isinstance(types, list) or len(types) != layers:
            reject("layer_types", types, f"it must name the type of each of the {layers} layers")
        else:
            # Without a layer that sees all, an interval longer than the model.
            interval = types.index(GLOBAL) + 1 if GLOBAL in types else max(layers + 1, DEFAULT_INTERVAL)
            if interval < 2 or types != layer_types(layers, interval):
                reject("layer_types", types, "supported: every n-th layer full_attention, all others sliding_attention")
        return {"sliding_window": window, "global_interval": interval}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        interval = config.global_interval
        if interval is None:  # a model of layers that are alike is of another class
            return {"sliding_window": config.sliding_window}
        return {"sliding_window": config.sliding_window, "layer_types": layer_types(config.layers, interval)}


def layer_types(layers: int, interval: int) -> list[str]:
    """The type of each layer.

    >>> layer_types(3, 2)
    ['sliding_attention', 'full_attention', 'sliding_attention']
    """
    return [GLOBAL if (layer + 1) % interval == 0 else LOCAL for layer in range(layers)]


@dataclass(frozen=True)
class LocalRopeKeys:
    """Rotary embeddings of the two kinds of layers. transformers 5 nests them by kind; older files have flat keys, with
    scaling for the layers that see all tokens.
    """

    keys = ("rope_theta", "rope_local_base_freq", "rope_scaling", "rope_parameters")

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        nested = external.get("rope_parameters")
        parts: dict[str, Any] = {} if nested is None else nested
        if not isinstance(parts, dict) or not all(isinstance(parts.get(key, {}), dict) for key in (LOCAL, GLOBAL)):
            reject("rope_parameters", nested, f"it must hold an object for {LOCAL} and one for {GLOBAL}")
        if unknown := sorted(parts.keys() - {LOCAL, GLOBAL}):
            reject(f"rope_parameters.{unknown[0]}", parts[unknown[0]], f"supported: {LOCAL}, {GLOBAL}")
        found, scaled = {}, dict[str, Any]()
        for kind, key, default in ((GLOBAL, "rope_theta", 1_000_000.0), (LOCAL, "rope_local_base_freq", 10_000.0)):
            own = parts.get(kind) or {}
            scaling = rope_scaling_to_native(f"rope_parameters.{kind}", own)
            if kind == LOCAL and scaling:
                reject(f"rope_parameters.{kind}", own, "supported: scaling of full_attention only")
            scaled |= scaling
            theta = own.get("rope_theta", external.get(key))
            found[kind] = default if theta is None else check_float(key, theta, 1.0, MAX_ROPE_THETA)
        flat = external.get("rope_scaling")
        if flat is not None:
            if not isinstance(flat, dict):
                reject("rope_scaling", flat, "it must be null or an object")
            scaled |= rope_scaling_to_native("rope_scaling", flat)
        return {"rope_theta": found[GLOBAL], "local_rope_theta": found[LOCAL], **scaled}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        scaling: dict[str, Any] = {"rope_type": "default"}
        if config.rope_factor != 1:
            scaling = {"rope_type": "linear", "factor": config.rope_factor}
        flat: dict[str, Any] = {"rope_theta": config.rope_theta, "rope_local_base_freq": config.local_rope_theta}
        if config.rope_factor != 1:
            flat["rope_scaling"] = scaling
        local = {"rope_type": "default", "rope_theta": config.local_rope_theta}
        return {**flat, "rope_parameters": {GLOBAL: {**scaling, "rope_theta": config.rope_theta}, LOCAL: local}}


@dataclass(frozen=True)
class QueryScaleKey:
    """The number whose inverse root scales attention scores; usually the head dimension."""

    keys = ("query_pre_attn_scalar",)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        scalar = check_int(self.keys[0], required(external, self.keys[0]))
        return {"attention_scale": None if scalar == required(external, "head_dim") else scalar**-0.5}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        scale = config.attention_scale
        return {self.keys[0]: config.head_dim if scale is None else max(1, round(scale**-2))}
