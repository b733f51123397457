"""GGUF dialects: the architectures of llama.cpp that this house expresses, a row each.

As with the classes of transformers, which row carries a config is not stated twice: it is the first whose keys, pushed
and pulled back, give the config again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearstory.errors import BadInput, BadSetting, CannotDo, UnknownName, nearest
from clearstory.formats.gguf.config_keys import ORIGINAL, gpt2_keys, llama_keys, phi3_keys
from clearstory.formats.hf.config_keys import ConfigKey, ExternalConfig, reject_unknown_keys
from clearstory.formats.rotary_layout import RenameRotary
from clearstory.formats.hf.weight_map import Fuse, Rename, WeightMap, WeightRule
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.positions import rope_scaling_divisors

FACTORS = "rope_freqs.weight"
"""Where a file keeps by how much each pair is slowed: the result of Llama 3.1's rule, not the rule."""


@dataclass(frozen=True)
class GGUFArchitecture:
    """One architecture: its keys, its weights, what it always is, and what the weights that are there say.

    Args:
        name: general.architecture.
        keys: how its fields and ours say the same, given the name they begin with.
        given: what of ours it always is.
        renaming: the weights' names and layouts for one config.
        factors: whether it knows a slowness for each pair.
        biased: a weight that is there only where linear maps have biases; None where the dialect decides.
    """

    name: str
    keys: Callable[[str], tuple[ConfigKey, ...]]
    given: Mapping[str, Any]
    weight_map: Callable[[TransformerConfig], WeightMap]
    factors: bool = False
    biased: str | None = None

    def config_to_native(
        self, fields: ExternalConfig, shapes: Mapping[str, tuple[int, ...]], factors: Tensor | None
    ) -> TransformerConfig:
        """Our config from a file's fields and the names and shapes of its weights."""
        keys = self.keys(self.name)
        own = {name: value for name, value in fields.items() if name.startswith(f"{self.name}.")}
        reject_unknown_keys(own, {name for key in keys for name in key.names}, self.name)
        found: dict[str, Any] = dict(self.given)
        for key in keys:
            found |= key.to_native(own)
        found |= {"vocab": shapes["token_embd.weight"][0], "tie_embeddings": "output.weight" not in shapes}
        if self.biased is not None:
            found["bias"] = self.biased in shapes
        config = TransformerConfig(**found)
        return config if factors is None else slowed(config, factors, own.get(f"{self.name}.{ORIGINAL}"))

    def config_from_native(self, config: TransformerConfig) -> dict[str, Any]:
        """A file's fields from ours."""
        out: dict[str, Any] = {}
        for key in self.keys(self.name):
            out |= key.from_native(config)
        if config.rope_original_context is not None:
            out[f"{self.name}.{ORIGINAL}"] = config.rope_original_context
        return {name: value for name, value in out.items() if value is not None}

    def rope_factors(self, config: TransformerConfig) -> Tensor | None:
        """The slowness of each pair, where it is not the same for all."""
        if config.rope_original_context is None:
            return None
        speeds = config.rope_theta ** (-torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim)
        return rope_scaling_divisors(speeds, config.rope_factor, config.rope_original_context).float()

    def carries(self, config: TransformerConfig) -> bool:
        """Whether a file of this dialect gives the config back."""
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (config.vocab, config.width)}
        shapes |= {} if config.tie_embeddings else {"output.weight": (config.vocab, config.width)}
        shapes |= {self.biased: ()} if self.biased is not None and config.bias else {}
        factors = self.rope_factors(config)
        if factors is not None and not self.factors:
            return False
        try:
            back = self.config_to_native(self.config_from_native(config), shapes, factors)
        except (BadInput, BadSetting):
            return False
        return back == replace(config, dropout=0.0)


def slowed(config: TransformerConfig, factors: Tensor, said: object) -> TransformerConfig:
    """The config whose slowness these are. Raises BadInput where Llama 3.1's rule does not give them."""
    pairs = config.head_dim // 2
    if factors.shape != (pairs,) or not bool(torch.isfinite(factors).all()):
        raise BadInput(f"{FACTORS} of shape {list(factors.shape)} is no slowness of {pairs} pairs; copy the file anew")
    speeds = config.rope_theta ** (-torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim)
    factor = float(str(factors.max().numpy()))
    originals = [said] if isinstance(said, int) else [2**power for power in range(8, 21)]
    for original in originals:
        if not isinstance(original, int) or not 1 <= original <= 2**24 or not 1 <= factor <= 2**16:
            continue
        if torch.allclose(rope_scaling_divisors(speeds, factor, original).float(), factors, rtol=1e-5):
            return replace(config, rope_factor=factor, rope_original_context=original)
    raise BadInput(
        f"{FACTORS} slows the rotary pairs by up to {factor:g} in a way that Llama 3.1's rule does not give; "
        "this house has no other"
    )


OUTSIDE: tuple[WeightRule, ...] = (
    Rename("token_embd", "embedding"),
    Rename("position_embd", "position_embedding"),
    Rename("output_norm", "norm"),
    Rename("output", "unembedding"),
)


def cls_and_sep_ids() -> tuple[WeightRule, ...]:
    """What all name alike within a layer; a norm or a gate that is not there is not carried."""
    block, ours = "blk.{layer}", "blocks.{layer}"
    return (
        Rename(f"{block}.attn_norm", f"{ours}.attention_norm"),
        Rename(f"{block}.attn_output", f"{ours}.attention.output"),
        Rename(f"{block}.attn_q_norm", f"{ours}.attention.query_norm"),
        Rename(f"{block}.attn_k_norm", f"{ours}.attention.key_norm"),
        Rename(f"{block}.ffn_norm", f"{ours}.feed_forward_norm"),
        Rename(f"{block}.ffn_down", f"{ours}.feed_forward.down"),
    )


def llama_weights(config: TransformerConfig) -> WeightMap:
    """Queries and keys in the order of pairs."""
    return apart(
        config,
        RenameRotary("blk.{layer}.attn_q", "blocks.{layer}.attention.query", config.heads),
        RenameRotary("blk.{layer}.attn_k", "blocks.{layer}.attention.key", config.kv_heads),
    )


def qwen3_weights(config: TransformerConfig) -> WeightMap:
    """Queries and keys as they are."""
    return apart(
        config,
        Rename("blk.{layer}.attn_q", "blocks.{layer}.attention.query"),
        Rename("blk.{layer}.attn_k", "blocks.{layer}.attention.key"),
    )


def apart(config: TransformerConfig, query: WeightRule, key: WeightRule) -> WeightMap:
    """Every map by itself."""
    rules = (
        query,
        key,
        Rename("blk.{layer}.attn_v", "blocks.{layer}.attention.value"),
        Rename("blk.{layer}.ffn_gate", "blocks.{layer}.feed_forward.gate"),
        Rename("blk.{layer}.ffn_up", "blocks.{layer}.feed_forward.up"),
    )
    return WeightMap(OUTSIDE, (*frame(), *rules), config.layers)


def phi3_weights(config: TransformerConfig) -> WeightMap:
    """Query, key and value are one, and so are gate and up, under the name of up."""
    c, attention = config, tuple(f"blocks.{{layer}}.attention.{name}" for name in ("query", "key", "value"))
    rows = (c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim)
    think = tuple(f"blocks.{{layer}}.feed_forward.{name}" for name in ("gate", "up"))
    rules = (
        Fuse("blk.{layer}.attn_qkv", attention, rows),
        Fuse("blk.{layer}.ffn_up", think, (c.intermediate_size, c.intermediate_size)),
    )
    return WeightMap(OUTSIDE, (*frame(), *rules), c.layers)


def gpt2_weights(config: TransformerConfig) -> WeightMap:
    """Query, key and value are one; maps stand as torch has them, not turned as in transformers."""
    attention = tuple(f"blocks.{{layer}}.attention.{name}" for name in ("query", "key", "value"))
    rules = (
        Fuse("blk.{layer}.attn_qkv", attention, (config.width,) * 3),
        Rename("blk.{layer}.ffn_up", "blocks.{layer}.feed_forward.up"),
    )
    return WeightMap(OUTSIDE, (*frame(), *rules), config.layers)


LLAMA = {"norm": "rms", "positions": "rotary", "gated": True, "activation": "silu", "bias": False}
GPT2 = {"norm": "layer", "positions": "learned", "gated": False, "activation": "gelu_tanh", "bias": True}

GGUF_ARCHITECTURES: dict[str, GGUFArchitecture] = {
    d.name: d
    for d in (
        GGUFArchitecture("gpt2", gpt2_keys, GPT2, gpt2_weights),
        GGUFArchitecture("llama", llama_keys, LLAMA, llama_weights, factors=True, biased="blk.0.attn_q.bias"),
        GGUFArchitecture("qwen3", llama_keys, {**LLAMA, "qk_norm": True}, qwen3_weights),
        GGUFArchitecture("phi3", phi3_keys, LLAMA, phi3_weights),
    )
}
"""In the order in which they are tried for a config of ours."""


def choose_architecture(config: Any) -> GGUFArchitecture:
    """The first that carries a config. Raises CannotDo where none does.

    >>> from clearstory.models.transformer.presets import CLEAR
    >>> from clearstory.models.families import PRESETS
    >>> [dialect_of(config).name for config in (CLEAR, PRESETS["llama3.2-1b"], PRESETS["phi3-mini"])]
    ['qwen3', 'llama', 'phi3']
    """
    if isinstance(config, TransformerConfig):
        for each in GGUF_ARCHITECTURES.values():
            if each.carries(config):
                return each
    raise CannotDo(
        f"llama.cpp has no architecture for this model ({getattr(config, 'family', 'unknown')}, "
        f"{getattr(config, 'shape', 'of no config')}); it has the wirings of {', '.join(GGUF_ARCHITECTURES)}; "
        "keep the model as a folder"
    )


def which(fields: ExternalConfig) -> GGUFArchitecture:
    """The dialect that a file names. Raises UnknownName with the nearest that is here."""
    name = fields.get("general.architecture")
    if not isinstance(name, str) or name not in GGUF_ARCHITECTURES:
        raise UnknownName(f"its general.architecture is {str(name)[:40]!r}; {nearest(str(name), GGUF_ARCHITECTURES)}")
    return GGUF_ARCHITECTURES[name]


@contextmanager
def prefix_errors(path: Path) -> Iterator[None]:
    """The sentences of keys name config.json; here what they speak of is another file."""
    try:
        yield
    except (BadInput, BadSetting, UnknownName) as error:
        raise type(error)(f"{path}: {str(error).replace('config.json ', 'it ')}") from None
