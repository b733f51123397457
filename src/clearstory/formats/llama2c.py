"""llama2.c: Karpathy's checkpoints (version 0), a header of seven whole numbers and Llama's weights in float32.

    width hidden layers heads kv_heads ±vocab context │ embedding │ each kind of weight, all layers │ norm │ angles │ …

Its vocabulary is a file of its own, tokenizer.bin or tokN.bin beside it: SentencePiece's pieces and scores, a space
written as a space.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from clearstory.errors import BadInput, BadSetting, CorruptFile
from clearstory.formats.hf.load_weights import build_empty
from clearstory.formats.rotary_layout import pairs_to_halves
from clearstory.models.transformer.config import TransformerConfig
from clearstory.text.tokenizer_json import AddedTokens, sentencepiece_bpe
from clearstory.text.tokenizers import Tokenizer

HEADER = struct.Struct("<7i")
MOST_PIECE = 4096

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"


def may_be_llama2c(path: Path) -> bool:
    """Whether a file may be one by its name; `read_header` tells it from others of that name."""
    return path.suffix == ".bin"


def read_llama2c_config(path: Path) -> TransformerConfig | None:
    """The config that a file says, if its size is what that config takes; None where it is another kind of file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(HEADER.size)
    if len(raw) < HEADER.size:
        return None
    width, hidden, layers, heads, kv_heads, vocab, context = HEADER.unpack(raw)
    if min(width, hidden, layers, heads, kv_heads, abs(vocab), context) < 1 or width % heads or layers > 4096:
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
            intermediate_size=hidden,
            norm="rms",
            positions="rotary",
            activation="silu",
            gated=True,
            bias=False,
            tie_embeddings=vocab > 0,
        )
    except BadSetting:
        return None
    return config if size == HEADER.size + 4 * sum(count(shape) for _, shape in layout(config)) else None


def layout(config: TransformerConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What lies in a file, in its order: our name for it, and its shape over all layers."""
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
    # Its cosines and sines of rotary angles, which are computed here.
    yield "angles", (2, c.context, c.head_dim // 2)
    if not c.tie_embeddings:
        yield "unembedding", (c.vocab, c.width)


def count(shape: tuple[int, ...]) -> int:
    """Numbers in a tensor."""
    out = 1
    for side in shape:
        out *= side
    return out


def read_llama2c(path: Path, config: TransformerConfig, cast: Callable[[Tensor], Tensor]) -> nn.Module:
    """The model of a file whose header gave this config; `cast` is applied to every weight."""
    numbers = torch.from_numpy(np.memmap(path, np.float32, mode="c", offset=HEADER.size))
    weights: dict[str, Tensor] = {}
    at = 0
    for name, shape in layout(config):
        part = numbers[at : at + count(shape)].view(shape)
        at += count(shape)
        if name in ("embedding", "norm", "unembedding"):
            weights[f"{name}.weight"] = cast(part)
        elif name != "angles":
            heads = {"attention.query": config.heads, "attention.key": config.kv_heads}.get(name)
            for layer in range(config.layers):
                own = part[layer] if heads is None else pairs_to_halves(part[layer], heads)
                weights[f"blocks.{layer}.{name}.weight"] = cast(own)
    model = build_empty(config)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def beside(path: Path, vocab: int) -> Path | None:
    """The file of the vocabulary, under either of its names."""
    names = (f"tok{vocab}.bin", "tokenizer.bin")
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


@dataclass(frozen=True)
class Piece:
    """A token's text and how good it is."""

    text: str
    score: float


def read_vocabulary(path: Path, vocab: int) -> Tokenizer:
    """The tokenizer of a tokenizer.bin with `vocab` pieces. Raises CorruptFile, BadInput for another number of them."""
    pieces = list(read_pieces(path))
    if len(pieces) != vocab:
        raise BadInput(
            f"{path} holds {len(pieces):,} tokens and its model knows {vocab:,}; they do not belong together"
        )
    texts = [piece.text.replace(" ", "▁") for piece in pieces]
    texts[:3] = [UNKNOWN, BEGIN, END]
    ids = {text: id for id, text in reversed(list(enumerate(texts)))}
    bytes_ = {f"<0x{byte:02X}>" for byte in range(256)}
    usable = [(text, piece.score) for text, piece in zip(texts[3:], pieces[3:], strict=True) if text not in bytes_]
    marks = AddedTokens(special=[UNKNOWN, BEGIN, END], before=[BEGIN])
    contents = sentencepiece_bpe(usable, ids, UNKNOWN, marks, byte_fallback=bytes_ <= ids.keys())
    roles = {"bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN, "pad_token": None}
    return Tokenizer(contents, roles)


def read_pieces(path: Path) -> Iterator[Piece]:
    """A score, a length and as many bytes, again and again."""
    raw = path.read_bytes()
    at = 4  # after the longest piece's length
    while at < len(raw):
        if len(raw) - at < 8:
            raise CorruptFile(f"{path} is cut off at byte {len(raw):,}; copy it anew")
        score, length = struct.unpack_from("<fi", raw, at)
        at += 8
        if not 0 <= length <= MOST_PIECE or length > len(raw) - at:
            raise CorruptFile(f"{path} says at byte {at - 4:,} that a token has {length:,} bytes; copy it anew")
        try:
            yield Piece(raw[at : at + length].decode("utf-8"), score)
        except UnicodeDecodeError:
            raise CorruptFile(f"{path} holds at byte {at:,} a token that is no UTF-8; copy it anew") from None
        at += length
