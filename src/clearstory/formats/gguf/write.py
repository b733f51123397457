"""GGUF writing: a model as one file that llama.cpp opens. Written by the package `gguf`, a tensor at a time.

Matrices are written in the kind that is asked for; norms, biases and learned places stay in float32, as llama.cpp's own
converter has it. Rows that are no multiple of 32 numbers cannot be cut into Q8_0's blocks, and become F16.
"""

from __future__ import annotations

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
from clearstory.formats.hf.load_weights import build_empty, state_to_store
from clearstory.formats.gguf.architectures import FACTORS, GGUFArchitecture, choose_architecture
from clearstory.formats.gguf.quantization import QUANTIZATION_TYPES, QuantizationType
from clearstory.formats.gguf.tokenizer import gguf_tokenizer_fields
from clearstory.models.transformer.config import TransformerConfig
from clearstory.text.tokenizers import Tokenizer

DTYPE_CODES: dict[str, int] = {"f32": 0, "f16": 1, "q8_0": 8}
FILE_TYPES: dict[str, int] = {"f32": 0, "f16": 1, "q8_0": 7}
"""general.file_type: what most of a file's matrices are."""

ALWAYS_WIDE = frozenset({"position_embd.weight", FACTORS})


@dataclass(frozen=True)
class GGUFContents:
    """What a file will hold, before it is begun."""

    architecture: GGUFArchitecture
    config: TransformerConfig
    fields: dict[str, Any]
    numbers: str

    def kind(self, name: str, shape: tuple[int, ...]) -> QuantizationType:
        """How one tensor's numbers are written."""
        if len(shape) == 1 or name in ALWAYS_WIDE:
            return QUANTIZATION_TYPES[DTYPE_CODES["f32"]]
        wanted = QUANTIZATION_TYPES[DTYPE_CODES[self.numbers]]
        return QUANTIZATION_TYPES[DTYPE_CODES["f16"]] if shape[-1] % wanted.block else wanted

    def tensors(self, state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the file by its name there."""
        factors = self.architecture.rope_factors(self.config)
        if factors is not None:
            yield FACTORS, factors
        yield from self.architecture.weight_map(self.config).from_native(state)


def write_gguf(
    path: Path,
    model: nn.Module,
    tokenizer: Tokenizer | None,
    name: str,
    numbers: str = "f32",
    *,
    overwrite: bool = False,
) -> None:
    """Write a model as one file; it takes its name when it is whole.

    Raises CannotDo for a wiring or a tokenizer that llama.cpp does not have, FolderExists unless `overwrite`,
    BadInput for a model without a tokenizer, MissingExtra where the package `gguf` is not installed.
    """
    if path.exists() and not overwrite:
        raise FolderExists(f"{path} is there already; choose another name, or pass --overwrite to replace it")
    if tokenizer is None:
        raise BadInput("this model has no tokenizer beside it, and a GGUF file holds both; put one there")
    given: Any = model.config
    config, architecture = stored_as(given)
    # llama.cpp looks for "phi3" in a model's name, and then for Phi-3's own tokens, which ours may not have.
    name = re.sub("(?i)phi-?3", "Phi 3", name)
    said = {
        "general.type": "model",
        "general.name": name,
        "general.file_type": FILE_TYPES[numbers],
        "general.quantization_version": 2,
        f"{architecture.name}.vocab_size": config.vocab,
    }
    fields = {**said, **architecture.config_from_native(config), **gguf_tokenizer_fields(tokenizer, config.vocab)}
    writing = GGUFContents(architecture, config, fields, numbers)
    state = state_to_store(model, given, {} if config.bias == given.bias else {"bias": False})
    write(path, writing, state)


def stored_as(config: Any) -> tuple[TransformerConfig, GGUFArchitecture]:
    """The config as a file has it, with its dialect: with biases of zero where the dialect always has some."""
    try:
        return config, choose_architecture(config)
    except CannotDo:
        if not isinstance(config, TransformerConfig) or config.bias:
            raise
        with_biases = replace(config, bias=True)
        return with_biases, choose_architecture(with_biases)


def llama_cpp_warning(model: Any) -> str | None:
    """What llama.cpp reads in a file of this model and does not heed; None where it heeds all."""
    config, _ = stored_as(model.config)
    if config.sliding_window is None or config.sliding_window >= config.context:
        return None
    return (
        f"llama.cpp does not heed the window of Phi-3: it gives the same numbers for texts of up to {config.sliding_window:,} "
        "tokens"
    )


def write(path: Path, writing: GGUFContents, state: dict[str, Tensor]) -> None:
    """The file itself."""
    try:
        from gguf import GGMLQuantizationType, GGUFWriter
    except ImportError:
        raise MissingExtra("writing GGUF needs the package gguf: pip install 'clearstory[formats]'") from None
    shells = {name: tensor.to("meta") for name, tensor in state.items()}
    plan = [(name, tuple(tensor.shape)) for name, tensor in writing.tensors(shells)]
    sizes = {name: size(shape, writing.kind(name, shape)) for name, shape in plan}
    with (
        write_file(path, need=sum(sizes.values())) as temporary,
        closing(GGUFWriter(temporary, writing.architecture.name)) as writer,
    ):
        for key, value in writing.fields.items():
            put(writer, key, value)
        for name, shape in plan:
            kind = GGMLQuantizationType(writing.kind(name, shape).code)
            writer.add_tensor_info(name, shape, np.dtype(np.float32), sizes[name], kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in writing.tensors(state):
            writer.write_tensor_data(as_bytes(tensor, writing.kind(name, tuple(tensor.shape))))


def size(shape: tuple[int, ...], kind: QuantizationType) -> int:
    """Bytes of one tensor."""
    count = 1
    for side in shape:
        count *= side
    return count // kind.block * kind.bytes


def as_bytes(tensor: Tensor, kind: QuantizationType) -> Any:
    """A tensor's numbers as they will lie in the file."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    numbers = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    return np.ascontiguousarray(quantize(numbers, GGMLQuantizationType(kind.code)))


def put(writer: Any, key: str, value: Any) -> None:
    """A field under the type that readers look for."""
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


def round_weights(model: nn.Module, numbers: str) -> nn.Module:
    """The model that reading a file should give: its weights rounded as `numbers` rounds them, in float32."""
    given: Any = model.config
    config, architecture = stored_as(given)
    writing = GGUFContents(architecture, config, {}, numbers)
    state = state_to_store(model, given, {} if config.bias == given.bias else {"bias": False})

    def rounded(name: str, tensor: Tensor) -> Tensor:
        kind = writing.kind(name, tuple(tensor.shape))
        raw = torch.from_numpy(as_bytes(tensor, kind)).view(torch.uint8).flatten()
        return kind.numbers(raw, tuple(tensor.shape))

    theirs = {name: rounded(name, tensor) for name, tensor in architecture.weight_map(config).from_native(state)}
    back = build_empty(config)
    back.load_state_dict(dict(architecture.weight_map(config).to_native(theirs)), assign=True)
    return back.eval()
