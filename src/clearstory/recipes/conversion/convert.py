"""Convert: a model in another format, opened again and compared with what it was made from."""

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
from clearstory.formats.gguf.write import DTYPE_CODES, round_weights, llama_cpp_warning, write_gguf
from clearstory.formats.onnx.export import write_onnx
from clearstory.generation.engine import Engine
from clearstory.generation.settings import Sampling
from clearstory.models.base import TokenBatch
from clearstory.models.transformer.encoder import Encoder
from clearstory.models.build import count_parameters
from clearstory.models.base import reads_source
from clearstory.recipes.conversion.check_onnx import check_onnx
from clearstory.recipes.conversion.check_transformers import TEXTS, PortabilityReport, check_portability, template_of
from clearstory.recipes.settings.tools import NumberFormat
from clearstory.text.tokenizers import Tokenizer

Format = Literal["arpa", "gguf", "hf", "onnx"]

ENDINGS: dict[Format, str] = {"arpa": ".arpa or .arpa.gz", "gguf": ".gguf"}
"""How the names of files end; a name that ends otherwise is a folder's."""

FOLDERS: tuple[Format, ...] = ("hf", "onnx")

HALVES: dict[NumberFormat, torch.dtype] = {"f16": torch.float16, "bf16": torch.bfloat16}

CLOSE = 1e-5
"""Nats by which a token may differ: files of ARPA have eight digits."""

SAMPLES, LENGTH = 8, 32


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A model in another format.

    Args:
        path: where it stands.
        format: arpa, gguf, hf for a model folder, or onnx.
        dtype: how its numbers are written.
        parameters: numbers it has learnt.
        bytes: on disk.
        compared: tokens whose nats were compared with the original's, its numbers rounded as asked for.
        difference: the largest, in nats; None for an encoder's graph that gives vectors only.
        rounding: the largest that rounding the numbers makes, in nats.
        portability: what transformers makes of it, where that was asked for.
        note: what readers of the format do not heed, where there is such a thing.
        share: the largest between two numbers that onnxruntime and the model make, as a share of the largest; of ONNX.
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
    """Write a model in the format that `to` or the name of `out` says, open it again, and compare.

    What is compared are the ids of texts, the chat template, and the nats of tokens that the model wrote itself and of
    tokens drawn by lot; with `check`, transformers is asked as well. What ONNX makes of tokens drawn by lot is asked of
    onnxruntime. Raises FolderExists where something is, CannotDo for what the format cannot hold, CorruptFile where the
    two differ.

    >>> import clearstory
    >>> clearstory.convert("runs/book/model", "book.arpa.gz").difference  # doctest: +SKIP
    3e-07
    """
    path = Path(out).expanduser()
    form = format_of(path, to)
    numbers = numbers_of(form, dtype)
    if form == "onnx":
        return export(model, path, check=check, overwrite=overwrite)
    opened = open_model(model)
    # Reopened as it shall be saved: a large model is then never held in two widths.
    given = open_model(model, dtype=HALVES[numbers]) if form == "hf" and numbers in HALVES else opened
    if form == "arpa":
        if path.exists() and not overwrite:
            raise FolderExists(f"{path} is there already; choose another name, or pass --overwrite to replace it")
        write_arpa(path, opened.model, opened.tokenizer)
    elif form == "gguf":
        write_gguf(path, opened.model, opened.tokenizer, opened.card.name, numbers, overwrite=overwrite)
        given = opened if numbers == "f32" else replace(opened, model=round_weights(opened.model, numbers))
    else:
        save_model(path, given.model, given.tokenizer, given.card, overwrite=overwrite)
    again = open_model(path)
    words = Words.of(opened, again) if form == "arpa" else Words.same(opened)
    if given is not opened:
        given.model.float()
    compared, difference = compare(given, again, words)
    if not difference <= CLOSE:
        raise CorruptFile(
            f"{path} gives other numbers than {model}: of {compared:,} tokens one differs by {difference:.2g} nats; "
            "do not use it, and please report this"
        )
    # Of ARPA's words only the order is kept.
    if opened.tokenizer is not None and again.tokenizer is not None and form != "arpa":
        check_text(path, opened.tokenizer, again.tokenizer)
    return Conversion(
        path=path,
        format=form,
        dtype=numbers,
        parameters=count_parameters(again.model),
        bytes=sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir())),
        tokens_compared=tokens_compared,
        max_nats_difference=max_nats_difference,
        max_rounding_difference=0.0 if given is opened else compare(opened, again, words)[1],
        portability=check_portability(path, again) if check and form != "arpa" else None,
        note=llama_cpp_warning(opened.model) if form == "gguf" else None,
    )


def export(model: str | Path, path: Path, *, check: bool, overwrite: bool) -> Conversion:
    """A folder of ONNX, which takes its name once onnxruntime has made the same of it."""
    if check:
        raise BadSetting(
            "--check asks transformers, which opens no ONNX; leave it out: what is written is compared in any case, by "
            "onnxruntime"
        )
    opened = open_model(model)
    opened.model.float()
    with write_onnx(path, opened.model, opened.tokenizer, opened.card, overwrite=overwrite) as temporary:
        if opened.tokenizer is not None:
            check_text(path, opened.tokenizer, Tokenizer.open(temporary))
        found = check_onnx(temporary, opened.model, path)
    return Conversion(
        path=path,
        format="onnx",
        dtype="f32",
        parameters=count_parameters(opened.model),
        bytes=sum(each.stat().st_size for each in path.iterdir()),
        tokens_compared=found.tokens,
        max_nats_difference=found.nats,
        max_relative_difference=found.max_relative_difference,
        note=opened.note,
    )


def format_of(path: Path, to: Format | None) -> Format:
    """What a name says, and what was asked for, which must agree."""
    named: Format = "arpa" if is_arpa(path) else "gguf" if is_gguf(path) else "hf"
    if path.suffix == ".onnx":
        raise BadSetting(
            f"{path} is the name of a file, and ONNX is written as a folder with tokenizer and config.json; name a "
            "folder, and say --to onnx"
        )
    if to is None or to == named:
        return named
    if named == "hf" and to == "onnx":
        return to
    if named == "hf":
        raise BadSetting(f"--to says {to}, and {path} does not end in {ENDINGS[to]}; change one of them")
    kind = "a folder" if to in FOLDERS else f"a file that ends in {ENDINGS[to]}"
    raise BadSetting(f"{path} is the name of a file of {named.upper()}, and --to says {to}, {kind}; change one of them")


def numbers_of(form: Format, dtype: NumberFormat | None) -> NumberFormat:
    """How numbers shall be written, where the format can."""
    can: dict[Format, tuple[str, ...]] = {
        "arpa": ("f32",),
        "gguf": tuple(DTYPE_CODES),
        "hf": ("f32", "f16", "bf16"),
        "onnx": ("f32",),
    }
    if dtype is not None and dtype not in can[form]:
        raise BadSetting(
            f"--dtype says {dtype}, and {form} is written here in {', '.join(can[form])}; choose one of them"
        )
    return dtype or "f32"


def check_text(path: Path, tokenizer: Tokenizer, again: Tokenizer) -> None:
    """The same ids and the same chat template from the tokenizer that was read back."""
    for text in TEXTS:
        if (ours := tokenizer.encode(text)) != (other := again.encode(text)):
            raise CorruptFile(
                f"{path} makes {str(other)[:60]} of {text[:30]!r}, and {str(ours)[:60]} was meant; do not use it, and "
                "please report this"
            )
    if (meant := template_of(tokenizer)) != (found := template_of(again)):
        raise CorruptFile(
            f"{path} has the chat template {str(found)[:60]!r}, and {str(meant)[:60]!r} was meant; do not use it, and "
            "please report this"
        )


@dataclass(frozen=True)
class Words:
    """One model's tokens as another's.

    Args:
        ids: (V,) each token's id there.
        read: (V,) whether it can be read there as here.
        wanted: (V,) whether it can be foreseen there as here.
    """

    ids: torch.Tensor
    read: torch.Tensor
    wanted: torch.Tensor

    @classmethod
    def same(cls, opened: OpenedModel) -> Words:
        """Nothing differs."""
        all_of_them = torch.ones(opened.model.vocab, dtype=torch.bool)
        return cls(torch.arange(opened.model.vocab), all_of_them, all_of_them)

    @classmethod
    def of(cls, opened: OpenedModel, again: OpenedModel) -> Words:
        """In a file of ARPA ids go by the order of the words, and one token both ends a text and begins the next."""
        assert again.tokenizer is not None
        known = {again.tokenizer.display_token(id): id for id in range(again.tokenizer.vocab)}
        ids = torch.tensor([known.get(name, -1) for name in arpa_words(opened.model, opened.tokenizer)])
        read, wanted = ids >= 0, ids >= 0
        begin = opened.model.config.decoder_start_token_id
        end = begin if opened.tokenizer is None else opened.tokenizer.eos_token_id
        if begin is not None and begin != end:
            ids[begin], read[begin], wanted[begin] = again.model.config.decoder_start_token_id, True, False
            if end is not None:
                read[end] = False
        return cls(ids.clamp(min=0), read, wanted)


def compare(one: OpenedModel, other: OpenedModel, words: Words) -> tuple[int, float]:
    """How many tokens' nats were compared, and the largest difference."""
    model: Any = one.model
    length = LENGTH if model.context is None else min(LENGTH, model.context + 1)
    # An encoder does not write; it tells tokens by what stands around them, itself included.
    texts = (
        drawn(model, length)
        if isinstance(model, Encoder)
        else torch.cat([written(model, length), drawn(model, length)])
    )
    inputs, targets = texts[:, :-1], texts[:, 1:]
    source = {"source": TokenBatch(drawn(model, length).repeat(2, 1))} if reads_source(model) else {}
    with torch.inference_mode():
        nats, _ = model.token_nll(TokenBatch(inputs), targets, **source)
        again, _ = other.model.token_nll(TokenBatch(words.ids[inputs]), words.ids[targets], **source)
    # After a token that reads otherwise nothing can be compared.
    told = words.read[inputs].cumprod(1).bool() & words.wanted[targets]
    differences = (nats.double() - again.double()).abs()[told]
    if isinstance(model, Encoder) and model.classifier is not None:
        differences = torch.cat(
            [differences, (labelled(model, inputs) - labelled(other.model, inputs)).abs().flatten()]
        )
    return int(told.sum()), float(differences.max()) if len(differences) else float("nan")


@torch.inference_mode()
def labelled(model: Encoder, ids: torch.Tensor) -> torch.Tensor:
    """Logarithms of what a head says of labels."""
    return model.class_logits(model.encode(TokenBatch(ids))).double().log_softmax(-1)


def written(model: Any, length: int) -> torch.Tensor:
    """Texts by the model itself, (SAMPLES, length): what it knows best."""
    engine = Engine(model)
    begin = getattr(model.config, "decoder_start_token_id", None) or 0
    sources = drawn(model, length).tolist() if reads_source(model) else [None] * SAMPLES
    rows = {
        engine.add([begin], Sampling(max_tokens=length, seed=seed), source=source): [begin]
        for seed, source in enumerate(sources)
    }
    while engine.has_unfinished:
        for reply in engine.next_tokens():
            rows[reply.request].append(reply.token.id)
    return torch.tensor(list(rows.values()))[:, :length]


def drawn(model: Any, length: int) -> torch.Tensor:
    """Tokens by lot, (SAMPLES, length): what it knows least."""
    ids = np.random.default_rng(1).integers(model.vocab, size=(SAMPLES, length))
    return torch.from_numpy(ids)
