"""Architecture: one class of transformers, as a row of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from clearstory.errors import BadInput, BadSetting
from clearstory.formats.keys import Key, Theirs, Unread, check_known
from clearstory.formats.rules import Renaming, Weights
from clearstory.models.config import TransformerConfig

# Of the file and the run, not of the model; ids of special tokens come from the tokenizer beside it.
OF_THE_FILE = Unread(
    (
        *("model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path", "clearstory"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "initializer_range", "use_cache"),
        *("attention_dropout", "task_specific_params", "id2label", "label2id", "problem_type", "n_ctx", "auto_map"),
        *("return_dict", "gradient_checkpointing", "chunk_size_feed_forward", "_attn_implementation"),
    )
)

BENDS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""transformers' names of activations, and ours."""

ZEROS = ("bias", "unembed_bias")
"""Fields of ours that, where they are False, some classes can only say with biases of zero."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
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
    keys: tuple[Key, ...]
    given: Mapping[str, Any]
    noted: frozenset[str] = frozenset({"dropout"})
    prefix: str
    renaming: Callable[[TransformerConfig], Renaming]
    idle: tuple[str, ...] = ()
    copies: Mapping[str, str] = field(default_factory=dict)
    old: Mapping[str, str] = field(default_factory=dict)
    settle: Callable[[TransformerConfig, Weights], TransformerConfig] = lambda config, weights: config
    left_out: str | None = None
    auto: str = "AutoModelForCausalLM"

    def pull_config(self, theirs: Theirs) -> TransformerConfig:
        """Our config from theirs. Raises BadInput naming the key that cannot be honoured."""
        keys = (*self.keys, OF_THE_FILE)
        check_known(theirs, {name for key in keys for name in key.names}, self.name)
        found: dict[str, Any] = dict(self.given)
        for key in keys:
            found |= key.pull(theirs)
        return TransformerConfig(**found)

    def push_config(self, config: TransformerConfig) -> dict[str, Any]:
        """Theirs from ours: what transformers reads, and under `clearstory` what it has no word for."""
        out: dict[str, Any] = {"architectures": [self.name], "model_type": self.model_type}
        for key in self.keys:
            out |= key.push(config)
        return out

    def note(self, config: TransformerConfig) -> dict[str, Any] | None:
        """The fields of a config that get lost on the way there and back; None where one of them changes a logit."""
        try:
            back = self.pull_config(self.push_config(config))
        except (BadInput, BadSetting, KeyError):  # KeyError: a word they have no word for
            return None
        lost = {
            f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != getattr(back, f.name)
        }
        invented = any(lost.get(name) is True for name in ZEROS)
        return lost if lost.keys() <= self.noted and not invented else None

    def remember(self, config: TransformerConfig, noted: Mapping[str, Any]) -> TransformerConfig:
        """The config with what was noted. Whether biases are truly zero is for the weights to say."""
        known = {name: value for name, value in noted.items() if name in self.noted and name not in ZEROS}
        if "dropout" in known and not isinstance(known["dropout"], (int, float)):
            raise BadInput(f"config.json notes a dropout of {known['dropout']!r}; it must be a number under 1")
        return replace(config, **known)
