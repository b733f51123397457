"""GGUF reading: from a file to a model and its tokenizer, every name and shape compared before a number is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from clearstory.errors import BadInput, CorruptFile
from clearstory.formats.hf.load_weights import MAX_ROTARY_ANGLES, build_empty, empty_state_dict
from clearstory.formats.gguf.architectures import FACTORS, GGUFArchitecture, prefix_errors, which
from clearstory.formats.gguf.header import GGUFHeader
from clearstory.formats.gguf.tokenizer import read_gguf_tokenizer
from clearstory.models.transformer.config import TransformerConfig
from clearstory.text.tokenizers import Tokenizer

LONG = ("rope_factors_long.weight", "rope_factors_short.weight")
"""Phi-3's long contexts: one slowness for short texts and another for long ones."""


@dataclass(frozen=True)
class GGUFModel:
    """What a file held."""

    model: nn.Module
    tokenizer: Tokenizer | None
    name: str


def is_gguf(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.name.endswith(".gguf")


def read_gguf(path: Path, cast: Callable[[Tensor], Tensor]) -> GGUFModel:
    """The model of a file; `cast` is applied to every weight as it is read.

    Raises BadInput, UnknownName and CorruptFile in a sentence that names the file.
    """
    header = GGUFHeader.read(path)
    config, architecture = read_config(header)
    expected = dict(architecture.weight_map(config).from_native(empty_state_dict(config)))
    check_weights(header, expected)
    weights = {name: cast(header.numbers(name)) for name in expected}
    ours = dict(architecture.weight_map(config).to_native(weights))
    model = build_empty(config)
    model.load_state_dict(ours, assign=True)
    left = [name for name, each in (*model.named_parameters(), *model.named_buffers()) if each.is_meta]
    assert not left, f"without numbers: {left}"
    said = header.fields.get("general.name")
    return GGUFModel(model.eval(), read_gguf_tokenizer(path, header.fields), said if isinstance(said, str) else path.stem)


def read_config(header: GGUFHeader) -> tuple[TransformerConfig, GGUFArchitecture]:
    """The config of a file, its size compared with the file's before anything is built."""
    fields, tensors = header.fields, header.tensors
    with prefix_errors(header.path):
        architecture = which(fields)
        if not tensors:
            raise BadInput("it holds a vocabulary and no weights; name a file that has both")
        if parts := fields.get("split.count"):
            raise BadInput(f"it is one of {parts} parts; join them with llama.cpp's gguf-split first")
        if long := next((name for name in LONG if name in tensors), None):
            raise BadInput(f"it stretches its context by {long} (longrope), which this house does not have")
        lengths = {name: placed.shape for name, placed in tensors.items()}
        if len(lengths.get("token_embd.weight", ())) != 2:
            raise BadInput("it lacks the embedding token_embd.weight of two sides; copy it anew")
        factors = None
        if FACTORS in tensors:
            if not architecture.factors:
                raise BadInput(f"it holds {FACTORS}, which the architecture {architecture.name!r} does not have")
            factors = header.numbers(FACTORS)
        config = architecture.config_to_native(fields, lengths, factors)
        if config.layers > len(tensors):
            raise BadInput(f"it says {config.layers:,} layers, and holds {len(tensors):,} tensors; copy it anew")
        if config.positions == "rotary" and config.context * config.head_dim > MAX_ROTARY_ANGLES:
            raise BadInput(f"it says a context of {config.context:,}, whose rotary angles are too many to hold")
    return config, architecture


def check_weights(header: GGUFHeader, expected: Mapping[str, Any]) -> None:
    """Compare what a config asks for with what the file holds."""
    for name, tensor in expected.items():
        if name not in header.tensors:
            raise CorruptFile(f"{header.path} lacks {name} of shape {list(tensor.shape)}, which its fields ask for")
        if header.tensors[name].shape != tuple(tensor.shape):
            raise CorruptFile(
                f"{header.path} holds {name} of shape {list(header.tensors[name].shape)}, and its fields ask for "
                f"{list(tensor.shape)}; copy it anew"
            )
    for name, placed in header.tensors.items():
        if name not in expected and name != FACTORS:
            raise CorruptFile(
                f"{header.path} holds {name[:60]} of shape {list(placed.shape)}, and its architecture has none"
            )
