"""Train form: the settings of a training run as form fields, from the same dataclasses as the command line."""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any, get_origin

from clearstory.models.families import PRESET_TOKENIZERS, PRESETS, preset
from clearstory.recipes.settings.finetuning import FinetuneRecipe
from clearstory.recipes.settings.schema import Setting, setting_table, strip_optional
from clearstory.recipes.settings.training import TrainRecipe
from clearstory.studio.finetuning_runs import ONE_RUN_SETTINGS
from clearstory.text.builtin_corpora import CORPORA

FIELD_KINDS: dict[Any, str] = {bool: "boolean", int: "integer", float: "number", tuple: "list"}
"""The kind of a form field by the type of its setting; "text" for all other types."""

ARCHITECTURE_LABELS = {
    "decoder": "Transformer decoder (causal)",
    "encoder": "Transformer encoder (bidirectional)",
    "encoder-decoder": "Transformer encoder-decoder",
}
"""Group labels of the Transformer presets; presets of other families are grouped by family."""


def train_form() -> dict[str, Any]:
    """The fields of all settings of training and of fine-tuning, the presets with their settings, the built-in corpora,
    and suggested tokenizers.
    """
    return {
        "settings": form_fields(TrainRecipe, "resume", "overwrite"),
        "finetune_settings": form_fields(FinetuneRecipe, "resume", "overwrite", *ONE_RUN_SETTINGS),
        "presets": [preset_entry(name) for name in PRESETS],
        "corpora": [f"corpus:{name}" for name in CORPORA],
        "tokenizers": ["characters", "bytes", "words", "wordpunct", "bpe:1024", "bpe:4096", "bpe:8192",
                       "wordpiece:8192", "unigram:8192"],
    }  # fmt: skip


def form_fields(recipe: type[Any], *left_out: str) -> list[dict[str, Any]]:
    """The form fields of a command's settings."""
    return [form_field(each) for each in setting_table(recipe).values() if each.key not in left_out]


def form_field(field: Setting) -> dict[str, Any]:
    """The form field of one setting: key, kind, choices, default, help."""
    hint = strip_optional(field.hint)
    kind = "choice" if field.choices else FIELD_KINDS.get(get_origin(hint) or hint, "text")
    default = None if field.default is MISSING else field.default
    return {
        "key": field.key,
        "kind": kind,
        "choices": list(field.choices),
        "default": list(default) if isinstance(default, tuple) else default,
        "help": field.help,
    }


def preset_entry(name: str) -> dict[str, Any]:
    """A preset: name, family, group label, default tokenizer, and model settings."""
    config: Any = preset(name)
    kind = getattr(config, "architecture", None)
    return {
        "name": name,
        "family": config.family,
        "group": ARCHITECTURE_LABELS[kind] if kind else config.family,
        "tokenizer": PRESET_TOKENIZERS.get(name),
        "settings": {key: value for key, value in vars(config).items() if key != "vocab"},
    }
