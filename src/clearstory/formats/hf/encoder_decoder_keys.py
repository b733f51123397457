"""Wiring of encoder-decoders: their keys of config.json that are more than a renaming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearstory.formats.hf.architecture import ACTIVATION_NAMES
from clearstory.formats.hf.config_keys import MAX_LAYERS, ExternalConfig, check_bool, required, check_float, reject, check_int
from clearstory.models.config import TransformerConfig


@dataclass(frozen=True)
class DecoderStartKeys:
    """The token that all that is written begins after. Where it is not said, T5 and Marian mean their padding."""

    names = ("decoder_start_token_id", "is_encoder_decoder")

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        if theirs.get("is_encoder_decoder", True) is not True:
            reject("is_encoder_decoder", theirs["is_encoder_decoder"], "this architecture always is one here")
        value = theirs.get("decoder_start_token_id", theirs.get("pad_token_id"))
        return {"begin": None if value is None else check_int("decoder_start_token_id", value, least=0)}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {"decoder_start_token_id": ours.begin, "is_encoder_decoder": True}


@dataclass(frozen=True)
class NoForcedEosKey:
    """Marian ends a text that became too long with a token, by default that of id 0: of ours it may be any word."""

    names = ("forced_eos_token_id",)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        return {}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {"forced_eos_token_id": None}


@dataclass(frozen=True)
class DecoderLayersKey:
    """The depth of the second stack; as deep as the first where nothing is said."""

    theirs: str
    encoder: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        first = check_int(self.encoder, required(theirs, self.encoder), MAX_LAYERS)
        second = theirs.get(self.theirs)
        second = first if second is None else check_int(self.theirs, second, MAX_LAYERS)
        return {"decoder_layers": 0 if second == first else second}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {self.theirs: ours.decoder_layers or ours.layers}


@dataclass(frozen=True)
class SameAsEncoderKey:
    """A key of the second stack that must say what the first stack's says."""

    theirs: str
    first: str
    ours: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        said, first = theirs.get(self.theirs), theirs.get(self.first)
        if said not in (None, first):
            reject(self.theirs, said, f"but {self.first} = {first!r}, and this house's two stacks are alike")
        return {}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {self.theirs: getattr(ours, self.ours)}


@dataclass(frozen=True)
class T5FeedForwardKeys:
    """T5 says bend and gate in one word; what two further keys repeat must agree with it."""

    names = ("feed_forward_proj", "dense_act_fn", "is_gated_act")

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        word = theirs.get("feed_forward_proj", "relu")
        if not isinstance(word, str) or word not in FEED_FORWARDS:
            reject("feed_forward_proj", word, f"this house has {', '.join(FEED_FORWARDS)}")
        bend, gated = FEED_FORWARDS[word]
        said = theirs.get("dense_act_fn")
        if said is not None and ACTIVATION_NAMES.get(str(said)) != bend:
            reject("dense_act_fn", said, f"but feed_forward_proj = {word!r}; make them agree")
        if theirs.get("is_gated_act") not in (None, gated):
            reject("is_gated_act", theirs["is_gated_act"], f"but feed_forward_proj = {word!r}; make them agree")
        return {"activation": bend, "gated": gated}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        word = {value: word for word, value in reversed(list(FEED_FORWARDS.items()))}[ours.activation, ours.gated]
        bend = {"gelu_tanh": "gelu_new"}.get(ours.activation, ours.activation)
        return {"feed_forward_proj": word, "dense_act_fn": bend, "is_gated_act": ours.gated}


FEED_FORWARDS: Mapping[str, tuple[str, bool]] = {
    "relu": ("relu", False),
    "gated-gelu": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
    "gated-relu": ("relu", True),
    "gelu_new": ("gelu_tanh", False),
    "gelu": ("gelu", False),
    "silu": ("silu", False),
    "gated-gelu_new": ("gelu_tanh", True),
}
"""T5's words: a bend each, and whether it is gated. The gated gelu is approximated by tanh, the plain one is not."""


@dataclass(frozen=True)
class LogitScaleKey:
    """Whether vectors shrink before the unembedding: said since release 5, before that whenever that is tied."""

    names = ("scale_decoder_outputs",)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        said = theirs.get("scale_decoder_outputs", theirs.get("tie_word_embeddings", True))
        return {"logit_scale": check_bool("scale_decoder_outputs", said)}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {"scale_decoder_outputs": ours.logit_scale}


@dataclass(frozen=True)
class Share:
    """The share dropped in training, 0.1 where it is not said."""

    theirs: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        return {"dropout": check_float(self.theirs, theirs.get(self.theirs, 0.1), 0.0, 0.999)}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {self.theirs: ours.dropout}


@dataclass(frozen=True)
class T5ContextKey:
    """How long a text the model was made for. T5's places are relative and bound nothing, so 512 where nobody says."""

    names = ("n_positions",)

    def to_native(self, theirs: ExternalConfig) -> dict[str, Any]:
        return {"context": check_int("n_positions", theirs.get("n_positions", 512))}

    def from_native(self, ours: TransformerConfig) -> dict[str, Any]:
        return {"n_positions": ours.context}
