"""SentencePiece .model files, parsed without the sentencepiece library.

The file is a protocol buffer: numbered fields, each a varint, four or eight bytes, or a length-delimited value. Only
the fields that decide ids are read (sentencepiece_model.proto); tests compare the result with the library's.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearstory.durable import read_file
from clearstory.errors import BadInput, CorruptFile
from clearstory.text.tokenizer_json import COLLAPSE_SPACES, AddedTokens, sentencepiece_bpe, sentencepiece_unigram

MAX_BYTES = 64 * 2**20

MAX_PIECE = 4096
"""Maximum number of characters of a piece: the time to find its merges is quadratic in it."""

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of pieces; GGUF uses the same numbers."""

UNIGRAM, PAIRS = 1, 2


@dataclass
class SentencePieceModel:
    """Contents of a file: pieces with score and type, and the normalization."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    kind: int = UNIGRAM
    byte_fallback: bool = False
    add_prefix_space: bool = True
    collapse_spaces: bool = True
    charsmap: bytes = b""
    roles: dict[str, int] = field(default_factory=lambda: {"unk": 0, "bos": 1, "eos": 2, "pad": -1})


def read_sentencepiece(path: Path, n_sentinels: int | None = None) -> tuple[str, dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json of a file. Raises CorruptFile, or BadInput for an unsupported model
    type.

    `n_sentinels` is the number of T5's sentinels, which are not in the file and follow its pieces in falling order; its
    tokenizer also ends texts. None for another model's file.
    """
    model = open_model(path)
    if n_sentinels is not None:
        sentinels = (f"<extra_id_{number}>" for number in reversed(range(n_sentinels)))
        known = {piece for piece, _, _ in model.pieces}
        model.pieces += [(sentinel, 0.0, CONTROL) for sentinel in sentinels if sentinel not in known]
    config = tokenizer_config(model)
    end = config["eos_token"] if n_sentinels is not None else None
    return to_tokenizer_json(model, [] if end is None else [end]), config


def open_model(path: Path) -> SentencePieceModel:
    """The model in a file. Raises CorruptFile, or BadInput for an unsupported model type."""
    data = read_file(path, MAX_BYTES)
    try:
        model = parse_model(data)
        if not isinstance(model.charsmap, bytes) or any(not isinstance(kind, int) for _, _, kind in model.pieces):
            raise ValueError("a field has another type")
    except (IndexError, ValueError, struct.error, TypeError, AttributeError) as error:
        raise CorruptFile(f"{path} is truncated or not a SentencePiece model ({error}); download it again") from None
    if (longest := max((len(piece) for piece, _, _ in model.pieces), default=0)) > MAX_PIECE:
        raise CorruptFile(f"{path} has a piece of {longest:,} characters; at most {MAX_PIECE:,} are supported")
    if not model.pieces:
        raise CorruptFile(f"{path} is not a SentencePiece model: it has no pieces; download it again")
    if model.kind not in (UNIGRAM, PAIRS):
        raise BadInput(f"{path} is a SentencePiece model of words or characters; supported: unigram, bpe")
    return model


def to_tokenizer_json(model: SentencePieceModel, after: Sequence[str] = ()) -> str:
    """The tokenizer.json of a model; `after` are special tokens after each text."""
    ids = {piece: id for id, (piece, _, _) in reversed(list(enumerate(model.pieces)))}
    unknown = next((id for id, (_, _, kind) in enumerate(model.pieces) if kind == UNKNOWN), model.roles["unk"])
    special = [piece for piece, _, kind in model.pieces if kind in (CONTROL, UNKNOWN)]
    user = [piece for piece, _, kind in model.pieces if kind == USER]
    added_tokens = AddedTokens(special=special, added=user, after=after)
    before: list[Mapping[str, Any]] = []
    if model.charsmap:
        before.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(model.charsmap).decode()})
    if model.collapse_spaces:
        before += COLLAPSE_SPACES
    defaults: dict[str, Any] = {
        "add_prefix_space": model.add_prefix_space,
        "byte_fallback": model.byte_fallback,
        "before": before,
    }
    if model.kind == PAIRS:
        usable = [(piece, score) for piece, score, kind in model.pieces if kind == NORMAL]
        return sentencepiece_bpe(usable, ids, model.pieces[unknown][0], added_tokens, **defaults)
    return sentencepiece_unigram(
        [(piece, score) for piece, score, _ in model.pieces], unknown, added_tokens, **defaults
    )


def tokenizer_config(model: SentencePieceModel) -> dict[str, Any]:
    """The tokenizer_config.json of a model: its bos, eos, unk and pad tokens."""
    known = {role: id for role, id in model.roles.items() if 0 <= id < len(model.pieces)}
    return {f"{role}_token": model.pieces[known[role]][0] if role in known else None for role in model.roles}


def parse_model(data: bytes) -> SentencePieceModel:
    """The model of a file's bytes. Raises IndexError, ValueError or struct.error for invalid data."""
    model = SentencePieceModel()
    for number, value in read_fields(data):
        if number == 1:
            fields = dict(read_fields(value))
            (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
            model.pieces.append(
                (fields[1].decode("utf-8"), score, fields.get(3, NORMAL)) if 1 in fields else ("", score, UNUSED)
            )
        elif number == 2:
            fields = dict(read_fields(value))
            model.kind, model.byte_fallback = fields.get(3, UNIGRAM), bool(fields.get(35, 0))
            for role, key in (("unk", 40), ("bos", 41), ("eos", 42), ("pad", 43)):
                # Negative numbers are stored as unsigned 64-bit integers.
                model.roles[role] = (fields.get(key, model.roles[role] % 2**64) + 2**63) % 2**64 - 2**63
        elif number == 3:
            fields = dict(read_fields(value))
            model.charsmap = fields.get(2, b"")
            model.add_prefix_space, model.collapse_spaces = bool(fields.get(3, 1)), bool(fields.get(4, 1))
    return model


def read_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbered fields of a protocol buffer message, in order."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = read_varint(data, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = read_varint(data, at)
        if size is None or size > len(data) - at:
            raise ValueError(f"field {number} at byte {at:,} exceeds the file")
        yield number, data[at : at + size]
        at += size


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint (seven bits per byte, low bits first) and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"the varint at byte {at:,} does not end")
