"""Write a GGUF file, which llama.cpp opens. Written with the package `gguf`, one tensor at a time.

Matrices are written in the requested format; norms, biases and learned position embeddings stay in float32, as in
llama.cpp's converter. Rows that are not a multiple of 32 numbers do not fit Q8_0's blocks and are written as F16.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clearstory.durable import write_file
from clearstory.errors import BadInput, CannotDo, FolderExists, MissingExtra
from clearstory.formats.generation_json import gguf_generation_fields
from clearstory.formats.gguf.architectures import ROPE_FACTORS, GGUFArchitecture, choose_architecture
from clearstory.formats.gguf.checksum import FIELD, UNSET, write_checksum
from clearstory.formats.gguf.quantization import QUANTIZATION_TYPES, QuantizationType
from clearstory.formats.gguf.tokenizer import gguf_tokenizer_fields
from clearstory.formats.hf.load_weights import state_to_store
from clearstory.formats.no_init import build_with_weights
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.transformer.config import TransformerConfig
from clearstory.text.tokenizers import Tokenizer

DTYPE_CODES: dict[str, int] = {"f32": 0, "f16": 1, "q8_0": 8}
"""Supported formats for writing, with their codes in `QUANTIZATION_TYPES`."""

FILE_TYPES: dict[str, int] = {"f32": 0, "f16": 1, "q8_0": 7}
"""general.file_type: the format of most matrices."""

FLOAT32_TENSORS = frozenset({"position_embd.weight", ROPE_FACTORS})
"""Matrices and vectors that are always written in float32."""


@dataclass(frozen=True)
class GGUFContents:
    """Contents of a file: architecture, config, metadata and number format."""

    architecture: GGUFArchitecture
    config: TransformerConfig
    metadata: dict[str, Any]
    dtype: str

    def tensor_type(self, name: str, shape: tuple[int, ...]) -> QuantizationType:
        """The number format of one tensor."""
        if len(shape) == 1 or name in FLOAT32_TENSORS:
            return QUANTIZATION_TYPES[DTYPE_CODES["f32"]]
        requested = QUANTIZATION_TYPES[DTYPE_CODES[self.dtype]]
        return QUANTIZATION_TYPES[DTYPE_CODES["f16"]] if shape[-1] % requested.block_size else requested

    def tensors(self, state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the file under its name there."""
        factors = self.architecture.rope_factors(self.config)
        if factors is not None:
            yield ROPE_FACTORS, factors
        yield from self.architecture.weight_map(self.config).from_native(state)


def write_gguf(
    path: Path,
    model: nn.Module,
    tokenizer: Tokenizer | None,
    name: str,
    dtype: str = "f32",
    *,
    overwrite: bool = False,
    generation_config: GenerationConfig | None = None,
) -> None:
    """Write a model as one file, under a temporary name until it is complete.

    Args:
        path: the file.
        model: the model.
        tokenizer: its tokenizer, which a GGUF file requires.
        name: general.name.
        dtype: number format of matrices: f32, f16 or q8_0.
        overwrite: replace an existing file.
        generation_config: its generation config, whose end tokens and sampling defaults are written as well.

    Raises CannotDo for a model or a tokenizer that GGUF cannot represent, FolderExists unless `overwrite`, BadInput
    for a model without a tokenizer, MissingExtra if the package `gguf` is not installed.
    """
    if path.exists() and not overwrite:
        raise FolderExists(f"{path} exists already; choose another name, or pass --overwrite to replace it")
    if tokenizer is None:
        raise BadInput("this model has no tokenizer, and a GGUF file holds both; put a tokenizer into its folder")
    config, architecture = stored_config_and_architecture(model.config)
    # llama.cpp recognizes "phi3" in a model's name and then requires Phi-3's special tokens.
    name = re.sub("(?i)phi-?3", "Phi 3", name)
    general = {
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[dtype],
        "general.quantization_version": 2,
        f"{architecture.name}.vocab_size": config.vocab,
    }
    metadata = {
        **general,
        **architecture.config_from_native(config),
        **gguf_tokenizer_fields(tokenizer, config.vocab),
        **gguf_generation_fields(generation_config, tokenizer),
    }
    write_contents(path, GGUFContents(architecture, config, metadata, dtype), stored_state(model, config))


def stored_config_and_architecture(config: Any) -> tuple[TransformerConfig, GGUFArchitecture]:
    """The config as a file stores it, with its architecture: with biases (of zero) if the architecture always has
    them.
    """
    try:
        return config, choose_architecture(config)
    except CannotDo:
        if not isinstance(config, TransformerConfig) or config.bias:
            raise
        with_biases = replace(config, bias=True)
        return with_biases, choose_architecture(with_biases)


def stored_state(model: nn.Module, config: TransformerConfig) -> dict[str, Tensor]:
    """The model's state dict, with biases of zero where only the stored config has biases."""
    native: Any = model.config
    return state_to_store(model, native, {} if config.bias == native.bias else {"bias": False})


def llama_cpp_warning(model: nn.Module) -> str | None:
    """What llama.cpp ignores in a file of this model; None if nothing."""
    config, _ = stored_config_and_architecture(model.config)
    if config.sliding_window is None or config.sliding_window >= config.context:
        return None
    return (
        "llama.cpp ignores Phi-3's sliding window: its output is the same for texts of up to "
        f"{config.sliding_window:,} tokens"
    )


def write_contents(path: Path, contents: GGUFContents, state: dict[str, Tensor]) -> None:
    """Write metadata and tensors to a file."""
    try:
        from gguf import GGMLQuantizationType, GGUFWriter
    except ImportError:
        raise MissingExtra("writing GGUF needs the package gguf: pip install 'clearstory[formats]'") from None
    empty = {name: tensor.to("meta") for name, tensor in state.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in contents.tensors(empty)}
    sizes = {name: stored_bytes(shape, contents.tensor_type(name, shape)) for name, shape in shapes.items()}
    with write_file(path, need=sum(sizes.values())) as temporary:
        with closing(GGUFWriter(temporary, contents.architecture.name)) as writer:
            for key, value in {FIELD: UNSET, **contents.metadata}.items():
                add_field(writer, key, value)
            for name, shape in shapes.items():
                type = GGMLQuantizationType(contents.tensor_type(name, shape).code)
                writer.add_tensor_info(name, shape, np.dtype(np.float32), sizes[name], type)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for name, tensor in contents.tensors(state):
                writer.write_tensor_data(quantize_tensor(tensor, contents.tensor_type(name, tuple(tensor.shape))))
        write_checksum(temporary)


def stored_bytes(shape: tuple[int, ...], type: QuantizationType) -> int:
    """The size of a tensor in the file, in bytes."""
    return math.prod(shape) // type.block_size * type.block_bytes


def quantize_tensor(tensor: Tensor, type: QuantizationType) -> Any:
    """A tensor in a number format, as the numpy array that the package writes."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return np.ascontiguousarray(quantize(values, GGMLQuantizationType(type.code)))


def add_field(writer: Any, key: str, value: Any) -> None:
    """Add a metadata field with the type that readers expect."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def round_weights(model: nn.Module, dtype: str) -> nn.Module:
    """The model that a file in this number format gives when read: weights rounded, in float32."""
    config, architecture = stored_config_and_architecture(model.config)
    contents = GGUFContents(architecture, config, {}, dtype)

    def rounded(name: str, tensor: Tensor) -> Tensor:
        type = contents.tensor_type(name, tuple(tensor.shape))
        raw = torch.from_numpy(quantize_tensor(tensor, type)).view(torch.uint8).flatten()
        return type.dequantize(raw, tuple(tensor.shape))

    weight_map = architecture.weight_map(config)
    weights = {name: rounded(name, each) for name, each in weight_map.from_native(stored_state(model, config))}
    return build_with_weights(config, dict(weight_map.to_native(weights)))
