"""Settings of convert, plan, models, doctor, data and completion. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clearstory.errors import BadSetting
from clearstory.recipes.settings.model_choice import ModelChoice
from clearstory.recipes.settings.schema import positional_setting
from clearstory.text.settings import DataSettings

NumberFormat = Literal["f32", "f16", "bf16", "q8_0"]
"""Number formats of the weights in a file."""


@dataclass(frozen=True, kw_only=True)
class ConvertRecipe:
    """Convert a model to another format.

    Args:
        model: a model folder, a run folder, a checkpoint, an .arpa, .arpa.gz or .gguf file, or a .bin of llama2.c or
            Marian.
        out: output file ending in .arpa, .arpa.gz or .gguf, or output folder.
        to: output format: arpa, gguf, hf (a model folder of transformers) or onnx (a folder for onnxruntime); default:
            inferred from the name of OUT.
        dtype: number format of the weights, in a folder (f32, f16, bf16) or a GGUF file (f32, f16, q8_0).
        check: compare token ids, chat template and logits with those of transformers.
        overwrite: replace an existing output.
    """

    model: str = positional_setting("MODEL")
    out: str = positional_setting("OUT")
    to: Literal["arpa", "gguf", "hf", "onnx"] | None = None
    dtype: NumberFormat | None = None
    check: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class PlanRecipe:
    """Estimate parameters, memory, compute, time and cost of a model.

    Args:
        model: model preset; the fields of its config are set with --model.width, --model.layers and so on.
        parameters: approximate number of parameters; the preset's architecture is scaled to it.
        devices: number of devices for distributed training.
        batch_size: sequences per device and step.
        context: tokens in each sequence and in the key-value cache; default: the model's context.
        tokens: training tokens; default: 20 per parameter (Hoffmann et al. 2022).
        utilization: model FLOPs utilization (MFU), the fraction of peak FLOP/s that training reaches; 0.3 to 0.5 is
            usual.
        price: price of one device per hour in dollars; default: no cost is computed.
        measure: also measure the speed of this machine, which takes a second.
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
    """Report what this machine can train, and what is missing.

    Args:
        measure: measure the speed of matrix products, which takes two seconds, and store it in the cache folder, where
            auto settings read it.
    """

    measure: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelsRecipe:
    """List the presets of models. There are no settings."""


@dataclass(frozen=True, kw_only=True)
class CompletionRecipe:
    """Print a completion script for a shell.

    Args:
        shell: shell that the script is for: bash, zsh or fish.
    """

    shell: Literal["bash", "zsh", "fish"] = positional_setting("SHELL")


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Count the documents, bytes and tokens of a text.

    Args:
        text: text files, folders or globs (txt, jsonl, parquet, csv, html and others), or a built-in corpus; - for
            standard input.
        tokenizer: tokenizer with which tokens are counted: characters, bytes, words, wordpunct, bpe:8192, or a folder
            with a tokenizer; default: tokens are not counted.
        show: number of documents whose beginning is shown.
    """

    text: tuple[str, ...] = positional_setting("TEXT", ())
    tokenizer: str | None = None
    show: int = 3
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self) -> None:
        if not self.text:
            raise BadSetting("TEXT is missing; give a file, a folder or a corpus")
        if self.show < 0:
            raise BadSetting(f"show is {self.show}; it must be at least 0")
