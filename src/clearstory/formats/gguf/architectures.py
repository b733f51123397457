"""GGUF architectures: the architectures of llama.cpp that are supported, a row each.

A config is written with the first architecture whose keys, written and read back, give the same config.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearstory.errors import BadInput, BadSetting, CannotDo, UnknownName
from clearstory.formats.gguf.config_keys import ORIGINAL_CONTEXT, gemma3_keys, gpt2_keys, llama_keys, phi3_keys
from clearstory.formats.hf.config_keys import ConfigKey, ExternalConfig, reject_unknown_keys
from clearstory.formats.hf.gemma3 import GEMMA3_FIXED_FIELDS
from clearstory.formats.hf.weight_map import Fuse, Rename, WeightMap, WeightRule, Weights
from clearstory.formats.rotary_layout import RenameRotary
from clearstory.models.config import Config
from clearstory.models.head_config import ClassifierConfig
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.positions import rope_scaling_divisors

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor of frequency divisors, one for each rotated pair: the result of Llama 3.1's rope scaling."""


@dataclass(frozen=True)
class GGUFArchitecture:
    """One architecture of llama.cpp.

    Args:
        name: general.architecture.
        keys: its metadata keys, as a function of their prefix.
        fixed_fields: config fields that have one value in this architecture.
        weight_map: from a config to its weight map.
        has_rope_factors: whether it supports `ROPE_FACTORS`.
        optional_biases: whether some or all linear layers can have biases; absent biases are zero.
    """

    name: str
    keys: Callable[[str], tuple[ConfigKey, ...]]
    fixed_fields: Mapping[str, Any]
    weight_map: Callable[[TransformerConfig], WeightMap]
    has_rope_factors: bool = False
    optional_biases: bool = False

    def config_to_native(
        self, metadata: ExternalConfig, shapes: Mapping[str, tuple[int, ...]], rope_factors: Tensor | None
    ) -> TransformerConfig:
        """Our config from a file's metadata and the names and shapes of its tensors."""
        keys = self.keys(self.name)
        values = {name: value for name, value in metadata.items() if name.startswith(f"{self.name}.")}
        reject_unknown_keys(values, {name for key in keys for name in key.keys}, self.name)
        fields: dict[str, Any] = dict(self.fixed_fields)
        for key in keys:
            fields |= key.to_native(values)
        fields |= {"vocab": shapes["token_embd.weight"][0], "tie_embeddings": "output.weight" not in shapes}
        if self.optional_biases:
            fields["bias"] = any(name.endswith(".bias") for name in shapes)
        config = TransformerConfig(**fields)
        if rope_factors is None:
            return config
        return with_rope_scaling(config, rope_factors, values.get(f"{self.name}.{ORIGINAL_CONTEXT}"))

    def config_from_native(self, config: TransformerConfig) -> dict[str, Any]:
        """A file's metadata."""
        out: dict[str, Any] = {}
        for key in self.keys(self.name):
            out |= key.from_native(config)
        if config.rope_original_context is not None:
            out[f"{self.name}.{ORIGINAL_CONTEXT}"] = config.rope_original_context
        return {name: value for name, value in out.items() if value is not None}

    def rope_factors(self, config: TransformerConfig) -> Tensor | None:
        """Frequency divisors of the rotated pairs, (head_dim / 2,); None if they are equal."""
        if config.rope_original_context is None:
            return None
        return rope_scaling_divisors(
            inverse_frequencies(config), config.rope_factor, config.rope_original_context
        ).float()

    def can_store(self, config: TransformerConfig) -> bool:
        """Whether a file of this architecture gives the config back."""
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (config.vocab, config.width)}
        shapes |= {} if config.tie_embeddings else {"output.weight": (config.vocab, config.width)}
        shapes |= {"blk.0.attn_q.bias": ()} if self.optional_biases and config.bias else {}
        factors = self.rope_factors(config)
        if factors is not None and not self.has_rope_factors:
            return False
        try:
            back = self.config_to_native(self.config_from_native(config), shapes, factors)
        except (BadInput, BadSetting):
            return False
        return back == replace(config, dropout=0.0)


def inverse_frequencies(config: TransformerConfig) -> Tensor:
    """Angles per token of the rotated pairs before scaling, (head_dim / 2,)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    return config.rope_theta**-exponents


def with_rope_scaling(config: TransformerConfig, factors: Tensor, original_context: object) -> TransformerConfig:
    """The config whose rope scaling gives these divisors. Raises BadInput unless they follow Llama 3.1's rule."""
    n_pairs = config.head_dim // 2
    if factors.shape != (n_pairs,) or not bool(torch.isfinite(factors).all()):
        raise BadInput(
            f"{ROPE_FACTORS} has shape {list(factors.shape)}; {n_pairs} finite numbers are required; copy the "
            "file again"
        )
    frequencies = inverse_frequencies(config)
    factor = float(str(factors.max().numpy()))
    candidates = [original_context] if isinstance(original_context, int) else [2**power for power in range(8, 21)]
    for original in candidates:
        if not isinstance(original, int) or not 1 <= original <= 2**24 or not 1 <= factor <= 2**16:
            continue
        if torch.allclose(rope_scaling_divisors(frequencies, factor, original).float(), factors, rtol=1e-5):
            return replace(config, rope_factor=factor, rope_original_context=original)
    raise BadInput(
        f"{ROPE_FACTORS} scales rotary frequencies by up to {factor:g} in a way other than Llama 3.1's; "
        "supported: Llama 3.1's"
    )


OUTSIDE: tuple[WeightRule, ...] = (
    Rename("token_embd", "embedding"),
    Rename("position_embd", "position_embedding"),
    Rename("output_norm", "norm"),
    Rename("output", "unembedding"),
)


def common_rules() -> tuple[WeightRule, ...]:
    """Rules of a layer in all architectures. Norms that a model lacks are skipped."""
    block, native = "blk.{layer}", "blocks.{layer}"
    return (
        Rename(f"{block}.attn_norm", f"{native}.attention_norm"),
        Rename(f"{block}.attn_output", f"{native}.attention.output"),
        Rename(f"{block}.attn_q_norm", f"{native}.attention.query_norm"),
        Rename(f"{block}.attn_k_norm", f"{native}.attention.key_norm"),
        Rename(f"{block}.ffn_norm", f"{native}.feed_forward_norm"),
        Rename(f"{block}.ffn_down", f"{native}.feed_forward.down"),
    )


def llama_weights(config: TransformerConfig) -> WeightMap:
    """Llama: query and key in pairs (2i, 2i + 1)."""
    return unfused_weights(
        config,
        RenameRotary("blk.{layer}.attn_q", "blocks.{layer}.attention.query", config.heads),
        RenameRotary("blk.{layer}.attn_k", "blocks.{layer}.attention.key", config.kv_heads),
    )


def qwen3_weights(config: TransformerConfig) -> WeightMap:
    """Qwen3: query and key in our layout."""
    return unfused_weights(
        config,
        Rename("blk.{layer}.attn_q", "blocks.{layer}.attention.query"),
        Rename("blk.{layer}.attn_k", "blocks.{layer}.attention.key"),
    )


def unfused_weights(config: TransformerConfig, query: WeightRule, key: WeightRule) -> WeightMap:
    """A weight map without fused layers, with the given rules for query and key."""
    rules = (
        query,
        key,
        Rename("blk.{layer}.attn_v", "blocks.{layer}.attention.value"),
        Rename("blk.{layer}.ffn_gate", "blocks.{layer}.feed_forward.gate"),
        Rename("blk.{layer}.ffn_up", "blocks.{layer}.feed_forward.up"),
    )
    return WeightMap(OUTSIDE, (*common_rules(), *rules), config.layers)


def phi3_weights(config: TransformerConfig) -> WeightMap:
    """Phi-3: query, key, value are fused, and gate and up, under the name of up."""
    c, attention = config, tuple(f"blocks.{{layer}}.attention.{name}" for name in ("query", "key", "value"))
    out_features = (c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim)
    feed_forward = tuple(f"blocks.{{layer}}.feed_forward.{name}" for name in ("gate", "up"))
    rules = (
        Fuse("blk.{layer}.attn_qkv", attention, out_features),
        Fuse("blk.{layer}.ffn_up", feed_forward, (c.intermediate_size, c.intermediate_size)),
    )
    return WeightMap(OUTSIDE, (*common_rules(), *rules), c.layers)


@dataclass(frozen=True)
class RenameGain:
    """A norm under another name, whose file holds 1 + weight."""

    external: str
    native: str

    def to_native(self, external: Weights, layer: int) -> dict[str, Tensor]:
        return self.shifted(Rename(self.external, self.native).to_native(external, layer), -1)

    def from_native(self, native: Weights, layer: int) -> dict[str, Tensor]:
        return self.shifted(Rename(self.external, self.native).from_native(native, layer), 1)

    @staticmethod
    def shifted(weights: Weights, by: int) -> dict[str, Tensor]:
        """The weights plus a number; those without data as they are."""
        return {name: each if each.is_meta else each + by for name, each in weights.items()}


def gemma3_weights(config: TransformerConfig) -> WeightMap:
    """Gemma 3: Qwen3's names, norms after each sublayer, and gains in place of the weights of norms."""
    qwen3, block, native = qwen3_weights(config), "blk.{layer}", "blocks.{layer}"
    after = (
        RenameGain(f"{block}.post_attention_norm", f"{native}.attention.output_norm"),
        RenameGain(f"{block}.post_ffw_norm", f"{native}.feed_forward.output_norm"),
    )
    return WeightMap(gains(qwen3.outside), (*gains(qwen3.per_layer), *after), config.layers)


def gains(rules: tuple[WeightRule, ...]) -> tuple[WeightRule, ...]:
    """Rules of which those of norms are rules of gains."""
    return tuple(
        RenameGain(each.external, each.native) if isinstance(each, Rename) and each.native.endswith("norm") else each
        for each in rules
    )


def gpt2_weights(config: TransformerConfig) -> WeightMap:
    """GPT-2: query, key, value are fused; matrices are not transposed, unlike in transformers."""
    attention = tuple(f"blocks.{{layer}}.attention.{name}" for name in ("query", "key", "value"))
    rules = (
        Fuse("blk.{layer}.attn_qkv", attention, (config.width,) * 3),
        Rename("blk.{layer}.ffn_up", "blocks.{layer}.feed_forward.up"),
    )
    return WeightMap(OUTSIDE, (*common_rules(), *rules), config.layers)


LLAMA_FIELDS = {"norm": "rms", "positions": "rotary", "gated": True, "activation": "silu", "bias": False}
GPT2_FIELDS = {"norm": "layer", "positions": "learned", "gated": False, "activation": "gelu_tanh", "bias": True}

GEMMA3_FIELDS = {**GEMMA3_FIXED_FIELDS, "activation": "gelu_tanh"}

GGUF_ARCHITECTURES: dict[str, GGUFArchitecture] = {
    each.name: each
    for each in (
        GGUFArchitecture("gpt2", gpt2_keys, GPT2_FIELDS, gpt2_weights),
        GGUFArchitecture("llama", llama_keys, LLAMA_FIELDS, llama_weights, has_rope_factors=True, optional_biases=True),
        GGUFArchitecture("qwen3", llama_keys, {**LLAMA_FIELDS, "qk_norm": True}, qwen3_weights),
        GGUFArchitecture("phi3", phi3_keys, LLAMA_FIELDS, phi3_weights),
        GGUFArchitecture("gemma3", gemma3_keys, GEMMA3_FIELDS, gemma3_weights),
    )
}
"""Supported architectures, in the order in which they are tried for a config."""


def choose_architecture(config: Config) -> GGUFArchitecture:
    """The first architecture that can store a config. Raises CannotDo if none can.

    >>> from clearstory.models.families import PRESETS
    >>> [choose_architecture(PRESETS[name]).name for name in ("clear", "llama3.2-1b", "phi3-mini")]
    ['qwen3', 'llama', 'phi3']
    """
    if isinstance(config, ClassifierConfig):
        raise CannotDo(
            f"GGUF does not support classification heads, and this model has one ({config.summary}); keep the model "
            "folder, which "
            "transformers opens too"
        )
    if isinstance(config, TransformerConfig):
        for each in GGUF_ARCHITECTURES.values():
            if each.can_store(config):
                return each
    raise CannotDo(
        f"GGUF has no architecture for this model ({config.family}, {config.summary}); "
        f"supported: {', '.join(GGUF_ARCHITECTURES)}; keep the model folder"
    )


def detect_architecture(metadata: ExternalConfig) -> GGUFArchitecture:
    """The architecture that a file names. Raises UnknownName with those that are supported."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in GGUF_ARCHITECTURES:
        raise UnknownName(
            f"its general.architecture is {str(name)[:40]!r}, which is not supported; "
            f"supported: {', '.join(GGUF_ARCHITECTURES)}"
        )
    return GGUF_ARCHITECTURES[name]


@contextmanager
def prefix_errors(path: Path) -> Iterator[None]:
    """Errors raised inside name the GGUF file instead of config.json, which the keys' messages name."""
    try:
        yield
    except (BadInput, BadSetting, UnknownName) as error:
        raise type(error)(f"{path}: {str(error).replace('config.json ', 'it ')}") from None
