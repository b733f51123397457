"""The table of model families: one entry for each, from which presets, settings, help and `build` are made.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clearstory.errors import BadSetting, UnknownName, nearest
from clearstory.models.config import Config
from clearstory.models.hmm.config import HMMConfig, scale_hmm
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.recurrent.config import RECURRENT_PRESETS, RecurrentConfig, scale_recurrent
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import TRANSFORMER_PRESETS
from clearstory.models.transformer.sizing import scale_transformer


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models.

    Args:
        name: the name in config.json of saved models.
        config: type of its settings.
        model: "module:attribute" of a callable from a config to a new model, imported when a model is built; one for
            each `config.architecture` where a family has several.
        presets: named configs.
        scale: from a config and a number of parameters to the same wiring at about that size; None where the size
            follows from the training text.
        tokenizers: the tokenizers that presets are meant for; byte-level BPE for all others.
    """

    name: str
    config: type[Config]
    model: str | Mapping[str, str]
    presets: Mapping[str, Config]
    scale: Callable[[Any, int], Config] | None = None
    tokenizers: Mapping[str, str] = field(default_factory=dict)


FAMILIES: tuple[Family, ...] = (
    Family(
        name="Transformer",
        config=TransformerConfig,
        model={
            "decoder": "clearstory.models.transformer.decoder:Transformer",
            "encoder": "clearstory.models.transformer.encoder:Encoder",
            "encoder-decoder": "clearstory.models.transformer.encoder_decoder:EncoderDecoder",
        },
        presets=TRANSFORMER_PRESETS,
        scale=scale_transformer,
        tokenizers={
            "nanogpt-char": "characters",
            "recall": "characters",
            **{name: "wordpiece:8192" for name, each in TRANSFORMER_PRESETS.items() if each.architecture == "encoder"},
        },
    ),
    Family(
        name="Recurrent",
        config=RecurrentConfig,
        model="clearstory.models.recurrent.model:Recurrent",
        presets=RECURRENT_PRESETS,
        scale=scale_recurrent,
        tokenizers={"awd-lstm": "words"},
    ),
    Family(
        name="HMM",
        config=HMMConfig,
        model="clearstory.models.hmm.model:HMM",
        presets={"hmm": HMMConfig(vocab=8192, states=256)},
        scale=scale_hmm,
    ),
    Family(
        name="NGram",
        config=NGramConfig,
        model="clearstory.models.ngram.model:NGram",
        presets={"ngram": NGramConfig(vocab=8192)},
    ),
)
"""Every family. A new one is an entry here and a package beside the others."""

CONFIG_TYPES: tuple[type[Config], ...] = tuple(each.config for each in FAMILIES)
"""The type of each family's settings."""

PRESETS: dict[str, Config] = {name: config for each in FAMILIES for name, config in each.presets.items()}
"""Every preset by its name."""

PRESET_TOKENIZERS: dict[str, str] = {name: kind for each in FAMILIES for name, kind in each.tokenizers.items()}
"""The tokenizer of each preset that is meant for one; all others train byte-level BPE."""


def preset(name: str) -> Config:
    """The config of a preset. Raises UnknownName with the nearest name."""
    if name not in PRESETS:
        raise UnknownName(f"there is no model called '{name}'; {nearest(name, PRESETS)}")
    return PRESETS[name]


def family_of(config: Config) -> Family:
    """The family whose settings these are."""
    return next(each for each in FAMILIES if each.config is type(config))


def scale_config(config: Config, target: int) -> Config:
    """The same wiring at about `target` parameters: what `compare` and `--parameters` ask for.

    Raises BadSetting for a family whose size follows from its training text.
    """
    scale = family_of(config).scale
    if scale is None:
        raise BadSetting(
            f"parameters is {target:,}, and the size of {config.family} follows from its text and its own settings; "
            "leave parameters out"
        )
    return scale(config, target)
