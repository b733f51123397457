"""Wiring: the keys of config.json that are more than a renaming: head widths, rotary angles, windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearstory.formats.hf.config_keys import ExternalConfig, check_bool, required, check_float, reject, check_int
from clearstory.models.config import MOST_LABELS, TransformerConfig
from clearstory.models.positions import FAST_TURNS, SLOW_TURNS

MAX_ROPE_THETA = 1e12


@dataclass(frozen=True)
class HeadDimKey:
    """The length of each head: said, or the width shared out among the heads.

    `said` is None where the architecture cannot say it; `default` is what is meant when it says nothing.
    """

    said: str | None
    width: str
    heads: str
    default: int | None = None
    even: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        return () if self.said is None else (self.said,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        width, heads = check_int(self.width, required(theirs, self.width)), check_int(self.heads, required(theirs, self.heads))
        if self.even and width % heads:
            reject(self.width, width, f"it is no multiple of {self.heads} = {heads}")
        said = None if self.said is None else theirs.get(self.said)
        if said is not None:
            return {"head_width": check_int(str(self.said), said)}
        return {"head_width": self.default or width // heads}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {} if self.said is None else {self.said: ours.head_width}


@dataclass(frozen=True)
class KVHeadsEqualHeads:
    """Every query head has keys and values of its own, and nothing else can be said."""

    heads: str

    names = ()

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        return {"kv_heads": check_int(self.heads, required(theirs, self.heads))}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class RopeKeys:
    """Rotary angles. Their newer files nest them, their older ones and vLLM read them flat, so both are written."""

    names = ("rope_theta", "rope_parameters", "rope_scaling", "partial_rotary_factor", "rope_interleaved")

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        theta, stretch = theirs.get("rope_theta"), dict[str, Any]()
        for name in ("rope_parameters", "rope_scaling"):
            nested = theirs.get(name)
            if nested is None:
                continue
            if not isinstance(nested, dict):
                reject(name, nested, "it must be null or an object")
            if (said := nested.get("rope_theta")) is not None:
                if theta is not None and theta != said:
                    reject(f"{name}.rope_theta", said, f"but rope_theta = {theta!r}; make them agree")
                theta = said
            self.check_whole_turn(f"{name}.partial_rotary_factor", nested.get("partial_rotary_factor"))
            stretch = self.stretch(name, nested) or stretch
        self.check_whole_turn("partial_rotary_factor", theirs.get("partial_rotary_factor"))
        if theirs.get("rope_interleaved", False):
            reject("rope_interleaved", True, "this house turns pairs (i, i + half)")
        return {"rope_theta": 10_000.0 if theta is None else check_float("rope_theta", theta, 1.0, MAX_ROPE_THETA), **stretch}

    def stretch(self, name: str, nested: ExternalConfig) -> dict[str, Any]:
        """How the angles were slowed for a longer context; nothing where they were not."""
        kind = nested.get("rope_type", nested.get("type", "default"))
        if not isinstance(kind, str) or kind not in STRETCHES:
            key = f"{name}.{'rope_type' if 'rope_type' in nested else 'type'}"
            reject(key, kind, f"this house has the rotary angles {', '.join(STRETCHES)}")
        known = {"rope_theta", "rope_type", "type", "partial_rotary_factor", *STRETCHES[kind]}
        for key in sorted(nested.keys() - known):
            reject(f"{name}.{key}", nested[key], f"this house's rotary angles of type {kind!r} have no such setting")
        said = {key: required(nested, key, f"{name}.") for key in STRETCHES[kind]}
        for key, turns in (("low_freq_factor", SLOW_TURNS), ("high_freq_factor", FAST_TURNS)):
            if key in said and said[key] != turns:
                reject(f"{name}.{key}", said[key], f"this house has only {turns}, as all published models")
        out: dict[str, Any] = {}
        if "factor" in said:
            out["rope_factor"] = check_float(f"{name}.factor", said["factor"], 1.0, 2**16)
        if "original_max_position_embeddings" in said:
            key = "original_max_position_embeddings"
            out["rope_original"] = check_int(f"{name}.{key}", said[key])
        return out

    def check_whole_turn(self, key: str, value: object) -> None:
        """All of each head is turned here, never a part of it."""
        if value not in (None, 1, 1.0):
            reject(key, value, "this house turns the whole of each head (1.0)")

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        said: dict[str, Any] = {"rope_type": "default"}
        if ours.rope_original is not None:
            said = {
                "rope_type": "llama3",
                "factor": ours.rope_factor,
                "low_freq_factor": SLOW_TURNS,
                "high_freq_factor": FAST_TURNS,
                "original_max_position_embeddings": ours.rope_original,
            }
        elif ours.rope_factor != 1:
            said = {"rope_type": "linear", "factor": ours.rope_factor}
        flat = {"rope_theta": ours.rope_theta, "rope_parameters": {"rope_theta": ours.rope_theta, **said}}
        return flat if said["rope_type"] == "default" else {**flat, "rope_scaling": said}


STRETCHES: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""Ways to slow the angles, and what each must say."""


@dataclass(frozen=True)
class SlidingWindowKey:
    """A window on every layer, or on none: then it says nothing, or `never`."""

    said: str = "sliding_window"
    never: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.said,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        value = theirs.get(self.said)
        return {"window": None if value in (None, self.never) else check_int(self.said, value)}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {self.said: self.never if ours.window is None else ours.window}


@dataclass(frozen=True)
class QwenSlidingWindowKeys:
    """Qwen's window has a switch of its own, and may begin at a layer: here at the first, or never."""

    names = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        used = check_bool("use_sliding_window", theirs.get("use_sliding_window", False))
        window = theirs.get("sliding_window")
        layers = check_int("num_hidden_layers", required(theirs, "num_hidden_layers"))
        begin = theirs.get("max_window_layers", 28)
        types = theirs.get("layer_types")
        if types is None:
            limited = (
                0 if not used or window is None else layers - min(layers, check_int("max_window_layers", begin, least=0))
            )
        elif not isinstance(types, list) or len(types) != layers:
            reject("layer_types", types, f"it must name the kind of each of the {layers} layers")
        else:
            limited = types.count("sliding_attention")
            if limited + types.count("full_attention") != layers:
                reject("layer_types", types, "this house has 'full_attention' and 'sliding_attention'")
        if limited not in (0, layers):
            reject("layer_types", types or begin, "this house limits every layer by the window, or none")
        if not limited or not used or window is None:
            if limited:
                reject("layer_types", types, "but no sliding_window is in use")
            return {"window": None}
        return {"window": check_int("sliding_window", window)}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        kind = "full_attention" if ours.window is None else "sliding_attention"
        return {
            "use_sliding_window": ours.window is not None,
            "sliding_window": ours.window,
            "max_window_layers": ours.layers if ours.window is None else 0,
            "layer_types": [kind] * ours.layers,
        }


@dataclass(frozen=True)
class DropoutKeys:
    """Several shares of activations dropped in training, GPT-2's by default. Ours is one, the first: the residual's."""

    names: tuple[str, ...] = ("resid_pdrop", "embd_pdrop", "attn_pdrop")

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        return {"dropout": check_float(self.names[0], theirs.get(self.names[0], 0.1), 0.0, 0.999)}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return dict.fromkeys(self.names, ours.dropout)


@dataclass(frozen=True)
class LabelKeys:
    """What a head tells apart: id2label, and label2id as its inverse. Where nothing is said, LABEL_0 and LABEL_1.

    `least` labels make a choice: a head over texts that has one is a regression over there.
    """

    least: int

    names = ("id2label", "label2id", "num_labels", "_num_labels", "problem_type")

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        kind = theirs.get("problem_type")
        if kind not in (None, "single_label_classification"):
            reject("problem_type", kind, f"this house tells one label of several; {BELOW}")
        said = theirs.get("id2label")
        count = next((theirs[name] for name in self.names[2:4] if theirs.get(name) is not None), None)
        if said is None:
            said = {str(place): f"LABEL_{place}" for place in range(check_int("num_labels", count or 2, MOST_LABELS))}
        if not isinstance(said, Mapping) or len(said) > MOST_LABELS:
            reject("id2label", said, f"it must be an object of at most {MOST_LABELS:,} labels by number")
        labels = tuple(said.get(str(place)) for place in range(len(said)))
        if not all(isinstance(label, str) for label in labels):
            reject("id2label", said, "it must name a label for each number from 0 on")
        if len(labels) < self.least:
            reject("id2label", said, f"this house chooses among {self.least} labels or more; {BELOW}")
        if count is not None and count != len(labels):
            reject("num_labels", count, f"but id2label names {len(labels):,}")
        return {"labels": labels}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {
            "id2label": {str(place): label for place, label in enumerate(ours.labels)},
            "label2id": {label: place for place, label in enumerate(ours.labels)},
        }


BELOW = 'to open the encoder below this head, write "architectures": ["BertModel"]'
