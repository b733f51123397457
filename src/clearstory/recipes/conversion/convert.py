"""Convert: writes a model in another file format, reopens it, and compares it with the original."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from clearstory.durable.paths import expand_home
from clearstory.errors import BadSetting, ClearstoryError, CorruptFile, FolderExists
from clearstory.formats.arpa.read import is_arpa
from clearstory.formats.folders import OpenedModel, open_model, save_model
from clearstory.formats.gguf.read import is_gguf
from clearstory.formats.gguf.write import DTYPE_CODES, llama_cpp_warning, round_weights, write_gguf
from clearstory.formats.onnx.export import write_onnx
from clearstory.formats.sentence_folder import SentencePipeline, read_sentence_pipeline
from clearstory.models.build import count_parameters
from clearstory.recipes.conversion.arpa_file import write_checked_arpa
from clearstory.recipes.conversion.check_onnx import check_onnx
from clearstory.recipes.conversion.check_transformers import (
    SAMPLE_TEXTS,
    PortabilityReport,
    check_portability,
)
from clearstory.recipes.conversion.compare_nats import TokenMapping, check_nats, compare_nats
from clearstory.recipes.settings.schema import check_output_path
from clearstory.recipes.settings.tools import NumberFormat
from clearstory.text.chat_template import find_template
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

    The comparison covers token ids of sample texts, the chat template, and the log-likelihoods of generated and random
    tokens. With `check`, the result is also loaded with transformers; ONNX is always run with onnxruntime. Raises
    FolderExists if `out` exists, CannotDo for a model that the format does not support, CorruptFile if the result
    differs.

    >>> import clearstory
    >>> clearstory.convert("runs/book/model", "book.arpa.gz").max_nats_difference  # doctest: +SKIP
    3e-07
    """
    if not str(out) or "\0" in str(out):
        raise BadSetting(f"OUT is {str(out)!r}; give the output file or folder")
    check_output_path(out)
    path = expand_home(out)
    format = resolve_format(path, to)
    number_format = resolve_dtype(format, dtype)
    if format == "onnx":
        return convert_to_onnx(model, path, check=check, overwrite=overwrite)
    if format == "arpa":
        return convert_to_arpa(model, path, overwrite=overwrite)
    original = open_model(model)
    rounded = write_model(original, model, path, format, number_format, overwrite)
    converted = open_model(path)
    mapping = TokenMapping.identity(original)
    if rounded is not original:
        rounded.model.float()
    tokens_compared, difference = check_nats(path, *compare_nats(rounded, converted, mapping))
    notes = [llama_cpp_warning(original.model) if format == "gguf" else None]
    if original.tokenizer is not None and converted.tokenizer is not None:
        notes.append(check_tokenizer(path, original.tokenizer, converted.tokenizer))
    return Conversion(
        path=path,
        format=format,
        dtype=number_format,
        parameters=count_parameters(converted.model),
        bytes=sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir())),
        tokens_compared=tokens_compared,
        max_nats_difference=difference,
        max_rounding_difference=0.0 if rounded is original else compare_nats(original, converted, mapping)[1],
        portability=check_portability(path, converted) if check else None,
        note="; ".join(filter(None, notes)) or None,
    )


def write_model(
    original: OpenedModel, source: str | Path, path: Path, format: Format, dtype: NumberFormat, overwrite: bool
) -> OpenedModel:
    """Write the model and return it with its weights as they were written; the original itself for f32."""
    if format == "gguf":
        write_gguf(
            path,
            original.model,
            original.tokenizer,
            original.card.name,
            dtype,
            overwrite=overwrite,
            generation_config=original.generation_config,
        )
        return original if dtype == "f32" else replace(original, model=round_weights(original.model, dtype))
    # Opened again in half precision: a large model is then never copied in memory.
    rounded = open_model(source, dtype=HALF_PRECISION[dtype]) if dtype in HALF_PRECISION else original
    save_model(
        path,
        rounded.model,
        rounded.tokenizer,
        rounded.card,
        overwrite=overwrite,
        generation_config=rounded.generation_config,
        sentence=saved_pipeline(original),
    )
    return rounded


def saved_pipeline(original: OpenedModel) -> SentencePipeline | None:
    """The modules of sentence-transformers that a converted folder keeps; None without any that are supported."""
    try:
        return None if original.folder is None else read_sentence_pipeline(original.folder)
    except ClearstoryError:
        return None


def convert_to_arpa(model: str | Path, path: Path, *, overwrite: bool) -> Conversion:
    """Write an ARPA file; it appears at `path` only after it was opened and compared with the original."""
    if path.exists() and not overwrite:
        raise FolderExists(f"{path} already exists; choose another name, or pass --overwrite to replace it")
    report = write_checked_arpa(path, open_model(model))
    return Conversion(
        path=path,
        format="arpa",
        dtype="f32",
        parameters=report.parameters,
        bytes=path.stat().st_size,
        tokens_compared=report.tokens,
        max_nats_difference=report.max_nats_difference,
        note=report.note,
    )


def convert_to_onnx(model: str | Path, path: Path, *, check: bool, overwrite: bool) -> Conversion:
    """Write a folder of ONNX graphs; it appears at `path` only after onnxruntime has computed the same outputs."""
    if check:
        raise BadSetting(
            "--check compares with transformers, which cannot open ONNX; leave it out: ONNX output is always "
            "compared with onnxruntime"
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
            f"{path} is the name of a file, but ONNX is written as a folder with tokenizer and config.json; give a "
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


def check_tokenizer(path: Path, original: Tokenizer, converted: Tokenizer) -> str | None:
    """Raise CorruptFile if the ids or the chat template of the converted tokenizer differ.

    Returns a sentence on texts that the two programs split differently by design, or None.
    """
    note = None
    for text in SAMPLE_TEXTS:
        expected, actual = original.encode(text), converted.encode(text)
        if expected != actual and text.startswith(" ") and adds_missing_space(original):
            note = "llama.cpp encodes one more space than transformers at the start of a text that begins with a space"
        elif expected != actual:
            raise CorruptFile(
                f"the tokenizer of {path} encodes {text[:30]!r} as {str(actual)[:60]}, not as {str(expected)[:60]}; do "
                "not use it, and please report this"
            )
    expected_around, actual_around = original.post_processor_ids, converted.post_processor_ids
    if expected_around != actual_around:
        raise CorruptFile(
            f"the tokenizer of {path} puts the special tokens {actual_around} around a text, not {expected_around}; do "
            "not use it, and please report this"
        )
    expected_template, actual_template = find_template(original.config), find_template(converted.config)
    if expected_template != actual_template:
        raise CorruptFile(
            f"{path} has the chat template {str(actual_template)[:60]!r}, not {str(expected_template)[:60]!r}; do not "
            "use it, and please report this"
        )
    return note


def adds_missing_space(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer adds a space before a text only if it does not start with one, as in LlamaTokenizer."""
    pre_tokenizer = json.loads(tokenizer.contents).get("pre_tokenizer")
    return isinstance(pre_tokenizer, dict) and pre_tokenizer.get("type") == "Metaspace"
