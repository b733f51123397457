"""Plan: estimated parameters, memory, FLOPs, training time and cost of a model.

The model is built on torch's meta device, where nothing is allocated. `parameter_groups` sorts its parameters by name,
`costs` computes memory and FLOPs from the groups, and training time follows from the peak FLOP/s of hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Unpack

from clearstory.errors import CannotDo
from clearstory.recipes.planning.costs import (
    HARDWARE,
    HardwareSpec,
    activation_numbers,
    cache_numbers,
    flops_by_group,
    flops_per_token,
    memory_breakdown,
)
from clearstory.recipes.planning.parameter_groups import (
    FormulaTerm,
    ParameterGroup,
    list_parameter_groups,
    parameter_formula,
)
from clearstory.recipes.settings.keywords import PlanKeywords
from clearstory.recipes.settings.schema import build_settings
from clearstory.recipes.settings.tools import PlanRecipe

TOKENS_PER_PARAMETER = 20
"""Compute-optimal number of training tokens per parameter: Hoffmann et al. 2022, table 3."""

DEFAULT_CONTEXT = 256
"""Tokens per sequence for models without a context limit, as in training."""

BANDED_NOTE = (
    "GPT-3's layers alternate between dense and locally banded sparse attention (Brown et al. 2020, section 2.1); here "
    "every layer is dense, which changes no parameter; the FLOPs of attention are those of dense layers"
)

ENCODER_DECODER_NOTE = (
    "FLOPs are those of one source token and one target token together, each attending to a full context; a token is "
    "processed by its own stack only"
)

PRESET_NOTES = dict.fromkeys(
    (
        *("gpt3-small", "gpt3-medium", "gpt3-large", "gpt3-xl"),
        *("gpt3-2.7b", "gpt3-6.7b", "gpt3-13b", "gpt3-175b"),
    ),
    BANDED_NOTE,
)
"""Notes on the estimates of single presets."""

LAYER_GROUPS = ("attention", "feed-forward", "cells")
"""Groups of parameters that are inside layers."""


@dataclass(frozen=True)
class TrainingEstimate:
    """Training time, energy and price on one kind of hardware, and whether training fits into its memory."""

    hardware: HardwareSpec
    devices: int
    seconds: float
    kilowatt_hours: float | None
    dollars: float | None
    fits: bool


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """Estimated cost of a model.

    Memory is in bytes for the whole model; `training_bytes_per_device` is for one device. FLOPs are per token.
    Families without a training estimate have only parameter groups, weights and a note.
    """

    model: str
    config: Any
    recipe: PlanRecipe
    parameter_groups: tuple[ParameterGroup, ...]
    parameters: int
    context: int
    tokens: int
    notes: tuple[str, ...]
    memory: dict[str, int]
    formula_terms: tuple[FormulaTerm, ...] = ()
    memory_formulas: dict[str, str] = field(default_factory=dict)
    training_bytes_per_device: int | None = None
    flops_per_token: dict[str, int] = field(default_factory=dict)
    flops_by_group: dict[str, int] = field(default_factory=dict)
    total_flops: float | None = None
    estimates: tuple[TrainingEstimate, ...] = ()

    @property
    def parameters_per_layer(self) -> int | None:
        """Parameters of each layer; None if there is one layer, or layers differ."""
        layers = max((group.layers for group in self.parameter_groups), default=1)
        if layers == 1 or any(group.layers != layers for group in self.parameter_groups if group.group in LAYER_GROUPS):
            return None
        return sum(group.parameters_per_layer for group in self.parameter_groups if group.layers == layers)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, for JSON."""
        return {
            "model": self.model,
            "config": asdict(self.config),
            "parameters": self.parameters,
            "parameters_per_layer": self.parameters_per_layer,
            "parameter_groups": [
                {**asdict(group), "parameters_per_layer": group.parameters_per_layer, "parameters": group.parameters}
                for group in self.parameter_groups
            ],
            "formula": [asdict(term) for term in self.formula_terms],
            "context": self.context,
            "memory_bytes": self.memory,
            "memory_formulas": self.memory_formulas,
            "training_bytes_per_device": self.training_bytes_per_device,
            "flops_per_token": self.flops_per_token,
            "flops_per_token_by_group": self.flops_by_group,
            "tokens": self.tokens,
            "total_flops": self.total_flops,
            "devices": self.recipe.devices,
            "utilization": self.recipe.utilization,
            "estimates": [asdict(estimate) for estimate in self.estimates],
            "notes": list(self.notes),
        }


def plan(model: str | Mapping[str, object] | PlanRecipe = "clear", **settings: Unpack[PlanKeywords]) -> ModelPlan:
    """Estimate the parameters, memory, FLOPs and training time of a model.

    `settings` are the fields of PlanRecipe, dotted or nested. Raises UnknownName for an unknown preset, CannotDo for a
    model without parameters, such as an n-gram model, whose size depends on its text.

    >>> plan("gpt3-175b", measure=False).parameters
    174604259328
    """
    recipe = model if isinstance(model, PlanRecipe) else build_settings(PlanRecipe, {"model": model, **settings})
    from clearstory.models.families import family_of, preset

    config = recipe.model.config(vocab=preset(recipe.model.name).vocab, parameters=recipe.parameters)
    name = recipe.model.name
    if config.family == "mixture":
        networks = [expert for expert in config.experts if family_of(preset(expert)).scale is not None]
        raise CannotDo(
            f"{name} is a mixture of {', '.join(config.experts)}, which share the time of one run; plan a single "
            f"network: clearstory plan {(networks or ['clear'])[0]}"
        )
    notes: tuple[str, ...] = (PRESET_NOTES[name],) if name in PRESET_NOTES else ()
    if config.architecture == "encoder-decoder":
        notes = (*notes, ENCODER_DECODER_NOTE)
    groups = list_parameter_groups(config)
    if not groups:
        raise CannotDo(
            f"{name} has no parameters, only tables whose size depends on the text; train one to see it: "
            f"clearstory train TEXT --model {name}"
        )
    parameters = sum(group.parameters for group in groups)
    size = ModelPlan(
        model=name,
        config=config,
        recipe=recipe,
        parameter_groups=groups,
        parameters=parameters,
        context=recipe.context or config.context or DEFAULT_CONTEXT,
        tokens=recipe.tokens or TOKENS_PER_PARAMETER * parameters,
        notes=notes,
        memory={"weights_fp32": 4 * parameters},
    )
    if config.family != "hmm":
        return add_training_estimates(size)
    note = f"there is no estimate of training for this family ({config.family}); a short training run measures it"
    return replace(size, notes=(*notes, note))


def add_training_estimates(size: ModelPlan) -> ModelPlan:
    """The plan of a Transformer or recurrent model with memory, FLOPs and training time."""
    recipe, config, groups, context = size.recipe, size.config, size.parameter_groups, size.context
    memory = memory_breakdown(groups, config, recipe.batch_size, context)
    shared = memory["weights_fp32"] + memory["gradients_fp32"] + memory["adamw_fp32"]
    bytes_per_device = -(-shared // recipe.devices) + memory["activations_bf16"]
    flops = flops_per_token(groups, config, context)
    total_flops = float(flops["training"]) * size.tokens
    estimates = [
        estimate_training(hardware, total_flops, bytes_per_device, recipe, recipe.devices, recipe.price)
        for hardware in HARDWARE
    ]
    if recipe.measure:
        bytes_here = shared + memory["activations_bf16"]
        here = (*measure_gpu(), measure_cpu())
        estimates += [estimate_training(hardware, total_flops, bytes_here, recipe, 1, None) for hardware in here]
    return replace(
        size,
        memory=memory,
        formula_terms=parameter_formula(config),
        memory_formulas={
            "activations": activation_numbers(groups, config, context)[1],
            "cache": cache_numbers(groups, config, context)[1],
        },
        training_bytes_per_device=bytes_per_device,
        flops_per_token=flops,
        flops_by_group=flops_by_group(groups, config, context),
        total_flops=total_flops,
        estimates=tuple(estimates),
    )


def measure_cpu() -> HardwareSpec:
    """This machine's CPU, its speed measured."""
    import torch

    from clearstory.models.device import bf16_is_fast, matmul_gflops
    from clearstory.recipes.doctor import memory_bytes

    dtype = torch.bfloat16 if bf16_is_fast() else torch.float32
    return HardwareSpec(
        name="this machine's CPU",
        peak_flops=matmul_gflops(dtype, size=1024, seconds=0.3) * 1e9,
        memory=memory_bytes() or 0,
        watts=None,
        source=f"measured: matrix products in {str(dtype).removeprefix('torch.')}",
        precision="bf16" if dtype is torch.bfloat16 else "fp32",
    )


def measure_gpu() -> tuple[HardwareSpec, ...]:
    """This machine's GPU, its speed measured; empty if there is none."""
    import torch

    from clearstory.models.device import GPU_MATRIX_SIZE, matmul_gflops

    if not torch.cuda.is_available():
        return ()
    precision = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return (
        HardwareSpec(
            name="this machine's GPU",
            peak_flops=matmul_gflops(dtype, GPU_MATRIX_SIZE, seconds=0.3, device="cuda") * 1e9,
            memory=torch.cuda.mem_get_info(0)[1],
            watts=None,
            source=f"{torch.cuda.get_device_name(0)}, measured: matrix products in {precision}",
            precision=precision,
        ),
    )


def estimate_training(
    hardware: HardwareSpec, flops: float, bytes_per_device: int, recipe: PlanRecipe, devices: int, price: float | None
) -> TrainingEstimate:
    """Time, energy and price of training that takes `flops` operations in total."""
    seconds = flops / (hardware.peak_flops * recipe.utilization * devices)
    hours = seconds / 3600 * devices
    return TrainingEstimate(
        hardware=hardware,
        devices=devices,
        seconds=seconds,
        kilowatt_hours=None if hardware.watts is None else hours * hardware.watts / 1000,
        dollars=None if price is None else hours * price,
        fits=bytes_per_device <= hardware.memory,
    )
