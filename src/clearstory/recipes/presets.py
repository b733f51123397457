"""Presets: a summary of every preset, computed from its config. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from clearstory.models.families import FAMILIES, Family
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.training_presets import PRESET_TRAINING_SETTINGS

DEFAULT_TOKENIZER = "bpe"
"""Tokenizer of presets without their own: byte-level BPE."""


@dataclass(frozen=True, kw_only=True)
class PresetSummary:
    """Size, tokenizer and purpose of a preset.

    Args:
        name: name of the preset.
        family: name of its family.
        architecture: decoder, encoder or encoder-decoder.
        parameters: number of parameters with its own vocabulary; None if the size depends on the training text.
        context: longest sequence in tokens; None for unlimited.
        vocab: vocabulary size in tokens.
        tokenizer: default tokenizer.
        has_training_settings: whether it has its own training settings.
        use: purpose, in a phrase.
    """

    name: str
    family: str
    architecture: str
    parameters: int | None
    context: int | None
    vocab: int
    tokenizer: str
    has_training_settings: bool
    use: str


def list_presets() -> tuple[PresetSummary, ...]:
    """Every preset by family and architecture, those for the same use together, the smallest first.

    >>> [each.name for each in list_presets() if each.family == "Recurrent"]
    ['rnn', 'gru', 'lstm', 'awd-lstm']
    """
    summaries = [summarize_preset(family, name) for family in FAMILIES for name in family.presets]
    smallest: dict[str, int] = {}
    for each in summaries:
        smallest[each.use] = min(each.parameters or 0, smallest.get(each.use, sys.maxsize))
    families = [family.name for family in FAMILIES]
    return tuple(
        sorted(
            summaries,
            key=lambda each: (families.index(each.family), each.architecture, smallest[each.use], each.parameters or 0),
        )
    )


def summarize_preset(family: Family, name: str) -> PresetSummary:
    """The summary of one preset of a family."""
    config = ModelChoice(name=name).config(vocab=family.presets[name].vocab)
    return PresetSummary(
        name=name,
        family=family.name,
        architecture=config.architecture,
        parameters=None if family.parameter_count is None else family.parameter_count(config),
        context=config.context,
        vocab=config.vocab,
        tokenizer=family.tokenizers.get(name, DEFAULT_TOKENIZER),
        has_training_settings=name in PRESET_TRAINING_SETTINGS,
        use=family.uses.get(name, ""),
    )


def presets_by_kind() -> Mapping[str, list[PresetSummary]]:
    """Presets by family, those of the Transformer by architecture, in the order of `list_presets`.

    >>> list(presets_by_kind())  # doctest: +NORMALIZE_WHITESPACE
    ['Transformer decoder', 'Transformer encoder', 'Transformer encoder-decoder', 'Recurrent',
     'RecurrentSeq2Seq', 'HMM', 'NGram', 'Mixture']
    """
    several = {family.name for family in FAMILIES if isinstance(family.model, Mapping)}
    kinds: dict[str, list[PresetSummary]] = {}
    for each in list_presets():
        kind = f"{each.family} {each.architecture}" if each.family in several else each.family
        kinds.setdefault(kind, []).append(each)
    return kinds
