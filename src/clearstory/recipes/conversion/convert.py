"""Convert: writes a model in another file format, reopens it, and compares it with the original."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from clearstory.errors import BadSetting, CorruptFile, FolderExists
from clearstory.formats.arpa.read import is_arpa
from clearstory.formats.arpa.write import arpa_words, write_arpa
from clearstory.formats.folders import OpenedModel, open_model, save_model
from clearstory.formats.gguf.read import is_gguf
from clearstory.formats.gguf.write import DTYPE_CODES, llama_cpp_warning, round_weights, write_gguf
from clearstory.formats.onnx.export import write_onnx
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.models.build import count_parameters
from clearstory.models.capabilities import Capability, has_capability
from clearstory.recipes.conversion.check_onnx import check_onnx
from clearstory.recipes.conversion.check_transformers import (
    SAMPLE_TEXTS,
    PortabilityReport,
    chat_template_source,
    check_portability,
)
from clearstory.recipes.settings.tools import NumberFormat
from clearstory.text.tokenizers import Tokenizer

Format = Literal["arpa", "gguf", "hf", "onnx"]

FILE_SUFFIXES: dict[Format, str] = {"arpa": ".arpa or .arpa.gz", "gguf": ".gguf"}
"""Suffixes of the formats that are single files; any other name is that of a folder."""

FOLDER_FORMATS: tuple[Format, ...] = ("hf", "onnx")

HALF_PRECISION: dict[NumberFormat, torch.dtype] = {"f16": torch.float16, "bf16": torch.bfloat16}

SUPPORTED_DTYPES: dict[Format, tuple[str, ...]] = {
    "arpa": ("f32",),
    "gguf": tuple(DTYPE_CODES),
    "hf": ("f32", "f16", "bf16"),
    "onnx": ("f32",),
}

NATS_TOLERANCE = 1e-5
"""Largest accepted difference of a token's negative log-likelihood in nats: numbers in ARPA files have eight digits."""

SEQUENCES, SEQUENCE_LENGTH = 8, 32
"""Sequences of generated tokens, and as many of random ones, that are compared."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A converted model and its differences from the original.

    Args:
        path: the file or folder.
        format: arpa, gguf, hf (a model folder) or onnx.
        dtype: number format of the weights.
        parameters: number of parameters.
        bytes: size on disk.
        tokens_compared: number of tokens that were compared.
        max_nats_difference: largest difference of a token's negative log-likelihood in nats, from the original with its
            weights rounded to `dtype`; None for the ONNX graph of an encoder without logits.
        max_rounding_difference: the same between the original and its rounded weights.
        portability: the comparison with transformers, if it was requested.
        note: a part of the model that readers of the format ignore; None if there is none.
        max_relative_difference: for ONNX, the largest difference of an output, relative to the largest output.
    """

    path: Path
    format: Format
    dtype: NumberFormat
    parameters: int
    bytes: int
    tokens_compared: int
    max_nats_difference: float | None
    max_rounding_difference: float = 0.0
    portability: PortabilityReport | None = None
    note: str | None = None
    max_relative_difference: float | None = None


def convert(
    model: str | Path,
    out: str | Path,
    to: Format | None = None,
    *,
    dtype: NumberFormat | None = None,
    check: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Write a model in the format given by `to` or the suffix of `out`, reopen it, and compare it with the original.

    Compared are token ids of sample texts, the chat template, and the log-likelihoods of generated and of random
    tokens. With `check`, the result is also loaded with transformers; ONNX is always run with onnxruntime. Raises
    FolderExists if `out` exists, CannotDo for a model that the format cannot hold, CorruptFile if the result differs.

    >>> import clearstory
    >>> clearstory.convert("runs/book/model", "book.arpa.gz").max_nats_difference  # doctest: +SKIP
    3e-07
    """
    path = Path(out).expanduser()
    format = resolve_format(path, to)
    number_format = resolve_dtype(format, dtype)
    if format == "onnx":
        return convert_to_onnx(model, path, check=check, overwrite=overwrite)
    original = open_model(model)
    rounded = write_model(original, model, path, format, number_format, overwrite)
    converted = open_model(path)
    mapping = TokenMapping.for_arpa(original, converted) if format == "arpa" else TokenMapping.identity(original)
    if rounded is not original:
        rounded.model.float()
    tokens_compared, difference = compare_nats(rounded, converted, mapping)
    if not difference <= NATS_TOLERANCE:
        raise CorruptFile(
            f"{path} computes other probabilities than {model}: of {tokens_compared:,} tokens one differs by "
            f"{difference:.2g} nats; do not use it, and please report this"
        )
    # An ARPA file keeps only the order of the tokenizer's words.
    if original.tokenizer is not None and converted.tokenizer is not None and format != "arpa":
        check_tokenizer(path, original.tokenizer, converted.tokenizer)
    return Conversion(
        path=path,
        format=format,
        dtype=number_format,
        parameters=count_parameters(converted.model),
        bytes=sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir())),
        tokens_compared=tokens_compared,
        max_nats_difference=difference,
        max_rounding_difference=0.0 if rounded is original else compare_nats(original, converted, mapping)[1],
        portability=check_portability(path, converted) if check and format != "arpa" else None,
        note=llama_cpp_warning(original.model) if format == "gguf" else None,
    )


def write_model(
    original: OpenedModel, source: str | Path, path: Path, format: Format, dtype: NumberFormat, overwrite: bool
) -> OpenedModel:
    """Write the model and return it with its weights as they were written; the original itself for f32."""
    if format == "arpa":
        if path.exists() and not overwrite:
            raise FolderExists(f"{path} is there already; choose another name, or pass --overwrite to replace it")
        write_arpa(path, original.model, original.tokenizer)
        return original
    if format == "gguf":
        write_gguf(path, original.model, original.tokenizer, original.card.name, dtype, overwrite=overwrite)
        return original if dtype == "f32" else replace(original, model=round_weights(original.model, dtype))
    # Opened again in half precision: a large model is then never copied in memory.
    rounded = open_model(source, dtype=HALF_PRECISION[dtype]) if dtype in HALF_PRECISION else original
    save_model(path, rounded.model, rounded.tokenizer, rounded.card, overwrite=overwrite)
    return rounded


def convert_to_onnx(model: str | Path, path: Path, *, check: bool, overwrite: bool) -> Conversion:
    """Write a folder of ONNX graphs; it appears at `path` only after onnxruntime has computed the same outputs."""
    if check:
        raise BadSetting(
            "--check compares with transformers, which cannot open ONNX; leave it out: ONNX is always compared with "
            "onnxruntime"
        )
    original = open_model(model)
    original.model.float()
    with write_onnx(path, original.model, original.tokenizer, original.card, overwrite=overwrite) as temporary:
        if original.tokenizer is not None:
            check_tokenizer(path, original.tokenizer, Tokenizer.open(temporary))
        report = check_onnx(temporary, original.model, path)
    return Conversion(
        path=path,
        format="onnx",
        dtype="f32",
        parameters=count_parameters(original.model),
        bytes=sum(each.stat().st_size for each in path.iterdir()),
        tokens_compared=report.tokens,
        max_nats_difference=report.max_nats_difference,
        max_relative_difference=report.max_relative_difference,
        note=original.note,
    )


def resolve_format(path: Path, to: Format | None) -> Format:
    """The format given by the suffix of `path` and by `to`. Raises BadSetting if they contradict each other."""
    by_suffix: Format = "arpa" if is_arpa(path) else "gguf" if is_gguf(path) else "hf"
    if path.suffix == ".onnx":
        raise BadSetting(
            f"{path} is the name of a file, and ONNX is written as a folder with tokenizer and config.json; name a "
            "folder, and pass --to onnx"
        )
    if to is None or to == by_suffix:
        return by_suffix
    if by_suffix == "hf" and to == "onnx":
        return to
    if by_suffix == "hf":
        raise BadSetting(f"--to is {to}, and {path} does not end in {FILE_SUFFIXES[to]}; change one of them")
    expected = "a folder" if to in FOLDER_FORMATS else f"a file that ends in {FILE_SUFFIXES[to]}"
    raise BadSetting(
        f"{path} is the name of a {by_suffix.upper()} file, and --to is {to}, {expected}; change one of them"
    )


def resolve_dtype(format: Format, dtype: NumberFormat | None) -> NumberFormat:
    """The number format of the weights, f32 by default. Raises BadSetting for one that the format does not support."""
    if dtype is not None and dtype not in SUPPORTED_DTYPES[format]:
        raise BadSetting(
            f"--dtype is {dtype}, and {format} supports {', '.join(SUPPORTED_DTYPES[format])}; choose one of them"
        )
    return dtype or "f32"


def check_tokenizer(path: Path, original: Tokenizer, converted: Tokenizer) -> None:
    """Raise CorruptFile if the converted tokenizer gives other ids, or has another chat template."""
    for text in SAMPLE_TEXTS:
        expected, actual = original.encode(text), converted.encode(text)
        if expected != actual:
            raise CorruptFile(
                f"the tokenizer of {path} encodes {text[:30]!r} as {str(actual)[:60]}, not as {str(expected)[:60]}; do "
                "not use it, and please report this"
            )
    expected_template, actual_template = chat_template_source(original), chat_template_source(converted)
    if expected_template != actual_template:
        raise CorruptFile(
            f"{path} has the chat template {str(actual_template)[:60]!r}, not {str(expected_template)[:60]!r}; do not "
            "use it, and please report this"
        )


@dataclass(frozen=True)
class TokenMapping:
    """The tokens of a model as those of its conversion.

    Args:
        ids: id of each token in the conversion, (V,).
        same_context: whether each token has the same effect as context, (V,).
        same_target: whether each token is predicted with the same probability, (V,).
    """

    ids: torch.Tensor
    same_context: torch.Tensor
    same_target: torch.Tensor

    @classmethod
    def identity(cls, original: OpenedModel) -> TokenMapping:
        """The mapping of a conversion with the same tokens."""
        everywhere = torch.ones(original.model.vocab, dtype=torch.bool)
        return cls(torch.arange(original.model.vocab), everywhere, everywhere)

    @classmethod
    def for_arpa(cls, original: OpenedModel, converted: OpenedModel) -> TokenMapping:
        """The mapping to an ARPA file, whose ids follow the order of its words.

        In the file one token both ends a text and starts the next, so those two tokens are compared in part only.
        """
        assert converted.tokenizer is not None
        id_of = {converted.tokenizer.display_token(id): id for id in range(converted.tokenizer.vocab)}
        ids = torch.tensor([id_of.get(word, -1) for word in arpa_words(original.model, original.tokenizer)])
        same_context, same_target = ids >= 0, ids >= 0
        start = original.model.config.start_token_id
        end = start if original.tokenizer is None else original.tokenizer.eos_token_id
        if start is not None and start != end:
            ids[start], same_context[start] = converted.model.config.start_token_id, True
            same_target[start] = False
            if end is not None:
                same_context[end] = False
        return cls(ids.clamp(min=0), same_context, same_target)


def compare_nats(original: OpenedModel, converted: OpenedModel, mapping: TokenMapping) -> tuple[int, float]:
    """The number of compared tokens, and the largest difference of their negative log-likelihoods in nats."""
    model: Any = original.model
    length = SEQUENCE_LENGTH if model.context is None else min(SEQUENCE_LENGTH, model.context + 1)
    sequences = random_ids(model, length)
    if has_capability(model, Capability.CAUSAL):
        sequences = torch.cat([generated_ids(model, length), sequences])
    inputs, targets = sequences[:, :-1], sequences[:, 1:]
    source = {}
    if has_capability(model, Capability.SOURCE):
        source = {"source": TokenBatch(random_ids(model, length).repeat(2, 1))}
    with torch.inference_mode():
        before, _ = model.token_nll(TokenBatch(inputs), targets, **source)
        after, _ = converted.model.token_nll(TokenBatch(mapping.ids[inputs]), mapping.ids[targets], **source)
    # Nothing can be compared after a token that has another effect as context.
    compared = mapping.same_context[inputs].cumprod(1).bool() & mapping.same_target[targets]
    differences = (before.double() - after.double()).abs()[compared]
    if has_capability(model, Capability.CLASSIFIER):
        labels = (label_log_probabilities(each, inputs) for each in (model, converted.model))
        differences = torch.cat([differences, torch.sub(*labels).abs().flatten()])
    return int(compared.sum()), float(differences.max()) if len(differences) else float("nan")


@torch.inference_mode()
def label_log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the labels of an encoder with a classification head."""
    logits: torch.Tensor = model.class_logits(model.encode(TokenBatch(ids)))
    return logits.double().log_softmax(-1)


def generated_ids(model: Any, length: int) -> torch.Tensor:
    """Sequences sampled from the model itself, (SEQUENCES, length): tokens of high probability."""
    engine = Engine(model)
    start = model.config.start_token_id or 0
    has_source = has_capability(model, Capability.SOURCE)
    sources = random_ids(model, length).tolist() if has_source else [None] * SEQUENCES
    sequences = {
        engine.add([start], Sampling(max_tokens=length, seed=seed), source=source): [start]
        for seed, source in enumerate(sources)
    }
    while engine.has_unfinished:
        for output in engine.next_tokens():
            sequences[output.request].append(output.token.id)
    return torch.tensor(list(sequences.values()))[:, :length]


def random_ids(model: Any, length: int) -> torch.Tensor:
    """Sequences of uniformly random ids, (SEQUENCES, length): tokens of low probability."""
    ids = np.random.default_rng(1).integers(model.vocab, size=(SEQUENCES, length))
    return torch.from_numpy(ids)
