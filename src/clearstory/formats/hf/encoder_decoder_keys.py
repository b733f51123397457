"""Keys of config.json for encoder-decoders (T5, Marian) that are more than a renaming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearstory.formats.hf.architecture import ACTIVATION_NAMES
from clearstory.formats.hf.config_keys import MAX_LAYERS, ExternalConfig, check_bool, check_int, reject, required
from clearstory.models.transformer.config import TransformerConfig


@dataclass(frozen=True)
class DecoderStartKeys:
    """decoder_start_token_id, by default the padding id, as in T5 and Marian; is_encoder_decoder is always true."""

    keys = ("decoder_start_token_id", "is_encoder_decoder")

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        if external.get("is_encoder_decoder", True) is not True:
            reject("is_encoder_decoder", external["is_encoder_decoder"], "supported for this architecture: true")
        value = external.get("decoder_start_token_id", external.get("pad_token_id"))
        return {
            "decoder_start_token_id": None if value is None else check_int("decoder_start_token_id", value, minimum=0)
        }

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {"decoder_start_token_id": config.decoder_start_token_id, "is_encoder_decoder": True}


@dataclass(frozen=True)
class NoForcedEosKey:
    """forced_eos_token_id, written as null: Marian's default forces id 0, an ordinary token of other tokenizers."""

    keys = ("forced_eos_token_id",)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        return {}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {"forced_eos_token_id": None}


@dataclass(frozen=True)
class DecoderLayersKey:
    """Layers of the decoder, by default as many as the encoder has."""

    key: str
    encoder_key: str

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        encoder = check_int(self.encoder_key, required(external, self.encoder_key), MAX_LAYERS)
        decoder = external.get(self.key)
        decoder = encoder if decoder is None else check_int(self.key, decoder, MAX_LAYERS)
        return {"decoder_layers": 0 if decoder == encoder else decoder}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {self.key: config.decoder_layers or config.layers}


@dataclass(frozen=True)
class SameAsEncoderKey:
    """A key of the decoder whose value must equal the encoder's."""

    key: str
    encoder_key: str
    field: str

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        value, encoder = external.get(self.key), external.get(self.encoder_key)
        if value not in (None, encoder):
            reject(
                self.key, value, f"but {self.encoder_key} = {encoder!r}; encoder and decoder must have the same value"
            )
        return {}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {self.key: getattr(config, self.field)}


@dataclass(frozen=True)
class T5FeedForwardKeys:
    """feed_forward_proj: activation function and gating in one word, which two more keys must agree with."""

    keys = ("feed_forward_proj", "dense_act_fn", "is_gated_act")

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        name = external.get("feed_forward_proj", "relu")
        if not isinstance(name, str) or name not in FEED_FORWARD_TYPES:
            reject("feed_forward_proj", name, f"supported: {', '.join(FEED_FORWARD_TYPES)}")
        activation, gated = FEED_FORWARD_TYPES[name]
        dense = external.get("dense_act_fn")
        if dense is not None and ACTIVATION_NAMES.get(str(dense)) != activation:
            reject("dense_act_fn", dense, f"but feed_forward_proj = {name!r}; both must agree")
        if external.get("is_gated_act") not in (None, gated):
            reject("is_gated_act", external["is_gated_act"], f"but feed_forward_proj = {name!r}; both must agree")
        return {"activation": activation, "gated": gated}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        names = {native: name for name, native in reversed(list(FEED_FORWARD_TYPES.items()))}
        dense = {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation)
        name = names[config.activation, config.gated]
        return {"feed_forward_proj": name, "dense_act_fn": dense, "is_gated_act": config.gated}


FEED_FORWARD_TYPES: Mapping[str, tuple[str, bool]] = {
    "relu": ("relu", False),
    "gated-gelu": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
    "gated-relu": ("relu", True),
    "gelu_new": ("gelu_tanh", False),
    "gelu": ("gelu", False),
    "silu": ("silu", False),
    "gated-gelu_new": ("gelu_tanh", True),
}
"""feed_forward_proj's values: (activation function, gated). In T5 the gated GELU is the tanh approximation, the plain
one exact.
"""


@dataclass(frozen=True)
class LogitScaleKey:
    """Whether hidden states are scaled before the unembedding: a key since transformers 5, before that if tied."""

    keys = ("scale_decoder_outputs",)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        value = external.get("scale_decoder_outputs", external.get("tie_word_embeddings", True))
        return {"logit_scale": check_bool("scale_decoder_outputs", value)}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {"scale_decoder_outputs": config.logit_scale}


@dataclass(frozen=True)
class T5ContextKey:
    """n_positions, 512 by default. T5's relative positions set no limit themselves."""

    keys = ("n_positions",)

    def to_native(self, external: ExternalConfig) -> dict[str, Any]:
        return {"context": check_int("n_positions", external.get("n_positions", 512))}

    def from_native(self, config: TransformerConfig) -> dict[str, Any]:
        return {"n_positions": config.context}
