"""GGUF keys: how a file's fields and our own say the same thing, each under the name of its architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearstory.formats.hf.config_keys import MAX_LAYERS, IntKeyWithDefault, FixedKey, ConfigKey, FloatKey, ExternalConfig, IgnoredKeys, IntKey, reject
from clearstory.formats.hf.attention_keys import MAX_ROPE_THETA, KVHeadsEqualHeads, HeadDimKey, SlidingWindowKey
from clearstory.models.transformer.config import TransformerConfig

ORIGINAL = "rope.scaling.original_context_length"


@dataclass(frozen=True)
class GGUFHeadDimKeys:
    """The length of each head, said three times or not at all; all of it is turned."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(
            f"{self.name}.{key}" for key in ("attention.key_length", "attention.value_length", "rope.dimension_count")
        )

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        width, heads = f"{self.name}.embedding_length", f"{self.name}.attention.head_count"
        said = {key: theirs[key] for key in self.names if theirs.get(key) is not None}
        first = next(iter(said), None)
        found = HeadDimKey(first, width, heads, even=first is None).to_native(theirs)
        for key, value in said.items():
            if value != found["head_dim"]:
                reject(
                    key,
                    value,
                    f"but {first} = {found['head_dim']}, and this house has one length and turns all of it",
                )
        return found

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return dict.fromkeys(self.names, ours.head_dim)


@dataclass(frozen=True)
class GGUFRopeKeys:
    """Rotary angles: their base, and one factor by which all are slowed."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        keys = ("freq_base", "scaling.type", "scaling.factor", "scaling.original_context_length", "scaling.finetuned")
        return tuple(f"{self.name}.rope.{key}" for key in (*keys, "scale_linear"))

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        base, kind, factor, _, _, older = self.names
        how = theirs.get(kind, "linear" if factor in theirs or older in theirs else "none")
        if how not in ("none", "linear"):
            reject(kind, how, "this house has none, linear, and the factors of Llama 3.1")
        out: dict[str, Any] = (
            {"rope_theta": 10_000.0}
            if theirs.get(base) is None
            else FloatKey(base, "rope_theta", 1.0, MAX_ROPE_THETA).to_native(theirs)
        )
        said = factor if factor in theirs else older
        if how == "linear" and theirs.get(said) not in (None, 0, 0.0):
            out |= FloatKey(said, "rope_factor", 1.0, 2**16).to_native(theirs)
        return out

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        base, kind, factor, *_ = self.names
        stretched = ours.rope_original_context is None and ours.rope_factor != 1
        return {base: ours.rope_theta} | ({kind: "linear", factor: ours.rope_factor} if stretched else {})


def sizes(name: str) -> tuple[ConfigKey, ...]:
    """What all say alike."""
    return (
        IntKey(f"{name}.context_length", "context"),
        IntKey(f"{name}.embedding_length", "width"),
        IntKey(f"{name}.block_count", "layers", MAX_LAYERS),
        IntKey(f"{name}.feed_forward_length", "intermediate_size"),
        IntKey(f"{name}.attention.head_count", "heads"),
        # Said a second time by the embedding and by the list of tokens.
        IgnoredKeys((f"{name}.vocab_size",)),
    )


def llama_keys(name: str) -> tuple[ConfigKey, ...]:
    """Llama's and Qwen's."""
    return (
        *sizes(name),
        IntKeyWithDefault(f"{name}.attention.head_count_kv", "kv_heads", f"{name}.attention.head_count"),
        FloatKey(f"{name}.attention.layer_norm_rms_epsilon", "norm_eps", 1e-12, 1.0),
        GGUFHeadDimKeys(name),
        GGUFRopeKeys(name),
        FixedKey(f"{name}.attention.causal", True, True),
        IgnoredKeys((f"{name}.tensor_data_layout",)),
    )


def phi3_keys(name: str) -> tuple[ConfigKey, ...]:
    """Llama's, and a window, which llama.cpp reads and does not heed."""
    return (*llama_keys(name), SlidingWindowKey(f"{name}.attention.sliding_window", never=0))


def gpt2_keys(name: str) -> tuple[ConfigKey, ...]:
    """GPT-2's."""
    return (
        *sizes(name),
        KVHeadsEqualHeads(f"{name}.attention.head_count"),
        HeadDimKey(None, f"{name}.embedding_length", f"{name}.attention.head_count"),
        FloatKey(f"{name}.attention.layer_norm_epsilon", "norm_eps", 1e-12, 1.0),
    )
