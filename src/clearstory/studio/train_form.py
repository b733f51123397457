"""Forms: a training's settings as rows of a form, read from the dataclasses that the command line reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, get_origin

from clearstory.models.presets import PRESETS, TOKENIZERS, preset
from clearstory.recipes.settings.schema import Setting, flatten_keys, to_plain, setting_table, strip_optional
from clearstory.recipes.settings.training import TrainRecipe, build_train_recipe
from clearstory.text.builtin_corpora import CORPORA

KINDS: dict[Any, str] = {bool: "switch", int: "whole", float: "number", tuple: "list"}

TAUGHT = {"decoder": "Transformer, left to right", "encoder": "Transformer, both ways", "encoder-decoder": "Two stacks"}

LARGEST = 500_000_000
"""Parameters above which a preset is not offered: it cannot be trained where a studio runs."""


def form() -> dict[str, Any]:
    """Every setting of a training, the presets with their families, the texts and tokenizers that are at hand."""
    return {
        "settings": [row(each) for each in setting_table(TrainRecipe).values() if each.key not in ("resume", "overwrite")],
        "presets": [preset_row(name) for name in PRESETS],
        "corpora": [f"corpus:{name}" for name in CORPORA],
        "tokenizers": ["characters", "bytes", "words", "bpe:1024", "bpe:4096", "bpe:8192", "wordpiece:8192",
                       "unigram:8192"],
    }  # fmt: skip


def row(field: Setting) -> dict[str, Any]:
    """One setting."""
    bare = strip_optional(field.hint)
    kind = "choice" if field.choices else KINDS.get(get_origin(bare) or bare, "text")
    usual = None if field.default is MISSING else field.default
    return {
        "key": field.key,
        "kind": kind,
        "choices": list(field.choices),
        "default": list(usual) if isinstance(usual, tuple) else usual,
        "help": field.help,
    }


def preset_row(name: str) -> dict[str, Any]:
    """A preset: its family, and which model settings it has."""
    config: Any = preset(name)
    kind = getattr(config, "kind", None)
    return {
        "name": name,
        "family": config.family,
        "group": TAUGHT[kind] if kind else config.family,
        "tokenizer": TOKENIZERS.get(name),
        "settings": {key: value for key, value in vars(config).items() if key != "vocab"},
    }


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that a form means, under dotted keys. Raises UnknownName and BadSetting as the command line does."""
    return flatten_keys(TrainRecipe, to_plain(build_train_recipe(settings)))
