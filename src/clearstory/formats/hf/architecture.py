"""Architecture: one class of transformers, as a row of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from clearstory.errors import BadInput, BadSetting
from clearstory.formats.hf.config_keys import ConfigKey, ExternalConfig, IgnoredKeys, reject_unknown_keys
from clearstory.formats.hf.weight_map import WeightMap, Weights
from clearstory.models.config import TransformerConfig

# Of the file and the run, not of the model; ids of special tokens come from the tokenizer beside it.
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
"""transformers' names of activations, and ours."""

BIAS_FIELDS = ("bias", "unembed_bias")
"""Fields of ours that, where they are False, some classes can only say with biases of zero."""


@dataclass(frozen=True, kw_only=True)
class HFArchitecture:
    """One class of transformers: its keys, its weights, and what it always is.

    Args:
        name: the class.
        model_type: its short name in config.json.
        keys: how config.json and our fields say the same.
        given: what of ours it always is.
        noted: fields of ours it cannot say but that change no logit; noted in config.json under `clearstory`.
        prefix: what all names but the unembedding's begin with, left out by some.
        renaming: the weights' names and layouts for one config.
        idle: weights that some files carry and nobody needs, as regular expressions.
        copies: weights that may lie in a file a second time, each with the one that it must equal.
        old: ends of names in older files, and what they are now.
        settle: what of a config only the weights tell.
        left_out: a sentence on what of this class is not taken over; None where all is.
        auto: the class over there that opens it by itself.
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

    def config_to_native(self, theirs: ExternalConfig) -> TransformerConfig:
        """Our config from theirs. Raises BadInput naming the key that cannot be honoured."""
        keys = (*self.keys, METADATA_KEYS)
        reject_unknown_keys(theirs, {name for key in keys for name in key.names}, self.name)
        found: dict[str, Any] = dict(self.fixed_fields)
        for key in keys:
            found |= key.to_native(theirs)
        return TransformerConfig(**found)

    def config_from_native(self, config: TransformerConfig) -> dict[str, Any]:
        """Theirs from ours: what transformers reads, and under `clearstory` what it has no word for."""
        out: dict[str, Any] = {"architectures": [self.name], "model_type": self.model_type}
        for key in self.keys:
            out |= key.from_native(config)
        return out

    def lost_fields(self, config: TransformerConfig) -> dict[str, Any] | None:
        """The fields of a config that get lost on the way there and back; None where one of them changes a logit."""
        try:
            back = self.config_to_native(self.config_from_native(config))
        except (BadInput, BadSetting, KeyError):  # KeyError: a word they have no word for
            return None
        lost = {
            f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != getattr(back, f.name)
        }
        invented = any(lost.get(name) is True for name in BIAS_FIELDS)
        return lost if lost.keys() <= self.extra_fields and not invented else None

    def apply_extra(self, config: TransformerConfig, extra: Mapping[str, Any]) -> TransformerConfig:
        """The config with what was noted. Whether biases are truly zero is for the weights to say."""
        known = {name: value for name, value in extra.items() if name in self.extra_fields and name not in BIAS_FIELDS}
        if "dropout" in known and not isinstance(known["dropout"], (int, float)):
            raise BadInput(f"config.json notes a dropout of {known['dropout']!r}; it must be a number under 1")
        return replace(config, **known)
