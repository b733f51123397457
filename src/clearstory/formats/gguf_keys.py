"""GGUF keys: how a file's fields and our own say the same thing, each under the name of its architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clearstory.formats.keys import MOST_LAYERS, Default, Fixed, Key, Real, Theirs, Unread, Whole, refuse
from clearstory.formats.wiring import MOST_THETA, AllHeads, HeadWidth, Window
from clearstory.models.config import TransformerConfig

ORIGINAL = "rope.scaling.original_context_length"


@dataclass(frozen=True)
class Length:
    """The length of each head, said three times or not at all; all of it is turned."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(
            f"{self.name}.{key}" for key in ("attention.key_length", "attention.value_length", "rope.dimension_count")
        )

    def pull(self, theirs: Theirs) -> dict[str, Any]:
        width, heads = f"{self.name}.embedding_length", f"{self.name}.attention.head_count"
        said = {key: theirs[key] for key in self.names if theirs.get(key) is not None}
        first = next(iter(said), None)
        found = HeadWidth(first, width, heads, even=first is None).pull(theirs)
        for key, value in said.items():
            if value != found["head_width"]:
                refuse(
                    key,
                    value,
                    f"but {first} = {found['head_width']}, and this house has one length and turns all of it",
                )
        return found

    def push(self, ours: TransformerConfig) -> dict[str, Any]:
        return dict.fromkeys(self.names, ours.head_width)


@dataclass(frozen=True)
class Turns:
    """Rotary angles: their base, and one factor by which all are slowed."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        keys = ("freq_base", "scaling.type", "scaling.factor", "scaling.original_context_length", "scaling.finetuned")
        return tuple(f"{self.name}.rope.{key}" for key in (*keys, "scale_linear"))

    def pull(self, theirs: Theirs) -> dict[str, Any]:
        base, kind, factor, _, _, older = self.names
        how = theirs.get(kind, "linear" if factor in theirs or older in theirs else "none")
        if how not in ("none", "linear"):
            refuse(kind, how, "this house has none, linear, and the factors of Llama 3.1")
        out: dict[str, Any] = (
            {"rope_theta": 10_000.0}
            if theirs.get(base) is None
            else Real(base, "rope_theta", 1.0, MOST_THETA).pull(theirs)
        )
        said = factor if factor in theirs else older
        if how == "linear" and theirs.get(said) not in (None, 0, 0.0):
            out |= Real(said, "rope_factor", 1.0, 2**16).pull(theirs)
        return out

    def push(self, ours: TransformerConfig) -> dict[str, Any]:
        base, kind, factor, *_ = self.names
        stretched = ours.rope_original is None and ours.rope_factor != 1
        return {base: ours.rope_theta} | ({kind: "linear", factor: ours.rope_factor} if stretched else {})


def sizes(name: str) -> tuple[Key, ...]:
    """What all say alike."""
    return (
        Whole(f"{name}.context_length", "context"),
        Whole(f"{name}.embedding_length", "width"),
        Whole(f"{name}.block_count", "layers", MOST_LAYERS),
        Whole(f"{name}.feed_forward_length", "hidden"),
        Whole(f"{name}.attention.head_count", "heads"),
        # Said a second time by the embedding and by the list of tokens.
        Unread((f"{name}.vocab_size",)),
    )


def llama_keys(name: str) -> tuple[Key, ...]:
    """Llama's and Qwen's."""
    return (
        *sizes(name),
        Default(f"{name}.attention.head_count_kv", "kv_heads", f"{name}.attention.head_count"),
        Real(f"{name}.attention.layer_norm_rms_epsilon", "norm_eps", 1e-12, 1.0),
        Length(name),
        Turns(name),
        Fixed(f"{name}.attention.causal", True, True),
        Unread((f"{name}.tensor_data_layout",)),
    )


def phi3_keys(name: str) -> tuple[Key, ...]:
    """Llama's, and a window, which llama.cpp reads and does not heed."""
    return (*llama_keys(name), Window(f"{name}.attention.sliding_window", never=0))


def gpt2_keys(name: str) -> tuple[Key, ...]:
    """GPT-2's."""
    return (
        *sizes(name),
        AllHeads(f"{name}.attention.head_count"),
        HeadWidth(None, f"{name}.embedding_length", f"{name}.attention.head_count"),
        Real(f"{name}.attention.layer_norm_epsilon", "norm_eps", 1e-12, 1.0),
    )
