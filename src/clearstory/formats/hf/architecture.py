"""HFArchitecture: one model class of transformers as a table row: its config keys and its weight map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch

from clearstory.errors import BadInput, BadSetting
from clearstory.formats.hf.config_keys import ConfigKey, ExternalConfig, reject
from clearstory.formats.hf.declared_keys import check_other_keys, undeclared_keys, undeclared_keys_note
from clearstory.formats.hf.weight_map import WeightMap, Weights
from clearstory.models.transformer.config import TransformerConfig

ACTIVATION_NAMES = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_python": "gelu",
}
"""Activation functions by their names in transformers."""

LM_HEAD = "lm_head.weight"

InferFromWeights = Callable[[TransformerConfig, Weights], TransformerConfig]


def infer_tie_embeddings(embedding: str, *, tie_missing: bool = False) -> InferFromWeights:
    """A function that gives the config `tie_embeddings` as the weights have it: transformers 5 unties an output layer
    whose stored matrix differs from the embedding's. With `tie_missing`, one that is not stored is always tied.
    """

    def infer(config: TransformerConfig, weights: Weights) -> TransformerConfig:
        if tie_missing and LM_HEAD not in weights:
            return replace(config, tie_embeddings=True)
        if not config.tie_embeddings or LM_HEAD not in weights or embedding not in weights:
            return config
        # Equal shapes first: different ones are reported by name later.
        equal = weights[LM_HEAD].shape != weights[embedding].shape or torch.equal(weights[LM_HEAD], weights[embedding])
        return replace(config, tie_embeddings=equal)

    return infer


BIAS_FIELDS = ("bias", "unembed_bias")
"""Fields of our config that some classes always have: False is then stored as biases of zero."""


@dataclass(frozen=True, kw_only=True)
class HFArchitecture:
    """One model class of transformers.

    Args:
        name: the class name.
        model_type: its `model_type` in config.json.
        keys: the keys of config.json.
        defaults: the default values of keys that are not in config.json: those of the class's configuration.
        aliases: other names of keys that transformers reads as well.
        fixed_fields: config fields that have one value in this class.
        extra_fields: config fields that the class does not have and that do not change logits; stored in `clearstory`.
        weight_prefix: the prefix of all weights except the unembedding's, which some files omit.
        weight_map: from a config to its weight map.
        ignored_weights: regular expressions of weights in some files that are not needed.
        duplicate_weights: weights that can be stored twice, each with the weight that it must equal.
        legacy_suffixes: suffixes of weight names in older files, each with the current suffix.
        zero_biases: from config.json to a regular expression of the biases that can be missing in files and are zero.
        infer_from_weights: completes a config with fields that only the weights determine.
        omission_note: a sentence on parts that are ignored when a model of this class is opened, or None.
        auto_class: the Auto class of transformers that opens it.
    """

    name: str
    model_type: str
    keys: tuple[ConfigKey, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    fixed_fields: Mapping[str, Any]
    extra_fields: frozenset[str] = frozenset({"dropout"})
    weight_prefix: str
    weight_map: Callable[[TransformerConfig], WeightMap]
    ignored_weights: tuple[str, ...] = ()
    duplicate_weights: Mapping[str, str] = field(default_factory=dict)
    legacy_suffixes: Mapping[str, str] = field(default_factory=dict)
    zero_biases: Callable[[ExternalConfig], str | None] = lambda external: None
    infer_from_weights: InferFromWeights = lambda config, weights: config
    omission_note: str | None = None
    auto_class: str = "AutoModelForCausalLM"

    config_type: ClassVar[type[Any]] = TransformerConfig

    def config_to_native(self, external: ExternalConfig) -> TransformerConfig:
        """Our config; absent keys have the defaults of the class. Raises BadInput naming an unsupported key."""
        external = {**self.defaults, **self.resolve_aliases(external)}
        values: dict[str, Any] = dict(self.fixed_fields)
        for key in self.keys:
            values |= key.to_native(external)
        config = TransformerConfig(**values)
        check_other_keys(external, self.known_keys, self.name, config)
        return config

    @property
    def known_keys(self) -> frozenset[str]:
        """The keys of config.json that are read, aliases included."""
        return frozenset({name for key in self.keys for name in key.keys} | self.aliases.keys())

    def resolve_aliases(self, external: ExternalConfig) -> dict[str, Any]:
        """config.json with each alias replaced by its key. Raises BadInput if both exist and differ."""
        out = dict(external)
        for alias, key in self.aliases.items():
            value = out.pop(alias, None)
            if value is None:
                continue
            if out.get(key, value) != value:
                reject(alias, value, f"but {key} = {out[key]!r}; both must be equal")
            out[key] = value
        return out

    def ignored_keys_note(self, external: ExternalConfig) -> str | None:
        """A sentence on the keys that are ignored because no configuration class declares them; None without any."""
        return undeclared_keys_note(external, undeclared_keys(external, self.known_keys))

    def config_from_native(self, config: TransformerConfig) -> dict[str, Any]:
        """The class's config.json, without extra fields."""
        out: dict[str, Any] = {"architectures": [self.name], "model_type": self.model_type}
        for key in self.keys:
            out |= key.from_native(config)
        return out

    def lost_fields(self, config: TransformerConfig) -> dict[str, Any] | None:
        """Fields that a round trip through config.json loses; None if one of them changes a logit."""
        try:
            back = self.config_to_native(self.config_from_native(config))
        except (BadInput, BadSetting, KeyError):  # KeyError: an option the class has no name for
            return None
        lost = {
            f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != getattr(back, f.name)
        }
        lacks_bias = any(lost.get(name) is True for name in BIAS_FIELDS)
        return lost if lost.keys() <= self.extra_fields and not lacks_bias else None

    def apply_extra(self, config: TransformerConfig, extra: Mapping[str, Any]) -> TransformerConfig:
        """The config with the stored extra fields, except biases: whether those are zero is read from the weights."""
        values = {name: value for name, value in extra.items() if name in self.extra_fields and name not in BIAS_FIELDS}
        if "dropout" in values and not isinstance(values["dropout"], (int, float)):
            raise BadInput(
                f"config.json has clearstory.model.dropout = {values['dropout']!r}; it must be a number below 1"
            )
        return replace(config, **values)
