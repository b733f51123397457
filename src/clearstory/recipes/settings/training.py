"""Settings of training: TrainRecipe and QuickstartRecipe. Imports no torch.

A recipe is merged from layers, later ones overriding earlier ones: the dataclass defaults, the training settings of the
preset (`preset_training_settings`), a YAML file, and the command line or the Python call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from clearstory.errors import BadSetting
from clearstory.models.lora_settings import LoRASettings
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.run_recipe import (
    LENGTH_SETTINGS,
    check_run_settings,
    check_same_settings,
    resumed_from,
)
from clearstory.recipes.settings.schema import build_settings, check_output_folder, flatten_keys, positional_setting
from clearstory.recipes.settings.training_presets import (
    BASE_WIDTHS,
    FINE_TUNING,
    LORA_FINE_TUNING,
    preset_training_settings,
)
from clearstory.text.settings import DataSettings
from clearstory.training.objectives.table import ObjectiveName
from clearstory.training.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """Train a model on text.

    Args:
        text: text files, folders or globs (txt, jsonl, parquet, csv, html and others), or pairs as tsv and jsonl; or a
            built-in corpus: corpus:kjv, corpus:python-docs, corpus:digits.
        model: model preset; the fields of its config are set with --model.width, --model.layers and so on.
        init: model folder or run to continue training from, with its weights, config and tokenizer.
        out: run folder; default: a folder in runs/ named after the model and the date.
        minutes: wall-clock time limit of the whole run; the number of steps is planned from a measured step time.
        cpu_seconds: CPU time limit of the whole run, summed over all threads.
        steps: number of optimizer steps.
        parameters: approximate number of parameters; the preset's architecture is scaled to it.
        tokenizer: characters, bytes, words, wordpunct (words and punctuation marks), bpe:8192, or a folder with a
            tokenizer; default: the preset's.
        objective: training objective; auto: the usual one for the model's architecture.
        resume: continue from the newest checkpoint in the run folder, or start a new run if there is none.
        overwrite: replace an existing run in the run folder.
    """

    text: tuple[str, ...] = positional_setting("TEXT", ())
    model: ModelChoice = field(default_factory=ModelChoice)
    init: str | None = None
    out: Path | None = None
    minutes: float | None = None
    cpu_seconds: float | None = None
    steps: int | None = None
    parameters: int | None = None
    tokenizer: str | None = None
    objective: ObjectiveName = "auto"
    resume: bool = False
    overwrite: bool = False
    lora: LoRASettings = field(default_factory=LoRASettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        check_run_settings(self)
        if self.parameters is not None and self.parameters < 1:
            raise BadSetting(f"parameters is {self.parameters}; it must be at least 1")
        if self.init is None:
            if self.lora.rank:
                raise BadSetting(
                    f"lora.rank is {self.lora.rank}, but LoRA adapts an existing model; give one with --init"
                )
            return
        for name, value, default in (
            ("model", self.model, ModelChoice()),
            ("parameters", self.parameters, None),
            ("tokenizer", self.tokenizer, None),
            ("training.initialization", self.training.initialization, "normal"),
        ):
            if value != default:
                raise BadSetting(
                    f"{name} is for a new model, but init continues training {self.init}; give one of them"
                )
        if not self.lora.rank and self.lora != LoRASettings():
            raise BadSetting(
                "lora.rank is 0, so LoRA is off and the other settings of lora have no effect; set lora.rank"
            )

    command: ClassVar[str] = "train"
    """The command that makes and resumes such a run."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The text; none for a run that is resumed by its folder alone."""
        return self.text

    @property
    def default_name(self) -> str:
        """The preset's name, or the name of the initial model and "-continued"."""
        return self.model.name if self.init is None else f"{Path(self.init).name}-continued"

    def with_absolute_paths(self) -> Self:
        """The recipe with absolute paths, as it is saved, so that it works from any working directory."""
        from clearstory.text.sources import absolute_source
        from clearstory.text.train_tokenizer import KINDS

        tokenizer, cache = self.tokenizer, self.data.cache
        if tokenizer is not None and tokenizer.partition(":")[0] not in KINDS:
            tokenizer = absolute_source(tokenizer)
        data = replace(self.data, cache=None if cache is None else cache.absolute())
        init = None if self.init is None else absolute_source(self.init)
        return replace(self, text=tuple(map(absolute_source, self.text)), init=init, tokenizer=tokenizer, data=data)

    def resumed(self, saved: Mapping[str, Any], folder: Path) -> TrainRecipe:
        """The saved recipe of a run with the changeable settings of this one. Raises CheckpointMismatch for other
        changes.

        A call that names the text is a complete recipe; one without a text only names differences from the defaults.
        """
        before = build_train_recipe(saved)
        default = build_train_recipe({"model": self.model.name, "init": self.init, "lora": {"rank": self.lora.rank}})

        def is_resolved(key: str) -> bool:
            return (
                key in RESOLVED_BY_RUN
                or (before.model.name in ("clear", "recall") and key.startswith("model."))
                or (key in LEARNING_RATES and bool(before.init or before.model.name in BASE_WIDTHS))
            )

        check_same_settings(folder, before, self, default, is_resolved)
        return resumed_from(before, self, folder)

    @property
    def time_limit(self) -> float | None:
        """Time limit in seconds, wall-clock (minutes) or CPU (cpu_seconds); None where the steps are given."""
        return 60 * self.minutes if self.minutes is not None else self.cpu_seconds


RESOLVED_BY_RUN = {
    "training.device",
    "training.precision",
    "training.matmul",
    "training.threads",
    "training.align_documents",
    "parameters",
    "objective",
    "model.pooler",
    "data.pairs",
}
LEARNING_RATES = {"training.learning_rate", "training.muon_learning_rate"}
"""Settings that a run resolves itself where they are not set: learning rates where they are scaled by width, and the
sizes of `clear`.
"""


def build_train_recipe(*layers: Mapping[str, Any]) -> TrainRecipe:
    """The recipe of these layers over the training settings of their preset, nested or dotted; later layers win.

    Raises UnknownName for an unknown key, BadSetting for an invalid value.

    >>> build_train_recipe({"model": "nanogpt-char", "training": {"batch_size": 4}}).training
    TrainingSettings(batch_size=4, ...)
    """
    values = merge_layers(TrainRecipe, *layers)
    if values.get("init") is None:
        preset = preset_training_settings(str(values.get("model", ModelChoice().name)), values.get("tokenizer"))
    else:
        preset = FINE_TUNING if str(values.get("lora.rank", 0)) == "0" else LORA_FINE_TUNING
    return build_settings(TrainRecipe, merge_layers(TrainRecipe, preset, values))


def merge_layers(recipe: type[Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all layers under their dotted keys, later layers overriding earlier ones."""
    merged: dict[str, Any] = {}
    for layer in layers:
        values = flatten_keys(recipe, layer)
        if any(values.get(key) is not None for key in LENGTH_SETTINGS):
            merged = {key: value for key, value in merged.items() if key not in LENGTH_SETTINGS}
        merged |= values
    return merged


@dataclass(frozen=True, kw_only=True)
class QuickstartRecipe:
    """Train a small model on a built-in text, and show what it has learned.

    Args:
        minutes: training time in minutes.
        out: run folder; default: runs/quickstart.
        seed: seed of the initial weights, the order of the data and the generated text.
    """

    minutes: float = 3.0
    out: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_output_folder(self.out)
        if self.minutes <= 0:
            raise BadSetting(f"minutes is {self.minutes:g}; it must be above 0")
