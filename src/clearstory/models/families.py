"""The table of model families, from which presets, settings, help and `build` are derived.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clearstory.errors import BadSetting, UnknownName, nearest
from clearstory.models.config import Config
from clearstory.models.head_config import backbone_config
from clearstory.models.hmm.config import HMMConfig, scale_hmm
from clearstory.models.hmm.config import parameter_count as hmm_parameter_count
from clearstory.models.mixture.config import MixtureConfig
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.recurrent.config import RECURRENT_PRESETS, RecurrentConfig, scale_recurrent
from clearstory.models.recurrent.config import parameter_count as recurrent_parameter_count
from clearstory.models.recurrent.seq2seq_config import (
    RECURRENT_SEQ2SEQ_PRESETS,
    RecurrentSeq2SeqConfig,
    scale_recurrent_seq2seq,
    seq2seq_parameter_count,
)
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.transformer.presets import TRANSFORMER_PRESETS, TRANSFORMER_USES
from clearstory.models.transformer.sizing import parameter_count as transformer_parameter_count
from clearstory.models.transformer.sizing import scale_transformer


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models.

    Args:
        name: the name in config.json of saved models.
        config: type of its settings.
        model: "module:attribute" of a callable from a config to a new model, imported when a model is built; one for
            each `config.architecture` where a family has several.
        description: how its models predict, in a phrase; one for each `config.family`.
        presets: named configs.
        uses: purpose of each preset, in a phrase.
        parameter_count: number of parameters of a config, computed without building its model; None if the size
            follows from the training text.
        scale: from a config and a number of parameters to the same architecture at about that size; None if the size
            follows from the training text.
        tokenizers: default tokenizers of presets; byte-level BPE for all others.
    """

    name: str
    config: type[Config]
    model: str | Mapping[str, str]
    description: Mapping[str, str]
    presets: Mapping[str, Config]
    uses: Mapping[str, str] = field(default_factory=dict)
    parameter_count: Callable[[Any], int] | None = None
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
        description={"transformer": "attention over all tokens in the context."},
        presets=TRANSFORMER_PRESETS,
        uses=TRANSFORMER_USES,
        parameter_count=transformer_parameter_count,
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
        description={
            "rnn": "a hidden vector, recomputed from itself and the current token at every step.",
            "gru": "a hidden vector; gates control how much of it is kept and how much is updated.",
            "lstm": "a hidden vector and a cell state; gates control what is written, kept and read.",
        },
        presets=RECURRENT_PRESETS,
        uses={
            "rnn": "simplest recurrent network, as a baseline",
            "gru": "GRU language model with unlimited context; fewer parameters than lstm",
            "lstm": "LSTM language model with unlimited context",
            "awd-lstm": "regularised LSTM of Merity et al. 2018, for words; trains for hours on a GPU",
        },
        parameter_count=recurrent_parameter_count,
        scale=scale_recurrent,
        tokenizers={"awd-lstm": "words"},
    ),
    Family(
        name="RecurrentSeq2Seq",
        config=RecurrentSeq2SeqConfig,
        model="clearstory.models.recurrent.encoder_decoder:RecurrentEncoderDecoder",
        description={},
        presets=RECURRENT_SEQ2SEQ_PRESETS,
        uses={
            "lstm-seq2seq": "LSTM encoder-decoder of Sutskever et al. 2014, without attention",
            "gru-seq2seq": "GRU encoder-decoder of Cho et al. 2014, without attention",
            "lstm-attention": "LSTM encoder-decoder with the attention of Bahdanau et al. 2015, for translation",
            "gru-attention": "GRU encoder-decoder with the attention of Bahdanau et al. 2015, as published",
            "luong": "LSTM encoder-decoder with the attention of Luong et al. 2015; the fastest of these to train",
        },
        parameter_count=seq2seq_parameter_count,
        scale=scale_recurrent_seq2seq,
    ),
    Family(
        name="HMM",
        config=HMMConfig,
        model="clearstory.models.hmm.model:HMM",
        description={"hmm": "a Markov chain of hidden states, each of which emits tokens."},
        presets={"hmm": HMMConfig(vocab=8192, states=256)},
        uses={"hmm": "hidden Markov model: interpretable states, Viterbi paths, part-of-speech tagging"},
        parameter_count=hmm_parameter_count,
        scale=scale_hmm,
    ),
    Family(
        name="NGram",
        config=NGramConfig,
        model="clearstory.models.ngram.model:NGram",
        description={
            "ngram": "counts how often each token follows the preceding ones, and backs off to shorter contexts."
        },
        presets={"ngram": NGramConfig(vocab=8192)},
        uses={"ngram": "n-gram model, the baseline for all other models; trained in seconds by counting"},
    ),
    Family(
        name="Mixture",
        config=MixtureConfig,
        model="clearstory.models.mixture.model:Mixture",
        description={"mixture": "several models and a cache of the text so far, weighted at every token."},
        presets={"mix": MixtureConfig(vocab=8192)},
        uses={"mix": "mixture of an n-gram model, a Transformer and a cache; lowest loss for short training times"},
    ),
)
"""All families. A new one is an entry here and a package next to the others."""

CONFIG_TYPES: tuple[type[Config], ...] = tuple(each.config for each in FAMILIES)
"""The type of each family's settings."""

PRESETS: dict[str, Config] = {name: config for each in FAMILIES for name, config in each.presets.items()}
"""Every preset by its name."""

FAMILY_DESCRIPTIONS: dict[str, str] = {name: text for each in FAMILIES for name, text in each.description.items()}
"""Description of the models of each `config.family`."""

PRESET_TOKENIZERS: dict[str, str] = {name: kind for each in FAMILIES for name, kind in each.tokenizers.items()}
"""The default tokenizer of presets; all others train byte-level BPE."""


def preset(name: str) -> Config:
    """The config of a preset. Raises UnknownName with the nearest name."""
    if name not in PRESETS:
        raise UnknownName(f"unknown model '{name}'; {nearest(name, PRESETS)}")
    return PRESETS[name]


def family_of(config: Config) -> Family:
    """The family of a config; for a classifier, that of its backbone."""
    return next(each for each in FAMILIES if each.config is type(backbone_config(config)))


def scale_config(config: Config, target: int) -> Config:
    """The same architecture at about `target` parameters, as for `compare` and `--parameters`.

    Raises BadSetting for a family whose size follows from its training text.
    """
    scale = family_of(config).scale
    if scale is None:
        raise BadSetting(
            f"parameters is {target:,}, and the size of {config.family} follows from its text and its own settings; "
            "leave parameters out"
        )
    return scale(config, target)
