"""GGUF files are untrusted input: claims are compared with contents before memory is allocated."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from ggufs import LLAMA, WIRINGS, packed, text, value_of, written

from clearstory.errors import BadInput, ClearstoryError, CorruptFile
from clearstory.formats.folders import open_model
from clearstory.formats.gguf.checksum import FIELD as CHECKSUM
from clearstory.formats.gguf.checksum import write_checksum
from clearstory.formats.gguf.header import GGUFHeader
from clearstory.formats.gguf.tokenizer import read_gguf_tokenizer

pytest.importorskip("gguf", reason="the package gguf is not installed: clearstory[formats]")

ONE: dict[str, tuple[list[int], int, int]] = {"a": ([4, 2], 0, 0)}
NUMBERS = bytes(32)
HUGE = 2**60


def listed(inner: int, count: int, rest: bytes = b"") -> bytes:
    """A list that says how long it is."""
    return struct.pack("<IIQ", 9, inner, count) + rest


def nested(depth: int) -> bytes:
    """A list in a list in a list."""
    return struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 4, 0)


FIELD, TENSOR = text("a") + value_of(1), text("a") + struct.pack("<IQIQ", 1, 8, 0, 0)

LIES: dict[str, tuple[bytes, str]] = {
    "tensors": (packed({}, ONE, NUMBERS, counts=(HUGE, 0)), "it claims 1,152,921,504,606,846,976 tensors"),
    "fields": (packed({}, ONE, NUMBERS, counts=(1, HUGE)), "976 fields, more than the rest of the file can hold"),
    "few": (packed({"a": 1}, ONE, NUMBERS, counts=(2, 1)), "tensor"),
    "text": (packed({"a": struct.pack("<IQ", 8, HUGE)}, {}, b""), "the text of 'a' of 1,152,921,504,606,846,976 bytes"),
    "name": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, HUGE) + bytes(64), "the name of a field of 1,152,9"),
    "list": (packed({"a": listed(4, HUGE)}, {}, b""), "the array 'a' of 4,611,686,018,427,387,904 bytes"),
    "texts": (packed({"a": listed(8, HUGE)}, {}, b""), "976 items of 'a', more than the rest"),
    "item": (packed({"a": listed(8, 1, struct.pack("<Q", HUGE))}, {}, bytes(64)), "item 0 of 'a' has"),
    "lists": (packed({"a": listed(9, HUGE)}, {}, b""), "976 items of 'a', more than the rest"),
    "deep": (packed({"a": nested(50)}, {}, b""), "holds arrays nested 4 deep"),
    "type": (packed({"a": struct.pack("<II", 99, 0)}, {}, b""), "has type 99, and GGUF has types 0 to 12"),
    "twice": (
        packed({}, {}, b"", counts=(0, 2))[:24] + FIELD * 2,
        "the field 'a' occurs twice",
    ),
    "latin": (
        packed({"a": struct.pack("<IQ", 8, 2) + b"\xe9\xe9"}, {}, b""),
        "the text of 'a' at byte [0-9]+ is not UTF-8",
    ),
    "words": (packed({"a": listed(8, 1, struct.pack("<Q", 1) + b"\xff")}, {}, b""), "item 0 of 'a' is not UTF-8"),
    "sides": (packed({}, {"a": ([1] * 9, 0, 0)}, NUMBERS), "has 9 dimensions; supported: 1 to 4"),
    "none": (packed({}, {"a": ([], 0, 0)}, NUMBERS), "has 0 dimensions"),
    "empty": (packed({}, {"a": ([4, 0], 0, 0)}, NUMBERS), r"has shape \[0, 4\] in F32, which is impossible"),
    "large": (packed({}, {"a": ([HUGE, HUGE], 0, 0)}, NUMBERS), "which is impossible"),
    "wraps": (packed({}, {"a": ([2**32, 2**32 + 1], 0, 0)}, NUMBERS), "which is impossible"),
    "block": (packed({}, {"a": ([33, 2], 8, 0)}, bytes(256)), r"has shape \[2, 33\] in Q8_0, which is impossible"),
    "beyond": (
        packed({}, {"a": ([4, 2], 0, HUGE)}, NUMBERS),
        "starts at byte .*, which is not aligned or beyond the end",
    ),
    "over": (packed({}, {"a": ([4, 4], 0, 0)}, NUMBERS), "the tensor 'a' of 64 bytes starts at byte"),
    "crooked": (packed({}, {"a": ([4, 1], 0, 3)}, NUMBERS), "which is not aligned or beyond the end"),
    "overlap": (packed({}, {"a": ([4, 4], 0, 0), "b": ([4, 2], 0, 32)}, bytes(96)), "the tensors 'a' and 'b' overlap"),
    "again": (
        packed({}, {}, b"", counts=(2, 0))[:24] + TENSOR * 2 + bytes(96),
        "the tensor 'a' occurs twice",
    ),
    "aligned": (
        packed({"general.alignment": 48}, ONE, NUMBERS),
        "alignment is 48; it must be a power of two",
    ),
    "wide": (packed({"general.alignment": 2**31}, ONE, NUMBERS), "general.alignment is 2147483648"),
    "worded": (packed({"general.alignment": "32"}, ONE, NUMBERS), "general.alignment is '32'"),
    "short": (b"GGUF\3\0\0\0", "has 8 bytes, but a GGUF header has 24"),
    "nothing": (b"", "has 0 bytes"),
}


@pytest.mark.parametrize("name", LIES)
def test_an_inconsistent_header_gives_one_sentence_and_allocates_nothing(name: str, tmp_path: Path) -> None:
    raw, sentence = LIES[name]
    file = tmp_path / "x.gguf"
    file.write_bytes(raw)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFile, match=sentence) as caught:
            GGUFHeader.read(file)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert "x.gguf" in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (packed({}, {}, b"", magic=b"GGML"), "starts with b'GGML', but a GGUF file starts with b'GGUF'"),
        (b"<html>" * 9, "it is another kind of file"),
        (packed({}, {}, b"", version=1), "has GGUF version 1; supported: 2, 3"),
        (packed({}, {}, b"", version=3 << 24), "it may be big-endian"),
        (packed({}, {"a": ([32], 24, 0)}, NUMBERS), "number format 24; supported: F32, F16, Q4_0"),
        (packed({"general.architecture": "llama"}, {}, b""), "contains a vocabulary but no weights"),
        (packed({"general.architecture": "llama", "split.count": 3}, ONE, NUMBERS), "is one of 3 parts"),
        (packed({"general.architecture": "llama"}, ONE, NUMBERS), "lacks the embedding token_embd.weight"),
        (packed({"general.architecture": "phi3"}, {"rope_factors_long.weight": ([4], 0, 0)}, NUMBERS), "longrope"),
        (packed({"general.architecture": "llama"}, {"token_embd.weight": ([4, 2], 0, 0)}, NUMBERS), "x.gguf: it lacks"),
    ],
    ids=["magic", "html", "version", "big-endian", "kind", "vocabulary", "parts", "embedding", "longrope", "sizes"],
)
def test_unsupported_files_are_rejected(raw: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(raw)
    with pytest.raises(BadInput, match=sentence) as caught:
        open_model(file)
    assert "\n" not in str(caught.value)
    assert "config.json" not in str(caught.value)


def test_a_truncated_file_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    written(file, LLAMA)
    raw = file.read_bytes()
    for end in sorted({*range(0, len(raw), len(raw) // 60), len(raw) - 1}):
        file.write_bytes(raw[:end])
        with pytest.raises(CorruptFile):
            open_model(file)


def test_changed_header_bytes_give_one_sentence_or_a_model(tmp_path: Path) -> None:
    """No traceback and no large allocation."""
    file = tmp_path / "x.gguf"
    written(file, LLAMA)
    raw = file.read_bytes()
    generator = torch.Generator().manual_seed(0)
    end = raw.index(b"blk.1.ffn_up")
    for _ in range(120):
        place, value = (int(torch.randint(0, most, (), generator=generator)) for most in (end, 256))
        changed = bytearray(raw)
        changed[place] = value
        file.write_bytes(changed)
        try:
            open_model(file)
        except ClearstoryError as error:
            assert "\n" not in str(error)  # noqa: PT017  # most bytes may be anything


def changed(tmp_path: Path, fields: dict[str, Any], name: str = "llama") -> Path:
    """A file of a whole model, some of whose fields say something else; None leaves one out."""
    import gguf

    file = tmp_path / "x.gguf"
    written(file, WIRINGS[name])
    header = GGUFHeader.read(file)
    writer = gguf.GGUFWriter(tmp_path / "y.gguf", str(header.metadata["general.architecture"]))
    for key, value in {**header.metadata, **fields}.items():
        if value is None or key in ("general.architecture", CHECKSUM):
            continue
        kind = gguf.GGUFValueType.get_type(value) if not hasattr(value, "tolist") else None
        value = value.tolist() if kind is None else value
        if isinstance(value, int) and not isinstance(value, bool):
            writer.add_uint32(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, kind)
    for tensor in header.tensors:
        writer.add_tensor(tensor, header.tensor(tensor).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "y.gguf"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"llama.block_count": 3}, "lacks blk.2.attn_norm.weight of shape"),
        ({"llama.block_count": 1}, r"holds blk\.1\.\w+\.weight of shape .*, which its architecture does not have"),
        ({"llama.block_count": 4000}, "has 4,000 layers, and 2[0-9] tensors"),
        (
            {"llama.feed_forward_length": 47},
            r"ffn_down\.weight of shape \[32, 48\], and its metadata require \[32, 47\]",
        ),
        (
            {"llama.embedding_length": 16},
            r"token_embd\.weight of shape \[300, 32\], .* require \[300, 16\]",
        ),
        ({"llama.embedding_length": 2**31}, "it has llama.embedding_length = 2147483648"),
        ({"llama.attention.head_count": 0}, "it has llama.attention.head_count = 0"),
        ({"llama.attention.head_count": "four"}, "it has llama.attention.head_count = 'four'"),
        ({"llama.attention.head_count_kv": 3}, "4 query heads cannot share 3 key-value heads"),
        ({"llama.attention.key_length": 16}, "value_length = 8; but llama.attention.key_length = 16"),
        ({"llama.rope.dimension_count": 4}, r"rope\.dimension_count = 4; but heads have dimension 8"),
        ({"llama.rope.scaling.type": "yarn"}, r"llama\.rope\.scaling\.type = 'yarn'; supported: none, linear"),
        ({"llama.expert_count": 8}, "it has llama.expert_count = 8; the supported llama has no such setting"),
        ({"llama.context_length": None}, "it lacks 'llama.context_length'"),
        ({"llama.attention.layer_norm_rms_epsilon": 5.0}, "layer_norm_rms_epsilon = 5"),
        ({"general.architecture": "qwen3"}, "it lacks 'qwen3"),
        (
            {"tokenizer.ggml.pre": "llama-bqe"},
            "has the pre-tokenizer 'llama-bqe', which is not supported; supported: gpt-2",
        ),
        ({"tokenizer.ggml.pre": None}, "holds no tokenizer.ggml.pre, so its pre-tokenizer is unknown"),
        ({"tokenizer.ggml.model": "rwkv"}, "a tokenizer of the model 'rwkv'"),
        ({"tokenizer.ggml.tokens": ["a", "b"]}, "holds 2 tokens but a different number of token types"),
        ({"tokenizer.ggml.tokens": 5}, "holds no tokenizer.ggml.tokens, a list of texts"),
        ({"tokenizer.ggml.merges": [1, 2]}, "holds no tokenizer.ggml.merges, a list of texts"),
        ({"tokenizer.ggml.model": "llama"}, "and fewer scores"),
        ({"tokenizer.ggml.eos_token_id": "</s>"}, "eos_token_id = '</s>'; it must be a token id"),
    ],
    ids=str,
)
def test_inconsistent_metadata_are_named(fields: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    if fields.get("general.architecture") == "qwen3":
        file = tmp_path / "z.gguf"
        raw = changed(tmp_path, {}).read_bytes()
        file.write_bytes(raw.replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0qwen3", 1))
    else:
        file = changed(tmp_path, fields)
    with pytest.raises(ClearstoryError, match=sentence) as caught:
        open_model(file)
    assert "\n" not in str(caught.value)
    assert "config.json" not in str(caught.value)


def test_irrelevant_metadata_are_ignored(tmp_path: Path) -> None:
    fields = {"llama.expert_count": 0, "llama.vocab_size": 12, "general.license": "mit"}
    file = changed(tmp_path, {**fields, "tokenizer.ggml.eos_token_id": 99_999})
    opened = open_model(file)
    assert opened.model.config == WIRINGS["llama"]
    assert opened.tokenizer is not None
    assert opened.tokenizer.eos_token_id is None


def test_a_context_with_too_many_rotary_angles_is_rejected(tmp_path: Path) -> None:
    # 2^24 places of 10 numbers: more than 2^27.
    with pytest.raises(BadInput, match="a context of 16,777,216 with a head dimension of 10: more than"):
        open_model(changed(tmp_path, {"llama.context_length": 2**24}, "llama-wide-heads"))


def test_unknown_rope_factors_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    written(file, WIRINGS["llama3.1"])
    header = GGUFHeader.read(file)
    raw = bytearray(file.read_bytes())
    at = header.tensors["rope_freqs.weight"].start
    raw[at : at + 16] = struct.pack("<4f", 1, 3, 2, 8)
    file.write_bytes(raw)
    write_checksum(file)
    with pytest.raises(BadInput, match=r"in a way other than Llama 3\.1's"):
        open_model(file)


def test_a_file_without_a_tokenizer_has_none() -> None:
    assert read_gguf_tokenizer(Path("x.gguf"), {"tokenizer.ggml.model": "none"}) is None
    assert read_gguf_tokenizer(Path("x.gguf"), {}) is None
