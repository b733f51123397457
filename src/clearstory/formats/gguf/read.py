"""Read a GGUF file: the model and its tokenizer, with every name and shape checked before data is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.finite import finite_check
from clearstory.formats.generation_json import gguf_generation_config
from clearstory.formats.gguf.architectures import ROPE_FACTORS, GGUFArchitecture, detect_architecture, prefix_errors
from clearstory.formats.gguf.checksum import verify_checksum
from clearstory.formats.gguf.header import GGUFHeader
from clearstory.formats.gguf.quantization import BLOCK_FORMATS, block_scales
from clearstory.formats.gguf.tokenizer import read_gguf_tokenizer
from clearstory.formats.no_init import (
    MAX_ROTARY_ANGLES,
    build_empty,
    build_with_weights,
    empty_state_dict,
    load_weights,
)
from clearstory.models.generation_config import GenerationConfig
from clearstory.models.matmul.block_linear import BlockFormat, BlockQuantizedLinear
from clearstory.models.transformer.config import TransformerConfig
from clearstory.text.tokenizers import Tokenizer

LONGROPE_TENSORS = ("rope_factors_long.weight", "rope_factors_short.weight")
"""Phi-3's longrope: different frequency divisors for short and for long contexts."""


@dataclass(frozen=True)
class GGUFModel:
    """The contents of a GGUF file."""

    model: nn.Module
    tokenizer: Tokenizer | None
    name: str
    generation_config: GenerationConfig

    @property
    def parameters_in_blocks(self) -> int:
        """Number of weights that are stored in blocks and are therefore not parameters of the module."""
        in_blocks = (each for each in self.model.modules() if isinstance(each, BlockQuantizedLinear))
        return sum(each.in_features * each.out_features for each in in_blocks)


def is_gguf(path: Path) -> bool:
    """Whether a file's name ends in .gguf."""
    return path.name.endswith(".gguf")


def read_gguf(path: Path, cast: Callable[[Tensor], Tensor], *, keep_blocks: bool = False) -> GGUFModel:
    """The model of a file. `cast` is applied to every weight when it is read.

    `keep_blocks`: the linear layers of blocks in one of `BLOCK_FORMATS` are BlockQuantizedLinear, whose weights stay in
    the file's memory map: for `inference_model`.

    Raises BadInput, UnknownName and CorruptFile, with the file's name in the message.
    """
    header = GGUFHeader.read(path)
    verified = verify_checksum(path, header.metadata)
    config, architecture = read_gguf_config(header)
    weight_map = architecture.weight_map(config)
    expected = dict(weight_map.from_native(empty_state_dict(config)))
    zeros = absent_biases(header, expected) if architecture.optional_biases else {}
    check_tensors(header, {name: each for name, each in expected.items() if name not in zeros})
    check = finite_check(path, config, skip=verified)

    def in_blocks(name: str) -> bool:
        return keep_blocks and name not in zeros and stays_in_blocks(header, name)

    def read(name: str) -> Tensor:
        if name in zeros:
            return cast(zeros[name])
        if not in_blocks(name):
            return check(name, cast(header.tensor(name)))
        check(name, block_scales(header.raw(name), header.tensors[name].type))
        return header.raw(name).view(header.tensors[name].shape[0], -1)

    # Formats one after another: a weight of ours has the format of that of the file.
    weights, formats = dict[str, Tensor](), dict[str, BlockFormat]()
    by_format = {name: header.tensors[name].type.name for name in expected if in_blocks(name)}
    for format in (None, *sorted(set(by_format.values()))):
        found = {name: read(name) for name in expected if by_format.get(name) == format}
        native = dict(weight_map.to_native(found))
        weights |= native
        formats |= {} if format is None else dict.fromkeys(native, BLOCK_FORMATS[format])
    model = build_with_blocks(config, weights, formats)
    name = header.metadata.get("general.name")
    tokenizer = read_gguf_tokenizer(path, header.metadata)
    generation_config = gguf_generation_config(header.metadata, tokenizer)
    return GGUFModel(model, tokenizer, name if isinstance(name, str) else path.stem, generation_config)


def stays_in_blocks(header: GGUFHeader, name: str) -> bool:
    """Whether a tensor is a matrix of a layer in a format in which weights can stay in memory."""
    location = header.tensors[name]
    return name.startswith("blk.") and len(location.shape) == 2 and location.type.name in BLOCK_FORMATS


def build_with_blocks(
    config: TransformerConfig, weights: dict[str, Tensor], formats: Mapping[str, BlockFormat]
) -> nn.Module:
    """A model in evaluation mode with the given weights, of which those with a format are rows of blocks."""
    if not formats:
        return build_with_weights(config, weights)
    model = build_empty(config)
    for name, format in formats.items():
        path = name.removesuffix(".weight")
        linear = model.get_submodule(path)
        assert isinstance(linear, nn.Linear)
        made = BlockQuantizedLinear(weights[name], format, linear.in_features, weights.get(f"{path}.bias"))
        model.set_submodule(path, made)
    return load_weights(model, {name: each for name, each in weights.items() if name not in formats})


def read_gguf_config(header: GGUFHeader) -> tuple[TransformerConfig, GGUFArchitecture]:
    """The config of a file and its architecture. Sizes are checked against the file before a model is built."""
    metadata, tensors = header.metadata, header.tensors
    with prefix_errors(header.path):
        architecture = detect_architecture(metadata)
        if not tensors:
            raise BadInput("it contains a vocabulary but no weights; give a file that has both")
        if parts := metadata.get("split.count"):
            raise BadInput(f"it is one of {parts} parts; join them with llama.cpp's gguf-split first")
        if longrope := next((name for name in LONGROPE_TENSORS if name in tensors), None):
            raise BadInput(f"it scales rotary frequencies by {longrope} (longrope), which is not supported")
        shapes = {name: each.shape for name, each in tensors.items()}
        if len(shapes.get("token_embd.weight", ())) != 2:
            raise BadInput("it lacks the embedding token_embd.weight of two dimensions; copy it again")
        rope_factors = None
        if ROPE_FACTORS in tensors:
            if not architecture.has_rope_factors:
                raise BadInput(f"it holds {ROPE_FACTORS}, which the architecture {architecture.name!r} does not have")
            rope_factors = header.tensor(ROPE_FACTORS)
        config = architecture.config_to_native(metadata, shapes, rope_factors)
        if config.layers > len(tensors):
            raise BadInput(f"it has {config.layers:,} layers, and {len(tensors):,} tensors; copy it again")
        if config.positions == "rotary" and config.context * config.head_dim > MAX_ROTARY_ANGLES:
            raise BadInput(
                f"it has a context of {config.context:,} with a head dimension of {config.head_dim:,}: more than the "
                f"maximum of {MAX_ROTARY_ANGLES:,} rotary angles"
            )
    return config, architecture


def absent_biases(header: GGUFHeader, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The biases that a file lacks while other layers have some, as zeros."""
    absent = [name for name in expected if name.endswith(".bias") and name not in header.tensors]
    return {name: torch.zeros(expected[name].shape) for name in absent}


def check_tensors(header: GGUFHeader, expected: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of a file's tensors with those the config requires. Raises CorruptFile."""
    for name, tensor in expected.items():
        if name not in header.tensors:
            raise CorruptFile(f"{header.path} lacks {name} of shape {list(tensor.shape)}, which its metadata require")
        if header.tensors[name].shape != tuple(tensor.shape):
            raise CorruptFile(
                f"{header.path} holds {name} of shape {list(header.tensors[name].shape)}, and its metadata require "
                f"{list(tensor.shape)}; copy it again"
            )
    for name, location in header.tensors.items():
        if name not in expected and name != ROPE_FACTORS:
            raise CorruptFile(
                f"{header.path} holds {name[:60]} of shape {list(location.shape)}, which its architecture does not have"
            )
