"""Plan: parameters, memory, arithmetic, time and cost of a model, before anything is spent.

Every number is counted on paper, and the number of parameters is counted a second time on the model itself, built on
torch's meta device where nothing is allocated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from clearstory.errors import CannotDo
from clearstory.models.config import TransformerConfig
from clearstory.recipes.fields import build
from clearstory.recipes.hardware import PROCESSORS, Processor
from clearstory.recipes.settings import PlanRecipe

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022, table 3: the ratio at which a training budget is best spent."""


@dataclass(frozen=True)
class Part:
    """One kind of matrix or vector: how large one is, how many there are in a layer, and in how many layers."""

    name: str
    shape: tuple[int, ...]
    each: int
    layers: int

    @property
    def parameters(self) -> int:
        """Numbers learnt in all of them."""
        size = 1
        for side in self.shape:
            size *= side
        return size * self.each * self.layers


@dataclass(frozen=True)
class Run:
    """Training on one kind of processor: time, energy, price, and whether it fits in memory."""

    processor: Processor
    devices: int
    seconds: float
    kilowatt_hours: float | None
    dollars: float | None
    fits: bool


@dataclass(frozen=True)
class Plan:
    """What a model would take.

    Memory is in bytes, for the whole model; `training_per_device` is one device's share. FLOPs are per token.
    """

    model: str
    config: TransformerConfig
    parts: tuple[Part, ...]
    parameters: int
    memory: dict[str, int]
    training_per_device: int
    flops: dict[str, int]
    tokens: int
    training_flops: float
    runs: tuple[Run, ...]
    recipe: PlanRecipe

    def as_dict(self) -> dict[str, Any]:
        """The plan for JSON."""
        return {
            "model": self.model,
            "config": asdict(self.config),
            "parameters": self.parameters,
            "parts": [{**asdict(part), "parameters": part.parameters} for part in self.parts],
            "memory_bytes": self.memory,
            "training_bytes_per_device": self.training_per_device,
            "flops_per_token": self.flops,
            "tokens": self.tokens,
            "training_flops": self.training_flops,
            "devices": self.recipe.devices,
            "utilization": self.recipe.utilization,
            "runs": [asdict(run) for run in self.runs],
        }


def plan(model: str | PlanRecipe = "clear", **settings: Any) -> Plan:
    """What a model would take: its parts, memory, arithmetic and time.

    `settings` are the fields of PlanRecipe, dotted or nested. Raises UnknownName for a preset that does not exist.

    >>> plan("gpt3-175b", measure=False).parameters
    174604259328
    """
    recipe = model if isinstance(model, PlanRecipe) else build(PlanRecipe, {"model": model, **settings})
    from clearstory.models.presets import preset

    if not isinstance(preset(recipe.model.name), TransformerConfig):
        raise CannotDo(
            f"plan reckons with Transformers, and {recipe.model.name} is a model of the family {recipe.model.family}; "
            "its training says how large it is and how long it takes"
        )
    config = recipe.model.config(vocab=preset(recipe.model.name).vocab, parameters=recipe.parameters)
    parts = parts_of(config)
    total = sum(part.parameters for part in parts)
    counted = count_on_meta(config)
    assert counted == total, f"the built model has {counted:,} parameters, on paper it has {total:,}"
    memory = memory_of(config, total, recipe.batch_size)
    shared = memory["weights_fp32"] + memory["gradients_fp32"] + memory["adamw_fp32"]
    per_device = -(-shared // recipe.devices) + memory["activations_bf16"]
    flops = flops_of(config, total)
    tokens = recipe.tokens or TOKENS_PER_PARAMETER * total
    work = float(flops["training"]) * tokens
    runs = [run_on(processor, work, per_device, recipe, recipe.devices) for processor in PROCESSORS]
    if recipe.measure:
        alone = shared + memory["activations_bf16"]
        runs += [run_on(processor, work, alone, recipe, 1) for processor in (*this_gpu(), this_machine())]
    return Plan(recipe.model.name, config, parts, total, memory, per_device, flops, tokens, work, tuple(runs), recipe)


def parts_of(config: TransformerConfig) -> tuple[Part, ...]:
    """Every matrix and vector of a model, head by head.

    >>> from clearstory.models.presets import GPT2
    >>> parts_of(GPT2)[2]
    Part(name='query', shape=(768, 64), each=12, layers=12)
    """
    c = config
    gate = [Part("feed-forward gate", (c.width, c.hidden), 1, c.layers)] if c.gated else []
    parts = [
        Part("embedding", (c.vocab, c.width), 1, 1),
        *([Part("positions", (c.context, c.width), 1, 1)] if c.positions == "learned" else []),
        Part("query", (c.width, c.head_width), c.heads, c.layers),
        Part("key", (c.width, c.head_width), c.kv_heads, c.layers),
        Part("value", (c.width, c.head_width), c.kv_heads, c.layers),
        Part("attention output", (c.head_width, c.width), c.heads, c.layers),
        *gate,
        Part("feed-forward up", (c.width, c.hidden), 1, c.layers),
        Part("feed-forward down", (c.hidden, c.width), 1, c.layers),
    ]
    if c.bias:
        parts += [
            Part("query, key, value biases", (c.head_width,), c.heads + 2 * c.kv_heads, c.layers),
            Part("attention output bias", (c.width,), 1, c.layers),
            Part("feed-forward up biases", (c.hidden,), 2 if c.gated else 1, c.layers),
            Part("feed-forward down bias", (c.width,), 1, c.layers),
        ]
    vectors = 2 if c.norm == "layer" and c.bias else 1  # a scale, and with it a shift
    if c.qk_norm:
        parts.append(Part("query and key norms", (c.head_width,), 2, c.layers))
    parts += [Part("norms in blocks", (c.width,), 2 * vectors, c.layers), Part("last norm", (c.width,), vectors, 1)]
    if c.recall:
        orders = len(c.recall)
        parts += [
            Part("recall rows", (c.recall_rows, c.vocab), orders, 1),
            Part("recall trust", (c.width + 1,), orders, 1),
            Part("recall into the stream", (c.vocab, c.width), orders, 1),
        ]
    if not c.tied:
        parts.append(Part("unembedding", (c.width, c.vocab), 1, 1))
    return tuple(parts)


def count_on_meta(config: TransformerConfig) -> int:
    """The parameters of the model itself, built without memory."""
    from clearstory.models.families import build as build_model

    return sum(parameter.numel() for parameter in build_model(config, device="meta").parameters())


def memory_of(config: TransformerConfig, parameters: int, rows: int) -> dict[str, int]:
    """Bytes of the weights, what training adds to them, and what generating keeps.

    Activations are what the backward pass needs of each token, with fused attention (whose weights are computed
    again) and without recomputing anything else; compare Korthikanti et al. 2022, section 4.
    """
    c = config
    queries, keys = c.heads * c.head_width, 2 * c.kv_heads * c.head_width
    # Twice the stream and its norm; queries and what they found; keys and values; the feed-forward layer's insides.
    per_layer = 4 * c.width + 2 * queries + keys + c.hidden * (4 if c.gated else 2)
    numbers = rows * c.context * (c.layers * per_layer + 2 * c.width)
    kept = c.context if c.window is None else min(c.context, c.window)
    return {
        "weights_fp32": 4 * parameters,
        "weights_bf16": 2 * parameters,
        "gradients_fp32": 4 * parameters,
        "adamw_fp32": 8 * parameters,
        "activations_fp32": 4 * numbers,
        "activations_bf16": 2 * numbers,
        "cache_bf16": 2 * rows * kept * c.layers * keys,
    }


def flops_of(config: TransformerConfig, parameters: int) -> dict[str, int]:
    """Floating-point operations for each token: two for each weight it meets, and attention over a full context.

    The backward pass takes twice the forward pass. Kaplan et al. 2020, table 1; Chowdhery et al. 2022, appendix B.
    """
    c = config
    looked_up = c.context * c.width if c.positions == "learned" else 0
    if not c.tied:
        looked_up += c.vocab * c.width
    seen = c.context if c.window is None else min(c.context, c.window)
    weights = 2 * (parameters - looked_up)
    attention = 4 * c.layers * c.heads * c.head_width * seen
    forward = weights + attention
    return {"weights": weights, "attention": attention, "forward": forward, "training": 3 * forward}


def this_machine() -> Processor:
    """This machine's processor, measured."""
    import torch

    from clearstory.models.machine import bf16_is_fast, matmul_gflops
    from clearstory.recipes.doctor import memory_bytes

    dtype = torch.bfloat16 if bf16_is_fast() else torch.float32
    return Processor(
        name="this machine's CPU",
        flops=matmul_gflops(dtype, size=1024, seconds=0.3) * 1e9,
        memory=memory_bytes() or 0,
        watts=None,
        source=f"measured just now: matrix products in {str(dtype).removeprefix('torch.')}",
        precision="bf16" if dtype is torch.bfloat16 else "fp32",
    )


def this_gpu() -> tuple[Processor, ...]:
    """This machine's GPU, measured, if there is one."""
    import torch

    from clearstory.models.machine import GPU_SIZE, matmul_gflops

    if not torch.cuda.is_available():
        return ()
    precision = "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return (
        Processor(
            name="this machine's GPU",
            flops=matmul_gflops(dtype, GPU_SIZE, seconds=0.3, device="cuda") * 1e9,
            memory=torch.cuda.mem_get_info(0)[1],
            watts=None,
            source=f"{torch.cuda.get_device_name(0)}, measured just now: matrix products in {precision}",
            precision=precision,
        ),
    )


def run_on(processor: Processor, work: float, per_device: int, recipe: PlanRecipe, devices: int) -> Run:
    """Time, energy and price of so much work."""
    seconds = work / (processor.flops * recipe.utilization * devices)
    hours = seconds / 3600 * devices
    return Run(
        processor=processor,
        devices=devices,
        seconds=seconds,
        kilowatt_hours=None if processor.watts is None else hours * processor.watts / 1000,
        dollars=None if recipe.price is None or processor.watts is None else hours * recipe.price,
        fits=per_device <= processor.memory,
    )
