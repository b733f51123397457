"""Plan: parameters, memory, arithmetic, time and cost of a model, before anything is spent.

The model is built on torch's meta device, where nothing is allocated, and its numbers are sorted by their names
(`parts`); memory and arithmetic follow from the parts (`costs`), time from what processors do at most (`hardware`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from clearstory.errors import CannotDo
from clearstory.models.transformer.config import TransformerConfig
from clearstory.models.ngram.config import NGramConfig
from clearstory.models.recurrent.config import RecurrentConfig
from clearstory.recipes.planning.costs import activation_numbers, cache_numbers, flops_by_group, flops_per_token, memory_breakdown
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.planning.hardware import HARDWARE, HardwareSpec
from clearstory.recipes.planning.parameter_groups import ParameterGroup, FormulaTerm, list_parameter_groups, parameter_formula
from clearstory.recipes.settings.tools import PlanRecipe

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022, table 3: the ratio at which a training budget is best spent."""

DEFAULT_CONTEXT = 256
"""Tokens at a time for a model that has no end of its own, as training takes them where nothing is said."""

BANDED_NOTE = (
    "GPT-3's layers alternate between dense and locally banded sparse attention (Brown et al. 2020, section 2.1); here "
    "every layer attends to all, which changes no parameter, and the sheet's attention is that of dense layers"
)

ENCODER_DECODER_NOTE = (
    "arithmetic is that of one token of the source and one of the answer together, each with as many around it as the "
    "context holds; a token of either kind meets its own stack only"
)

PRESET_NOTES = dict.fromkeys(
    (
        *("gpt3-small", "gpt3-medium", "gpt3-large", "gpt3-xl"),
        *("gpt3-2.7b", "gpt3-6.7b", "gpt3-13b", "gpt3-175b"),
    ),
    BANDED_NOTE,
)
"""What is to be known of a preset's numbers."""


LAYER_GROUPS = ("attention", "feed-forward", "cells")
"""Groups whose parts stand in layers."""


@dataclass(frozen=True)
class TrainingEstimate:
    """Training on one kind of processor: time, energy, price, and whether it fits in memory."""

    processor: HardwareSpec
    devices: int
    seconds: float
    kilowatt_hours: float | None
    dollars: float | None
    fits: bool


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """What a model would take.

    Memory is in bytes, for the whole model; `training_bytes_per_device` is one device's share. FLOPs are per token. A family
    that is not reckoned with has parts and weights, and a note that says why nothing else.
    """

    model: str
    config: Any
    recipe: PlanRecipe
    parts: tuple[ParameterGroup, ...]
    parameters: int
    context: int
    tokens: int
    notes: tuple[str, ...]
    memory: dict[str, int]
    terms: tuple[FormulaTerm, ...] = ()
    formulas: dict[str, str] = field(default_factory=dict)
    training_bytes_per_device: int | None = None
    flops: dict[str, int] = field(default_factory=dict)
    flops_by_group: dict[str, int] = field(default_factory=dict)
    total_flops: float | None = None
    runs: tuple[TrainingEstimate, ...] = ()

    @property
    def parameters_per_layer(self) -> int | None:
        """Parameters of each layer, where there are several and all are alike."""
        layers = getattr(self.config, "layers", 1)
        if layers == 1 or any(part.layers != layers for part in self.parameter_groups if part.group in LAYER_GROUPS):
            return None
        return sum(part.parameters_per_layer for part in self.parameter_groups if part.layers == layers)

    def as_dict(self) -> dict[str, Any]:
        """The plan for JSON."""
        return {
            "model": self.model,
            "config": asdict(self.config),
            "parameters": self.parameters,
            "parameters_per_layer": self.parameters_per_layer,
            "parts": [
                {**asdict(part), "per_layer": part.parameters_per_layer, "parameters": part.parameters} for part in self.parameter_groups
            ],
            "formula": [asdict(term) for term in self.formula_terms],
            "context": self.context,
            "memory_bytes": self.memory,
            "memory_formulas": self.memory_formulas,
            "training_bytes_per_device": self.training_bytes_per_device,
            "flops_per_token": self.flops_per_token,
            "flops_per_token_by_part": self.flops_by_group,
            "tokens": self.tokens,
            "training_flops": self.total_flops,
            "devices": self.recipe.devices,
            "utilization": self.recipe.utilization,
            "runs": [asdict(run) for run in self.estimates],
            "notes": list(self.notes),
        }


def plan(model: str | PlanRecipe = "clear", **settings: Any) -> ModelPlan:
    """What a model would take: its parts, memory, arithmetic and time.

    `settings` are the fields of PlanRecipe, dotted or nested. Raises UnknownName for a preset that does not exist,
    CannotDo for an n-gram model, whose text decides how large it is.

    >>> plan("gpt3-175b", measure=False).parameters
    174604259328
    """
    recipe = model if isinstance(model, PlanRecipe) else build_settings(PlanRecipe, {"model": model, **settings})
    from clearstory.models.families import preset

    config = recipe.model.config(vocab=preset(recipe.model.name).vocab, parameters=recipe.parameters)
    if isinstance(config, NGramConfig):
        raise CannotDo(
            f"how large {recipe.model.name} becomes follows from its text, with a row for each different n-gram in it; "
            "train one and it says: clearstory train TEXT --model ngram"
        )
    parts, notes = list_parameter_groups(config), (PRESET_NOTES[recipe.model.name],) if recipe.model.name in PRESET_NOTES else ()
    total = sum(part.parameters for part in parts)
    context = recipe.context or getattr(config, "context", None) or DEFAULT_CONTEXT
    known: dict[str, Any] = {
        "model": recipe.model.name,
        "config": config,
        "recipe": recipe,
        "parts": parts,
        "parameters": total,
        "context": context,
        "tokens": recipe.tokens or TOKENS_PER_PARAMETER * total,
    }
    if getattr(config, "architecture", None) == "encoder-decoder":
        notes = (*notes, ENCODER_DECODER_NOTE)
    if not isinstance(config, TransformerConfig | RecurrentConfig):
        note = f"what learning takes is not reckoned for this family ({config.family}); a short training measures it"
        return ModelPlan(**known, notes=(*notes, note), memory={"weights_fp32": 4 * total})
    memory = memory_breakdown(parts, config, recipe.batch_size, context)
    shared = memory["weights_fp32"] + memory["gradients_fp32"] + memory["adamw_fp32"]
    per_device = -(-shared // recipe.devices) + memory["activations_bf16"]
    flops = flops_per_token(parts, config, context)
    work = float(flops["training"]) * known["tokens"]
    runs = [estimate_training(each, work, per_device, recipe, recipe.devices, recipe.price) for each in HARDWARE]
    if recipe.measure:
        alone = shared + memory["activations_bf16"]
        runs += [estimate_training(each, work, alone, recipe, 1, None) for each in (*this_gpu(), this_machine())]
    return ModelPlan(
        **known,
        notes=notes,
        memory=memory,
        terms=parameter_formula(config),
        formulas={
            "activations": activation_numbers(parts, config, context)[1],
            "cache": cache_numbers(parts, config, context)[1],
        },
        training_bytes_per_device=per_device,
        flops=flops,
        flops_by_group=flops_by_group(parts, config, context),
        total_flops=work,
        runs=tuple(runs),
    )


def this_machine() -> HardwareSpec:
    """This machine's processor, measured."""
    import torch

    from clearstory.models.device import bf16_is_fast, matmul_gflops
    from clearstory.recipes.doctor import memory_bytes

    dtype = torch.bfloat16 if bf16_is_fast() else torch.float32
    return HardwareSpec(
        name="this machine's CPU",
        flops=matmul_gflops(dtype, size=1024, seconds=0.3) * 1e9,
        memory=memory_bytes() or 0,
        watts=None,
        source=f"measured just now: matrix products in {str(dtype).removeprefix('torch.')}",
        precision="bf16" if dtype is torch.bfloat16 else "fp32",
    )


def this_gpu() -> tuple[HardwareSpec, ...]:
    """This machine's GPU, measured, if there is one."""
    import torch

    from clearstory.models.device import GPU_MATRIX_SIZE, matmul_gflops

    if not torch.cuda.is_available():
        return ()
    precision = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return (
        HardwareSpec(
            name="this machine's GPU",
            flops=matmul_gflops(dtype, GPU_MATRIX_SIZE, seconds=0.3, device="cuda") * 1e9,
            memory=torch.cuda.mem_get_info(0)[1],
            watts=None,
            source=f"{torch.cuda.get_device_name(0)}, measured just now: matrix products in {precision}",
            precision=precision,
        ),
    )


def estimate_training(
    processor: HardwareSpec, work: float, per_device: int, recipe: PlanRecipe, devices: int, price: float | None
) -> TrainingEstimate:
    """Time, energy and price of so much work."""
    seconds = work / (processor.peak_flops * recipe.utilization * devices)
    hours = seconds / 3600 * devices
    return TrainingEstimate(
        processor=processor,
        devices=devices,
        seconds=seconds,
        kilowatt_hours=None if processor.watts is None else hours * processor.watts / 1000,
        dollars=None if price is None else hours * price,
        fits=per_device <= processor.memory,
    )
