"""HFArchitecture: one model class of transformers as a table row: its config keys and its weight map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from clearstory.errors import BadInput, BadSetting
from clearstory.formats.hf.config_keys import ConfigKey, ExternalConfig, IgnoredKeys, reject_unknown_keys
from clearstory.formats.hf.weight_map import WeightMap, Weights
from clearstory.models.transformer.config import TransformerConfig

# About the file, training or generation. Ids of special tokens are taken from the tokenizer.
METADATA_KEYS = IgnoredKeys(
    (
        *("model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path", "clearstory"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "initializer_range", "use_cache"),
        *("attention_dropout", "task_specific_params", "id2label", "label2id", "problem_type", "n_ctx", "auto_map"),
        *("return_dict", "gradient_checkpointing", "chunk_size_feed_forward", "_attn_implementation"),
    )
)

ACTIVATION_NAMES = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""From transformers' names of activation functions to ours."""

BIAS_FIELDS = ("bias", "unembed_bias")
"""Fields of our config that some classes always have: False is then stored as biases of zero."""


@dataclass(frozen=True, kw_only=True)
class HFArchitecture:
    """One model class of transformers.

    Args:
        name: the class name.
        model_type: its `model_type` in config.json.
        keys: the keys of config.json.
        fixed_fields: fields of our config that have one value in this class.
        extra_fields: fields of our config that the class lacks and that change no logit; stored under `clearstory`.
        weight_prefix: the prefix of all weights except the unembedding's, which some files leave out.
        weight_map: from a config to its weight map.
        ignored_weights: regular expressions of weights in some files that are not needed.
        duplicate_weights: weights that may be stored twice, each with the weight it must equal.
        legacy_suffixes: suffixes of weight names in older files, each with the current suffix.
        infer_from_weights: completes a config with what only the weights tell.
        omission_note: a sentence on what is left out when a model of this class is opened; None if nothing is.
        auto_class: the Auto class of transformers that opens it.
    """

    name: str
    model_type: str
    keys: tuple[ConfigKey, ...]
    fixed_fields: Mapping[str, Any]
    extra_fields: frozenset[str] = frozenset({"dropout"})
    weight_prefix: str
    weight_map: Callable[[TransformerConfig], WeightMap]
    ignored_weights: tuple[str, ...] = ()
    duplicate_weights: Mapping[str, str] = field(default_factory=dict)
    legacy_suffixes: Mapping[str, str] = field(default_factory=dict)
    infer_from_weights: Callable[[TransformerConfig, Weights], TransformerConfig] = lambda config, weights: config
    omission_note: str | None = None
    auto_class: str = "AutoModelForCausalLM"

    def config_to_native(self, external: ExternalConfig) -> TransformerConfig:
        """Our config. Raises BadInput naming an unsupported key."""
        keys = (*self.keys, METADATA_KEYS)
        reject_unknown_keys(external, {name for key in keys for name in key.keys}, self.name)
        values: dict[str, Any] = dict(self.fixed_fields)
        for key in keys:
            values |= key.to_native(external)
        return TransformerConfig(**values)

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
