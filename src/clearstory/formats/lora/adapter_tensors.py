"""Tensors of an adapter: LoRA of linear layers and other weights, checked against the base model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.finite import finite_check
from clearstory.formats.hf.safetensors_io import FLOATS, StoredTensor, read_safetensors_header
from clearstory.formats.lora.adapter_config import CONFIG, AdapterConfig
from clearstory.formats.lora.adapter_heads import HF_HEADS
from clearstory.formats.lora.fused_layers import FusedLinear, LoRAMatrices
from clearstory.formats.lora.whole_weights import WholeWeights

FILE = "adapter_model.safetensors"

PREFIX = "base_model.model."
"""peft's prefix of every tensor name."""

MATRICES = ("lora_A", "lora_B")

EMBEDDING_MATRICES = ("lora_embedding_A", "lora_embedding_B")

MAGNITUDE = "lora_magnitude_vector"


def read_matrices(
    folder: Path, config: AdapterConfig, linears: Mapping[str, FusedLinear], base_config: Any
) -> tuple[dict[str, LoRAMatrices], WholeWeights]:
    """A and B of each linear layer by its name in transformers, and all other changes; every name and shape of linear
    layers is checked before data is read.
    """
    stored: dict[str, dict[str, StoredTensor]] = {}
    others: dict[str, dict[str, StoredTensor]] = {}
    whole = WholeWeights()
    for name, tensor in read_safetensors_header(folder / FILE).items():
        layer, dot, matrix = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        # Adapters of a model without its head lack the prefix of the class with the head.
        if layer not in linears:
            layer = next((full for full in linears if full.partition(".")[2] == layer), layer)
        if tensor.dtype not in FLOATS:
            raise BadInput(f"{name} is stored as {tensor.dtype}; supported: {', '.join(FLOATS)}")
        if dot and matrix in MATRICES and layer in linears:
            stored.setdefault(layer, {})[matrix] = tensor
        elif matrix in MATRICES + EMBEDDING_MATRICES + (MAGNITUDE,):
            others.setdefault(layer, {})[matrix] = tensor
        else:
            whole.replaced[name.removeprefix(PREFIX).replace(".base_layer.", ".")] = tensor.read()
    read_others(folder, config, others, linears, whole)
    matrices = {}
    check = finite_check(folder / FILE, base_config)
    for layer, tensors in stored.items():
        rank, linear = config.rank(layer), linears[layer]
        shapes = {"lora_A": (rank, linear.in_features), "lora_B": (sum(linear.out_features), rank)}
        for matrix, shape in shapes.items():
            if matrix not in tensors:
                raise CorruptFile(f"{folder / FILE} holds {layer} without its {matrix}; copy the folder again")
            if tensors[matrix].shape != shape:
                raise CorruptFile(
                    f"{CONFIG} and the base model require {matrix} of {layer} with shape {list(shape)}, and "
                    f"{FILE} holds "
                    f"{list(tensors[matrix].shape)}; they belong to different models"
                )
        a, b = (check(f"{layer}.{matrix}", tensors[matrix].read()) for matrix in MATRICES)
        matrices[layer] = LoRAMatrices(a, b, config.alpha(layer))
    for name, weight in whole.replaced.items():
        check(name, weight)
    check_complete(folder, config, matrices, whole)
    return matrices, whole


def check_complete(
    folder: Path, config: AdapterConfig, matrices: Mapping[str, LoRAMatrices], whole: WholeWeights
) -> None:
    """Raise CorruptFile if the config does not match the weights of an adapter."""
    lacking = [layer for layer in matrices if layer not in whole.magnitudes]
    if config.dora and lacking:
        raise CorruptFile(
            f"{CONFIG} has use_dora, and {folder / FILE} lacks {MAGNITUDE} of {lacking[0]}; copy it again"
        )
    if whole.magnitudes and not config.dora:
        raise CorruptFile(
            f"{folder / FILE} holds {MAGNITUDE} of {next(iter(whole.magnitudes))}, and {CONFIG} does not have use_dora"
        )
    for module in config.saved:
        # Of classifier and score, both of which peft names, a model has one.
        others = HF_HEADS if module in HF_HEADS else (module,)
        if not any(f"{name}." in stored for stored in whole.replaced for name in others):
            raise CorruptFile(f"{CONFIG} saves {module}, and {folder / FILE} holds no weights of it; copy it again")


def read_others(
    folder: Path,
    config: AdapterConfig,
    others: Mapping[str, Mapping[str, StoredTensor]],
    linears: Mapping[str, FusedLinear],
    whole: WholeWeights,
) -> None:
    """Add LoRA of the output layer and of embeddings, and DoRA's magnitudes, to the changes of an adapter."""
    for layer, tensors in others.items():
        if MAGNITUDE in tensors and layer in linears:
            whole.magnitudes[layer] = tensors[MAGNITUDE].read()
            continue
        names = next((pair for pair in (MATRICES, EMBEDDING_MATRICES) if tensors.keys() == set(pair)), None)
        if names is None or any(len(each.shape) != 2 for each in tensors.values()):
            raise BadInput(
                f"{folder / FILE} holds {', '.join(sorted(tensors))} of {layer}, which is not a linear layer of the "
                f"base model {config.base}; supported: LoRA and DoRA of linear layers, LoRA of output layers and "
                "embeddings"
            )
        a, b = (tensors[name].read() for name in names)
        if a.shape[0] != b.shape[1]:
            raise CorruptFile(
                f"{folder / FILE} holds matrices of {layer} of shapes {list(a.shape)} and {list(b.shape)}"
            )
        target = whole.matrices if names == MATRICES else whole.embeddings
        target[layer] = LoRAMatrices(a, b, config.alpha(layer))
