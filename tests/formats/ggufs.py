"""Tiny models of every GGUF architecture, and GGUF files built by hand."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from clearstory.formats.folders import save_model
from clearstory.formats.gguf.write import write_gguf
from clearstory.formats.model_card import ModelCard
from clearstory.models.build import build
from clearstory.models.transformer.config import TransformerConfig
from clearstory.text.tokenizers import Tokenizer
from clearstory.text.train_tokenizer import train_tokenizer

TEXT = "Call me Ishmael. Some years ago - never mind how long precisely - having little or no money in my purse\n" * 3

BASE = TransformerConfig(
    vocab=300, context=64, width=32, layers=2, heads=4, kv_heads=4, head_dim=8, intermediate_size=48
)
LLAMA = replace(BASE, norm="rms", positions="rotary", gated=True, bias=False, activation="silu", tie_embeddings=False)

GEMMA3 = replace(
    LLAMA, norm="rms_unit_offset", sandwich_norm=True, embed_scale=True, qk_norm=True, activation="gelu_tanh",
    tie_embeddings=True, kv_heads=2, sliding_window=8, global_interval=6, local_rope_theta=10_000.0,
    rope_theta=1_000_000.0,
)  # fmt: skip

WIRINGS: dict[str, TransformerConfig] = {
    "gpt2": BASE,
    "gpt2-untied": replace(BASE, tie_embeddings=False, norm_eps=1e-3),
    "llama": replace(LLAMA, kv_heads=2, tie_embeddings=True, norm_eps=1e-6),
    "llama-bias": replace(LLAMA, bias=True),
    "llama-wide-heads": replace(LLAMA, head_dim=10, kv_heads=1, rope_theta=500.0),
    "llama-linear": replace(LLAMA, rope_factor=4.0),
    # The first two pairs keep their speed, the last is slowed eight times, one is between the two.
    "llama3.1": replace(LLAMA, rope_theta=100.0, rope_factor=8.0, rope_original_context=128),
    "qwen3": replace(LLAMA, qk_norm=True, kv_heads=2),
    "phi3": replace(LLAMA, sliding_window=40, kv_heads=2),
    "gemma3": GEMMA3,
    "gemma3-other-layers": replace(GEMMA3, global_interval=2, local_rope_theta=100.0, rope_factor=8.0),
}

GGUF_ARCHITECTURES = {name: "llama" if name == "llama3.1" else name.partition("-")[0] for name in WIRINGS}


def shaken(config: TransformerConfig, by: float = 0.1) -> Any:
    """A model whose weights all differ from their initial values."""
    model = build(config, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * by)
    return model


def bpe() -> Tokenizer:
    return train_tokenizer("bpe:300", [TEXT])


def saved(folder: Path, config: TransformerConfig, tokenizer: Tokenizer | None = None, name: str = "tiny") -> Path:
    """A model folder."""
    return save_model(folder, shaken(config), tokenizer or bpe(), ModelCard(name=name))


def written(
    file: Path,
    config: TransformerConfig,
    tokenizer: Tokenizer | None = None,
    dtype: str = "f32",
    name: str = "tiny",
    overwrite: bool = False,
) -> Any:
    """A file of a model, and the model."""
    model = shaken(config)
    write_gguf(file, model, tokenizer or bpe(), name, dtype, overwrite=overwrite)
    return model


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value_of(value: Any) -> bytes:
    """A value with its type, as GGUF packs it."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, bytes):  # ready made
        return value
    inner = value_of(value[0])[:4]
    return struct.pack("<I", 9) + inner + struct.pack("<Q", len(value)) + b"".join(value_of(each)[4:] for each in value)


def packed(
    fields: dict[str, Any],
    tensors: dict[str, tuple[list[int], int, int]],
    numbers: bytes,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A file: fields, tensors as (sides, kind, offset), and the bytes behind them."""
    tensor_count, field_count = counts or (len(tensors), len(fields))
    out = magic + struct.pack("<IQQ", version, tensor_count, field_count)
    out += b"".join(text(key) + value_of(value) for key, value in fields.items())
    for name, (sides, kind, offset) in tensors.items():
        out += text(name) + struct.pack("<I", len(sides)) + struct.pack(f"<{len(sides)}Q", *sides)
        out += struct.pack("<IQ", kind, offset)
    return out + b"\0" * (-len(out) % 32) + numbers
