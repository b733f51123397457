"""Marian's binary format: a model.bin of marian-conv with its settings, and a SentencePiece vocabulary in its folder.

    version 1 │ number of tensors │ for each: length of its name, type, dimensions, bytes (8 bytes each)
    names, each ending in a zero byte │ shapes │ padding, and its length before it │ data of all tensors

A matrix of int8 is stored transposed, except the embeddings, and a number follows it: each weight is the integer
divided by that number. They are converted to float32; scales of activations (`..._QuantMultA`) are not read.

Marian's decoder starts from a zero vector, without a token. Here a token <pad> after the vocabulary has this
vector as its embedding, and a bias so low that it is never predicted, as in transformers' Marian models.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from clearstory.errors import BadInput, BadSetting, CorruptFile
from clearstory.formats.finite import finite_check
from clearstory.formats.no_init import build_with_weights, empty_state_dict
from clearstory.models.transformer.config import Activation, TransformerConfig
from clearstory.text.marian import read_marian_vocabulary
from clearstory.text.tokenizers import Tokenizer

TENSOR = struct.Struct("<4Q")

MAX_TENSORS, MAX_NAME, MAX_DIMENSIONS = 2**16, 2**10, 8

SETTINGS = "special:model.yml"

MAX_SETTINGS_BYTES = 2**16

MAX_SIZE = 2**20
"""Largest size in the settings; tables of positions are computed, so no file size bounds them."""

FLOAT32, FLOAT16, TEXT, INT8 = 0x404, 0x402, 0x101, 0x4101
"""Types of tensors; INT8 is the form for any processor (intgemm8)."""

CONTEXT = 1024
"""Positions are computed, so the file has no limit; Marian's own is 1,000 tokens unless a user sets another."""

NEVER = -1e4
"""Bias of a token that is never predicted: its probability is 0 in float32."""

SIZES = ("enc-depth", "dec-depth", "dim-emb", "transformer-heads", "transformer-dim-ffn", "dim-vocabs")

ACTIVATIONS: dict[str, Activation] = {"relu": "relu", "swish": "silu", "gelu": "gelu"}

SUPPORTED: dict[str, tuple[Any, Any]] = {
    "type": ("transformer", None),
    "tied-embeddings-all": (True, False),
    "transformer-preprocess": ("", ""),
    "transformer-postprocess": ("dan", "dan"),
    "transformer-postprocess-top": ("", ""),
    "transformer-ffn-depth": (2, 2),
    "transformer-train-position-embeddings": (False, False),
    "transformer-no-projection": (False, False),
    "transformer-tied-layers": ([], []),
    "lemma-dim-emb": (0, 0),
    "ulr": (False, False),
    "input-types": ([], []),
}
"""Settings that decide the computation, each with the value that is supported and Marian's default."""


@dataclass(frozen=True)
class MarianTensor:
    """A tensor of a file: its type, its shape, and its bytes, which are read when they are used."""

    type: int
    shape: tuple[int, ...]
    data: np.ndarray[Any, np.dtype[np.uint8]]


def read_marian_bin(path: Path, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    """The encoder-decoder in a file. `convert` is applied to every weight. Raises CorruptFile with the reason, BadInput
    for a model of another kind.
    """
    tensors = read_tensors(path)
    config = read_config(path, tensors)
    names = dict(weight_names(config))
    if missing := [name for name in names.values() if name not in tensors]:
        raise CorruptFile(f"{path} has no tensor {missing[0]}, which its settings require; copy it again")
    shapes = empty_state_dict(config)
    check = finite_check(path, config)
    weights = {name: read_weight(path, tensors, names[name], tuple(each.shape)) for name, each in shapes.items()}
    used = {*names.values(), SETTINGS}
    if extra := sorted(name for name in tensors if name not in used and not name.endswith("_QuantMultA")):
        raise BadInput(f"{path} has the tensor {extra[0][:60]!r}, which is not supported in a Marian model")
    return build_with_weights(config, {name: convert(check(name, each)) for name, each in weights.items()})


def find_marian_vocabulary(path: Path) -> Path | None:
    """The SentencePiece vocabulary in the folder of a file; None if there is none. Raises BadInput for several."""
    found = sorted(path.parent.glob("*.spm"))
    if len(found) > 1:
        raise BadInput(
            f"{path.parent} holds {found[0].name} and {found[1].name}; supported: one vocabulary for source and target"
        )
    return found[0] if found else None


def read_marian_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a vocabulary: <pad> follows its pieces, and </s> each text."""
    return Tokenizer(*read_marian_vocabulary(path))


def read_tensors(path: Path) -> dict[str, MarianTensor]:
    """The tensors of a file by name. Raises CorruptFile, BadInput for another version."""
    if path.stat().st_size < 16:
        raise CorruptFile(f"{path} has {path.stat().st_size:,} bytes, fewer than a header; copy it again")
    data = np.memmap(path, np.uint8, mode="r")
    at = 0

    def take(size: int, what: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        nonlocal at
        if size > len(data) - at:
            raise CorruptFile(f"{path} is truncated in {what} at byte {at:,} of {len(data):,}; copy it again")
        at += size
        return data[at - size : at]

    version, count = struct.unpack("<2Q", take(16, "its header").tobytes())
    if version != 1:
        raise BadInput(f"{path} has version {version:,} of Marian's binary format; supported: 1")
    if not 1 <= count <= MAX_TENSORS:
        raise CorruptFile(f"{path} has a count of {count:,} tensors; supported: 1 to {MAX_TENSORS:,}")
    headers = list(TENSOR.iter_unpack(take(TENSOR.size * count, "its header").tobytes()))
    if wrong := next((each for each in headers if not 1 <= each[0] <= MAX_NAME or each[2] > MAX_DIMENSIONS), None):
        raise CorruptFile(
            f"{path} has a tensor with a name of {wrong[0]:,} bytes and {wrong[2]:,} dimensions; copy it again"
        )
    names = [take(length, "the names").tobytes()[:-1].decode("utf-8", "replace") for length, *_ in headers]
    shapes = [struct.unpack(f"<{n}i", take(4 * n, "the shapes").tobytes()) for _, _, n, _ in headers]
    take(struct.unpack("<Q", take(8, "its header").tobytes())[0], "its padding")
    return {
        name: MarianTensor(header[1], shape, take(header[3], name[:60]))
        for name, header, shape in zip(names, headers, shapes, strict=True)
    }


def read_config(path: Path, tensors: Mapping[str, MarianTensor]) -> TransformerConfig:
    """The config by the settings of a file. Raises BadInput for settings that are not supported."""
    settings = read_settings(path, tensors)
    for name, (wanted, default) in SUPPORTED.items():
        if (value := settings.get(name, default)) != wanted:
            raise BadInput(f"{path} has {name} = {str(value)[:40]!r}; supported: {wanted!r}")
    vocabularies = settings.get("dim-vocabs")
    if isinstance(vocabularies, list) and len(vocabularies) == 2 and vocabularies[0] == vocabularies[1]:
        settings["dim-vocabs"] = vocabularies[0]
    numbers = [settings.get(name) for name in SIZES]
    for name, value in zip(SIZES, numbers, strict=True):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
            raise BadInput(
                f"{path} has {name} = {str(value)[:40]}; it must be from 1 to {MAX_SIZE:,}, and that of a vocabulary "
                "the same for source and target"
            )
    layers, decoder_layers, width, heads, intermediate_size, vocab = cast(list[int], numbers)
    recurrent = settings.get("transformer-decoder-autoreg", "self-attention"), settings.get("dec-cell")
    if recurrent[0] != "self-attention" and recurrent != ("rnn", "ssru"):
        raise BadInput(f"{path} has a decoder of {str(recurrent)[:60]}; supported: self-attention, and rnn with ssru")
    activation = str(settings.get("transformer-ffn-activation", "swish"))
    if activation not in ACTIVATIONS or width % heads:
        raise BadInput(
            f"{path} has {layers:,} and {decoder_layers:,} layers of width {width:,}, {heads:,} heads and the "
            f"activation function {activation[:40]}; supported: heads that divide the width, "
            f"and {', '.join(ACTIVATIONS)}"
        )
    try:
        return TransformerConfig(
            architecture="encoder-decoder",
            vocab=vocab + 1,
            context=CONTEXT,
            width=width,
            layers=layers,
            decoder_layers=decoder_layers,
            decoder_start_token_id=vocab,
            decoder_autoregression="self_attention" if recurrent[0] == "self-attention" else "ssru",
            heads=heads,
            kv_heads=heads,
            head_dim=width // heads,
            intermediate_size=intermediate_size,
            norm_eps=1e-6,
            norm_first=False,
            embed_scale=True,
            positions="sinusoidal",
            activation=ACTIVATIONS[activation],
            unembed_bias=True,
        )
    except BadSetting as error:
        raise BadInput(f"{path} has invalid settings: {error}") from None


def read_settings(path: Path, tensors: Mapping[str, MarianTensor]) -> dict[str, Any]:
    """The settings in a file. Raises CorruptFile."""
    if SETTINGS not in tensors:
        raise CorruptFile(f"{path} holds no settings ({SETTINGS}); convert it again with marian-conv")
    data = tensors[SETTINGS].data
    if len(data) > MAX_SETTINGS_BYTES:
        raise CorruptFile(f"{path} has {len(data):,} bytes of settings; at most {MAX_SETTINGS_BYTES:,} are supported")
    try:
        settings = yaml.safe_load(data.tobytes().rstrip(b"\0").decode("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CorruptFile(f"{path} has settings that are not YAML ({reason}); copy it again") from None
    if not isinstance(settings, dict):
        raise CorruptFile(f"{path} has settings that are not a mapping; copy it again")
    return settings


def weight_names(config: TransformerConfig) -> Iterator[tuple[str, str]]:
    """(our name, Marian's name) of every weight."""
    yield "embedding.weight", "Wemb"
    yield "unembedding_bias", "decoder_ff_logit_out_b"
    for stack, layers in (("encoder", config.layers), ("decoder", config.decoder_layers)):
        for layer in range(layers):
            native, marian = f"{stack}.blocks.{layer}", f"{stack}_l{layer + 1}"
            if stack == "decoder" and config.decoder_autoregression == "ssru":
                yield f"{native}.attention.input.weight", f"{marian}_rnn_W"
                yield f"{native}.attention.forget.weight", f"{marian}_rnn_Wf"
                yield f"{native}.attention.forget.bias", f"{marian}_rnn_bf"
                yield from norm_names(f"{native}.attention_norm", f"{marian}_rnn_ffn")
            else:
                yield from attention_names(f"{native}.attention", f"{marian}_self")
            if stack == "decoder":
                yield from attention_names(f"{native}.cross_attention", f"{marian}_context")
            for projection, number in (("up", 1), ("down", 2)):
                yield f"{native}.feed_forward.{projection}.weight", f"{marian}_ffn_W{number}"
                yield f"{native}.feed_forward.{projection}.bias", f"{marian}_ffn_b{number}"
            yield from norm_names(f"{native}.feed_forward_norm", f"{marian}_ffn_ffn")


def attention_names(native: str, marian: str) -> Iterator[tuple[str, str]]:
    """Names of an attention and of the norm after it."""
    for projection in ("query", "key", "value", "output"):
        yield f"{native}.{projection}.weight", f"{marian}_W{projection[0]}"
        yield f"{native}.{projection}.bias", f"{marian}_b{projection[0]}"
    yield from norm_names(f"{native}_norm", f"{marian}_Wo")


def norm_names(native: str, marian: str) -> Iterator[tuple[str, str]]:
    """Names of a layer norm."""
    yield f"{native}.weight", f"{marian}_ln_scale"
    yield f"{native}.bias", f"{marian}_ln_bias"


def read_weight(path: Path, tensors: Mapping[str, MarianTensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight of this shape: float32, in PyTorch's layout. Raises CorruptFile, BadInput for an unsupported type."""
    tensor = tensors[name]
    with_pad = name in ("Wemb", "decoder_ff_logit_out_b")
    stored = (shape[0] - 1, *shape[1:]) if with_pad else shape
    expected = stored if name == "Wemb" else (1, *stored) if len(stored) == 1 else stored[::-1]
    if tensor.shape != expected:
        raise CorruptFile(f"{path} holds {name} of shape {list(tensor.shape)}, and its settings say {list(expected)}")
    weight = dequantize(path, name, tensor, math.prod(expected))
    # float16 and float32 have the layout that the shape says, (inputs, outputs); int8 the other.
    weight = weight.view(expected).T if len(shape) == 2 and name != "Wemb" and tensor.type != INT8 else weight
    weight = weight.reshape(stored)
    if not with_pad:
        return weight.contiguous()
    pad = weight.new_zeros(1, *shape[1:]) if len(shape) == 2 else weight.new_full((1,), NEVER)
    return torch.cat([weight, pad])


def dequantize(path: Path, name: str, tensor: MarianTensor, count: int) -> Tensor:
    """The first `count` numbers of a tensor as float32."""
    types: dict[int, tuple[type[np.generic], int]] = {
        FLOAT32: (np.float32, 4),
        FLOAT16: (np.float16, 2),
        INT8: (np.int8, 1),
    }
    if tensor.type not in types:
        raise BadInput(
            f"{path} holds {name} in the type {tensor.type:#x}; supported: float32, float16, and int8 for any "
            "processor (marian-conv --gemm-type intgemm8)"
        )
    dtype, size = types[tensor.type]
    needed = count * size + (4 if tensor.type == INT8 else 0)
    if len(tensor.data) < needed:
        raise CorruptFile(
            f"{path} holds {name} in {len(tensor.data):,} bytes, and {needed:,} are needed; copy it again"
        )
    numbers = torch.from_numpy(np.frombuffer(tensor.data[: count * size].tobytes(), dtype).astype(np.float32))
    if tensor.type != INT8:
        return numbers
    (multiplier,) = struct.unpack("<f", tensor.data[count : count + 4].tobytes())
    if not 0 < multiplier < math.inf:
        raise CorruptFile(f"{path} holds {name} with a multiplier of {multiplier}; it must be positive: copy it again")
    return numbers.div_(multiplier)
