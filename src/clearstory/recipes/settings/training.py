"""Recipe settings: everything a verb can be told, typed and without torch.

A recipe is built from layers, each winning over the one before: the dataclass defaults, what the preset brings along
(`PRESET_TRAINING_SETTINGS`), a YAML file, the command line or the Python call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from clearstory.errors import BadSetting
from clearstory.models.lora_settings import LoRASettings
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.schema import build_settings, flatten_keys, positional_setting
from clearstory.recipes.settings.training_presets import LORA_FINE_TUNING, FINE_TUNING, PRESET_TRAINING_SETTINGS
from clearstory.text.settings import DataSettings
from clearstory.training.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class TrainRecipe:
    """From text to a model.

    Args:
        text: files, folders or globs of txt, jsonl and parquet, or pairs as tsv and jsonl; or corpus:kjv,
            corpus:python-docs, corpus:digits.
        model: the preset; its config's fields are set as --model.width, --model.layers and so on.
        init: a model folder or run to go on from, with its weights, its shape and its tokenizer.
        out: the run folder; runs/ and the date when not given.
        minutes: how long to train, all in all; the steps are planned from a probe of this machine.
        cpu_seconds: the same in processor time, all threads added.
        steps: how many optimizer steps to take.
        parameters: about how large the model shall be; the preset gives the wiring.
        tokenizer: characters, bytes, words, bpe:8192, or a folder that has one; the preset's own when not given.
        objective: what the model is asked to get right; auto takes what is usual for its kind.
        resume: go on from the newest checkpoint in the run folder; starts anew where there is none.
        overwrite: replace the run that is in the run folder.
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
    objective: Literal["auto", "causal", "masked", "mlm+nsp", "rewrite", "denoise"] = "auto"
    resume: bool = False
    overwrite: bool = False
    lora: LoRASettings = field(default_factory=LoRASettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        said = [f"{name} is {getattr(self, name):,g}" for name in LENGTH_SETTINGS if getattr(self, name) is not None]
        if len(said) > 1:
            raise BadSetting(f"{' and '.join(said)}; give one of them")
        for name in ("minutes", "cpu_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise BadSetting(f"{name} is {value:g}; it must be above 0")
        if self.steps is not None and self.steps < 1:
            raise BadSetting(f"steps is {self.steps}; it must be at least 1")
        if self.parameters is not None and self.parameters < 1:
            raise BadSetting(f"parameters is {self.parameters}; it must be at least 1")
        if self.resume and self.overwrite:
            raise BadSetting("resume goes on with a run and overwrite throws it away; give one of them")
        if self.init is None:
            if self.lora.rank:
                raise BadSetting(
                    f"lora.rank is {self.lora.rank}, and LoRA adapts a model that is there; name one with --init"
                )
            return
        for name, given, usual in (
            ("model", self.model, ModelChoice()),
            ("parameters", self.parameters, None),
            ("tokenizer", self.tokenizer, None),
            ("training.initialization", self.training.initialization, "normal"),
        ):
            if given != usual:
                raise BadSetting(
                    f"{name} is of a new model, and init goes on with {self.init} as it is; give one of them"
                )
        if not self.lora.rank and self.lora != LoRASettings():
            raise BadSetting("lora.rank is 0, so nothing is adapted and the other settings of lora say nothing; set it")

    @property
    def default_name(self) -> str:
        """The model in a word: its preset, or what it goes on from."""
        return self.model.name if self.init is None else f"{Path(self.init).name}-continued"

    @property
    def seconds(self) -> float | None:
        """The time that is given, by whichever clock; None where steps decide."""
        return 60 * self.minutes if self.minutes is not None else self.cpu_seconds


NumberFormat = Literal["f32", "f16", "bf16", "q8_0"]
"""How the numbers of a model may be written."""


@dataclass(frozen=True, kw_only=True)
class ConvertRecipe:
    """From a model to the same in another format.

    Args:
        model: a model folder, a run folder, a checkpoint, an .arpa, .arpa.gz or .gguf file, or a .bin of llama2.c.
        out: where to write it: a name that ends in .arpa, .arpa.gz or .gguf, or a folder.
        to: arpa, gguf, hf for a model folder, or onnx for a folder that onnxruntime reads; as the name of OUT says when
            not given.
        dtype: how the numbers of a folder (f32, f16, bf16) or a GGUF file (f32, f16, q8_0) are written.
        check: ask transformers whether it gives the same ids, chat template and logits.
        overwrite: replace what is there.
    """

    model: str = positional_setting("MODEL")
    out: str = positional_setting("OUT")
    to: Literal["arpa", "gguf", "hf", "onnx"] | None = None
    dtype: NumberFormat | None = None
    check: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class PlanRecipe:
    """What a model would take, before anything is spent.

    Args:
        model: the preset; its config's fields are set as --model.width, --model.layers and so on.
        parameters: about how large the model shall be; the preset gives the wiring.
        devices: processors the model and its training are spread over.
        batch_size: rows on each device at a time.
        context: tokens in each row and in the cache; the model's own when not given.
        tokens: tokens to train on; 20 for each parameter (Hoffmann et al. 2022) when not given.
        utilization: share of a processor's peak that training reaches; 0.3 to 0.5 is usual.
        price: what one device costs for an hour, in dollars; no cost is reckoned when not given.
        measure: whether this machine is measured as well; takes a second.
    """

    model: ModelChoice = field(default_factory=ModelChoice, metadata={"positional": "PRESET"})
    parameters: int | None = None
    devices: int = 1
    batch_size: int = 1
    context: int | None = None
    tokens: int | None = None
    utilization: float = 0.4
    price: float | None = None
    measure: bool = True

    def __post_init__(self) -> None:
        for name in ("parameters", "devices", "batch_size", "context", "tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadSetting(f"{name} is {value}; it must be at least 1")
        if not 0 < self.utilization <= 1:
            raise BadSetting(f"utilization is {self.utilization}; it must be above 0 and at most 1")
        if self.price is not None and self.price < 0:
            raise BadSetting(f"price is {self.price}; it must be at least 0")


@dataclass(frozen=True, kw_only=True)
class DoctorRecipe:
    """What this machine can do.

    Args:
        measure: whether matrix products are timed; takes two seconds.
    """

    measure: bool = True


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """What a text holds.

    Args:
        text: files, folders or globs of txt, jsonl and parquet, or a corpus.
        tokenizer: characters, bytes, words, bpe:8192, or a folder that has one; tokens are counted when given.
        show: documents whose beginning is shown.
        data: how files become documents.
    """

    text: tuple[str, ...] = positional_setting("TEXT", ())
    tokenizer: str | None = None
    show: int = 3
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        if not self.text:
            raise BadSetting("TEXT is missing; name a file, a folder or a corpus")
        if self.show < 0:
            raise BadSetting(f"show is {self.show}; it must be at least 0")


@dataclass(frozen=True, kw_only=True)
class QuickstartRecipe:
    """From nothing to a model that writes, on a text that is at hand.

    Args:
        minutes: how long to train.
        out: the run folder.
        seed: decides the weights at birth and what is written.
    """

    minutes: float = 3.0
    out: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise BadSetting(f"minutes is {self.minutes:g}; it must be above 0")


def build_train_recipe(given: Mapping[str, Any], *more: Mapping[str, Any]) -> TrainRecipe:
    """The recipe with what its preset brings along and what is given, nested or dotted; later layers win.

    Raises UnknownName for a key that does not exist, BadSetting for a value that cannot be.

    >>> build_train_recipe({"model": "nanogpt-char", "training": {"batch_size": 4}}).training
    TrainingSettings(batch_size=4, ...)
    """
    said = merge_layers(TrainRecipe, given, *more)
    if said.get("init") is None:
        usual = PRESET_TRAINING_SETTINGS.get(str(said.get("model", ModelChoice().name)), {})
    else:
        usual = FINE_TUNING if str(said.get("lora.rank", 0)) == "0" else LORA_FINE_TUNING
    return build_settings(TrainRecipe, merge_layers(TrainRecipe, usual, said))


LENGTH_SETTINGS = ("minutes", "cpu_seconds", "steps")
"""Ways to say how long: a layer that says one takes back what the layers before it said of the others."""


def merge_layers(recipe: type[Any], *layers: Mapping[str, Any]) -> dict[str, Any]:
    """Values of several layers under their dotted keys, the later winning."""
    said: dict[str, Any] = {}
    for layer in layers:
        new = flatten_keys(recipe, layer)
        if any(new.get(key) is not None for key in LENGTH_SETTINGS):
            said = {key: value for key, value in said.items() if key not in LENGTH_SETTINGS}
        said |= new
    return said
