"""llama2.c: Karpathy's checkpoints (version 0): a header of seven integers and Llama's weights in float32.

    width intermediate layers heads kv_heads ±vocab context │ embedding │ weights of all layers │ norm │ angles │ …

A negative vocab means untied embeddings. The tokenizer is a separate file in the same folder, tokenizer.bin or
tokN.bin: SentencePiece pieces with scores, with spaces written as spaces.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clearstory.errors import BadInput, BadSetting, CorruptFile
from clearstory.formats.finite import finite_check
from clearstory.formats.no_init import build_with_weights
from clearstory.formats.rotary_layout import pairs_to_halves
from clearstory.models.transformer.config import TransformerConfig
from clearstory.text.tokenizer_json import AddedTokens, sentencepiece_bpe
from clearstory.text.tokenizers import Tokenizer

HEADER = struct.Struct("<7i")
MAX_PIECE_BYTES = 4096

UNKNOWN, BOS, EOS = "<unk>", "<s>", "</s>"


def read_llama2c_config(path: Path) -> TransformerConfig | None:
    """The config in a checkpoint's header; None if the file's size does not match it, as for other .bin files."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    width, intermediate_size, layers, heads, kv_heads, vocab, context = HEADER.unpack(header)
    if (
        min(width, intermediate_size, layers, heads, kv_heads, abs(vocab), context) < 1
        or width % heads
        or layers > 4096
    ):
        return None
    try:
        config = TransformerConfig(
            vocab=abs(vocab),
            context=context,
            width=width,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=width // heads,
            intermediate_size=intermediate_size,
            norm="rms",
            positions="rotary",
            activation="silu",
            gated=True,
            bias=False,
            tie_embeddings=vocab > 0,
        )
    except BadSetting:
        return None
    return config if size == HEADER.size + 4 * sum(math.prod(shape) for _, shape in tensor_shapes(config)) else None


def tensor_shapes(config: TransformerConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of each tensor in the file's order; weights of all layers are one tensor."""
    c = config
    query, key = c.heads * c.head_dim, c.kv_heads * c.head_dim
    yield "embedding", (c.vocab, c.width)
    yield "attention_norm", (c.layers, c.width)
    yield "attention.query", (c.layers, query, c.width)
    yield "attention.key", (c.layers, key, c.width)
    yield "attention.value", (c.layers, key, c.width)
    yield "attention.output", (c.layers, c.width, query)
    yield "feed_forward_norm", (c.layers, c.width)
    yield "feed_forward.gate", (c.layers, c.intermediate_size, c.width)
    yield "feed_forward.down", (c.layers, c.width, c.intermediate_size)
    yield "feed_forward.up", (c.layers, c.intermediate_size, c.width)
    yield "norm", (c.width,)
    # Cosines and sines of the rotary angles, which are computed instead.
    yield "angles", (2, c.context, c.head_dim // 2)
    if not c.tie_embeddings:
        yield "unembedding", (c.vocab, c.width)


def read_llama2c(path: Path, config: TransformerConfig, cast: Callable[[Tensor], Tensor]) -> nn.Module:
    """The model of a checkpoint with this config. `cast` is applied to every weight."""
    data = torch.from_numpy(np.memmap(path, np.float32, mode="c", offset=HEADER.size))
    weights: dict[str, Tensor] = {}
    offset = 0
    for name, shape in tensor_shapes(config):
        tensor = data[offset : offset + math.prod(shape)].view(shape)
        offset += math.prod(shape)
        if name in ("embedding", "norm", "unembedding"):
            weights[f"{name}.weight"] = cast(tensor)
        elif name != "angles":
            heads = {"attention.query": config.heads, "attention.key": config.kv_heads}.get(name)
            for layer in range(config.layers):
                weight = tensor[layer] if heads is None else pairs_to_halves(tensor[layer], heads)
                weights[f"blocks.{layer}.{name}.weight"] = cast(weight)
    check = finite_check(path, config)
    return build_with_weights(config, {name: check(name, tensor) for name, tensor in weights.items()})


def find_tokenizer_bin(path: Path, vocab: int) -> Path | None:
    """The tokenizer file of a checkpoint: tokN.bin, with N the vocabulary size, or tokenizer.bin; None if neither
    exists.
    """
    names = (f"tok{vocab}.bin", "tokenizer.bin")
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


@dataclass(frozen=True)
class ScoredPiece:
    """A SentencePiece piece and its score."""

    text: str
    score: float


def read_llama2c_tokenizer(path: Path, vocab: int) -> Tokenizer:
    """The tokenizer in a tokenizer.bin. Raises CorruptFile, and BadInput unless it has `vocab` pieces."""
    pieces = list(read_pieces(path))
    if len(pieces) != vocab:
        raise BadInput(
            f"{path} holds {len(pieces):,} tokens but the model has a vocabulary of {vocab:,}; they do not match"
        )
    texts = [piece.text.replace(" ", "▁") for piece in pieces]
    texts[:3] = [UNKNOWN, BOS, EOS]
    ids = {text: id for id, text in reversed(list(enumerate(texts)))}
    byte_pieces = {f"<0x{byte:02X}>" for byte in range(256)}
    normal = [(text, each.score) for text, each in zip(texts[3:], pieces[3:], strict=True) if text not in byte_pieces]
    added_tokens = AddedTokens(special=[UNKNOWN, BOS, EOS], before=[BOS])
    contents = sentencepiece_bpe(normal, ids, UNKNOWN, added_tokens, byte_fallback=byte_pieces <= ids.keys())
    special_tokens = {"bos_token": BOS, "eos_token": EOS, "unk_token": UNKNOWN, "pad_token": None}
    return Tokenizer(contents, special_tokens)


def read_pieces(path: Path) -> Iterator[ScoredPiece]:
    """The pieces of a tokenizer.bin: each is a score, a length and as many bytes of UTF-8."""
    data = path.read_bytes()
    offset = 4  # after the length of the longest piece
    while offset < len(data):
        if len(data) - offset < 8:
            raise CorruptFile(f"{path} is truncated at byte {len(data):,}; copy it again")
        score, length = struct.unpack_from("<fi", data, offset)
        offset += 8
        if not 0 <= length <= MAX_PIECE_BYTES or length > len(data) - offset:
            raise CorruptFile(
                f"{path} has a token of {length:,} bytes at byte {offset - 4:,}, which is invalid; copy it again"
            )
        try:
            yield ScoredPiece(data[offset : offset + length].decode("utf-8"), score)
        except UnicodeDecodeError:
            raise CorruptFile(f"{path} has a token at byte {offset:,} that is not UTF-8; copy it again") from None
        offset += length
